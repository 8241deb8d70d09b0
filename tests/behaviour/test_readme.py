"""The list of rules beside the tests that pin them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
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


def test_the_list_of_what_is_only_so_on_one_machine_has_the_reasons_of_the_tests() -> None:
    rows = re.findall(
        r"^\| (.+) \| (.+) \|$", (HERE / "README.md").read_text().split("only so on one machine")[1], re.M
    )
    listed = {(name, why.replace("`", "")) for why, names in rows for name in re.findall(r"`(\w+::\w+)`", names)}
    assert listed == set(skipped_on_aws())


def skipped_on_aws() -> Iterator[tuple[str, str]]:
    """Each test that says `local_only`, with its reason."""
    for file in HERE.glob("test_*.py"):
        module = importlib.import_module(f"tests.behaviour.{file.stem}")
        for name, its in vars(module).items():
            for mark in getattr(its, "pytestmark", ()) if name.startswith("test_") else ():
                if mark.name == "parametrize" and mark.args[0] == "platform":
                    (skip,) = mark.args[1][1].marks
                    yield f"{file.stem.removeprefix('test_')}::{name.removeprefix('test_')}", skip.kwargs["reason"]
