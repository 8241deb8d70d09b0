"""The list of rules beside the tests that pin them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_the_list_of_rules_names_every_test_and_no_other() -> None:
    listed = set(re.findall(r"`(\w+::\w+)`", (HERE / "README.md").read_text()))
    written = {
        f"{file.stem.removeprefix('test_')}::{name}"
        for file in HERE.glob("test_*.py")
        if file != Path(__file__)
        for name in re.findall(r"^def test_(\w+)", file.read_text(), re.MULTILINE)
    }
    assert listed - {"file::test"} == written


# A machine may lack a program that a test starts. What else leaves out a test, or a platform, is found.
LEAVES_OUT = re.compile(
    r"mark\.(skip|xfail)\b|\b(skip|xfail|importorskip)\(|mark\.skipif\(\s*(?!shutil\.which\()|indirect=|\bparams=|isinstance\(platform"
)


def test_no_test_leaves_out_a_platform() -> None:
    """Where one differs, its test says what it does instead; the last table names those."""
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
def test_what_leaves_out_a_platform_is_found(code: str) -> None:
    assert LEAVES_OUT.search(code)


def test_a_program_that_a_machine_lacks_may_leave_out_a_test() -> None:
    assert not LEAVES_OUT.search("@pytest.mark.skipif(shutil.which('node') is None, reason='node is not installed')")
