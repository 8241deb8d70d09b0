"""Plants each bug of this folder in a copy of the repository, and checks that the listed tests fail.

`make planted` plants all of them; otherwise only a few are planted.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mutants.copies import ROOT, copy_of_the_tree
from mutants.planted import CannotBePlanted, PlantedBug, read_bug

BUGS = [read_bug(file) for file in sorted(Path(__file__).parent.glob("*.toml"))]
ALWAYS = ("claim_of_an_earlier_attempt", "signature_from_the_future")
PLANTED = BUGS if os.environ.get("STEPWELL_PLANTED") else [bug for bug in BUGS if bug.name in ALWAYS]


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    with copy_of_the_tree() as tree:
        yield tree


def run(tree: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Runs tests in a copy, in a process of its own, so that no bug affects the tests of another."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)


def failed(output: str) -> set[str]:
    return {line.split(" ")[1].partition("[")[0] for line in output.splitlines() if line.startswith("FAILED ")}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_changes_one_place_and_lists_existing_tests(bug: PlantedBug) -> None:
    assert bug.module(ROOT).read_text("utf-8").replace(bug.old, bug.new) != bug.module(ROOT).read_text("utf-8")
    ast.parse(bug.module(ROOT).read_text("utf-8").replace(bug.old, bug.new))
    assert bug.found_by
    for test in bug.found_by:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), test


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_every_listed_test_finds_the_planted_bug(bug: PlantedBug, tree: Path) -> None:
    clean = run(tree, bug.found_by)
    assert clean.returncode == 0, clean.stdout
    with bug.planted(tree):
        broken = run(tree, bug.found_by)
    assert failed(broken.stdout) == {test.partition("[")[0] for test in bug.found_by}, broken.stdout


def test_a_bug_whose_text_is_missing_or_not_unique_is_an_error(tmp_path: Path) -> None:
    bug = PlantedBug("b", "what it breaks", "code", "old", "new", ("tests/test_a.py::test_a",))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1", "utf-8")
    with pytest.raises(CannotBePlanted, match="b: the text `old` occurs 0 times in code, but must occur once"):
        bug.module(tmp_path)
    (tmp_path / "code" / "a.py").write_text("old", "utf-8")
    assert bug.module(tmp_path) == tmp_path / "code" / "a.py"
    (tmp_path / "code" / "b.py").write_text("old", "utf-8")
    with pytest.raises(CannotBePlanted, match="occurs 2 times"):
        bug.module(tmp_path)
