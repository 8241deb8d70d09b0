"""The list of rules beside the tests that pin them."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_no_test_leaves_out_a_platform() -> None:
    """Where one differs, its test says what it does instead; the last table names those."""
    for file in HERE.glob("test_*.py"):
        code = file.read_text()
        assert not re.search(r"mark\.skip\(|indirect=", code) or file == Path(__file__), file
