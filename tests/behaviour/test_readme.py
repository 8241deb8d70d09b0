"""Checks the list of rules in README.md, and that no test skips a platform."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_the_readme_lists_every_test_and_no_others() -> None:
    listed = set(re.findall(r"`(\w+::\w+)`", (HERE / "README.md").read_text()))
    written = {
        f"{file.stem.removeprefix('test_')}::{name}"
        for file in HERE.glob("test_*.py")
        if file != Path(__file__)
        for name in re.findall(r"^def test_(\w+)", file.read_text(), re.MULTILINE)
    }
    assert listed - {"file::test"} == written


# A machine may lack a program that a test starts. Other reasons to skip a test, or a platform, are detected.
LEAVES_OUT = re.compile(
    r"mark\.(skip|xfail)\b|\b(skip|xfail|importorskip)\(|mark\.skipif\(\s*(?!shutil\.which\()|indirect=|\bparams=|isinstance\(platform"
)


def test_no_test_skips_a_platform() -> None:
    """Where a platform differs, its test checks what it does instead. The last table of README.md lists these tests."""
    for file in HERE.glob("test_*.py"):
        found = LEAVES_OUT.search(file.read_text())
        assert file == Path(__file__) or not found, (file.name, found)


@pytest.mark.parametrize(
    "code",
    [
        "@pytest.mark.skip",
        "@pytest.mark.skip(reason='not here')",
        "@pytest.mark.skipif(os.environ.get('X'), reason='')",
        "@pytest.mark.skipif(\n    'aws' in sys.argv, reason='')",
        "@pytest.mark.xfail",
        "    pytest.skip('only on one machine')",
        "@pytest.mark.parametrize('platform', ['aws'], indirect=True)",
        "@pytest.fixture(params=['local'])",
        "    if isinstance(platform, LocalTestPlatform):",
    ],
)
def test_skipping_a_platform_is_detected(code: str) -> None:
    assert LEAVES_OUT.search(code)


def test_a_missing_program_can_skip_a_test() -> None:
    assert not LEAVES_OUT.search("@pytest.mark.skipif(shutil.which('node') is None, reason='node is not installed')")
