"""The tool for mutation tests: which faults it makes, where, and how it judges them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from mutants.__main__ import report, sample
from mutants.copies import ROOT, changed, copy_of_the_tree
from mutants.equivalents import Equivalent, read_equivalents, reason_of
from mutants.operators import Mutant, mutants_of
from mutants.trial import Fate, Trial


def changes(tmp_path: Path, source: str) -> set[str]:
    """What the first changed line becomes by each fault."""
    module = tmp_path / "module.py"
    module.write_text(source, "utf-8")
    return {mutant.becomes for mutant in mutants_of(tmp_path, module)}


@pytest.mark.parametrize(
    ("source", "mutated"),
    [
        ("a < b", {"(a <= b)"}),
        ("a == b != c", {"(a != b != c)", "(a == b == c)"}),
        ("a in b", {"(a not in b)"}),
        ("a and b", {"(a or b)", "(a)", "(b)"}),
        ("a or b or c", {"(a and b and c)", "(b or c)", "(a or c)", "(a or b)"}),
        ("not a", {"(a)"}),
        ("a + b", {"(a - b)"}),
        ("a + 'text'", set()),
        ("a = 7", {"a = (8)"}),
        ("a = True", {"a = (False)"}),
        ("a if b else c", {"(c if b else a)"}),
        ("any(a)", {"(all(a))", "pass"}),
        ("a()", {"pass"}),
        ("a.b = c", {"pass"}),
        ("a += b", {"pass"}),
        ("raise a", {"pass"}),
        ("f'{a < b}'", set()),
        ("'a text'", set()),
        ("a: int = b", set()),
    ],
)
def test_a_fault_is_a_small_change_of_one_place(tmp_path: Path, source: str, mutated: set[str]) -> None:
    assert changes(tmp_path, source) == mutated


def test_faults_include_returning_none_and_leaving_a_loop(tmp_path: Path) -> None:
    source = "def f():\n    for a in b:\n        continue\n    return c\n"
    assert changes(tmp_path, source) == {"break", "return None"}


def test_types_and_messages_get_no_faults(tmp_path: Path) -> None:
    source = (
        "from typing import Protocol\n"
        "if TYPE_CHECKING:\n    a = 1\n"
        "class P(Protocol):\n    def f(self) -> int:\n        return 1\n"
        "class C:\n    def __repr__(self):\n        return 1\n"
        "def g(a: 'x < y') -> 'x < y':\n    '''Text.'''\n    assert a\n"
    )
    assert changes(tmp_path, source) == set()


def test_a_fault_has_the_line_and_function_that_python_reports(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("class C:\n    def f(self):\n        def g():\n            return 'ä', a < b\n", "utf-8")
    (mutant,) = [mutant for mutant in mutants_of(tmp_path, module) if mutant.operator == "comparison"]
    assert (mutant.function, mutant.line) == ("C.f.<locals>.g", 4)
    assert mutant.apply(module.read_text("utf-8")).endswith("            return 'ä', (a <= b)\n")
    assert "+            return 'ä', (a <= b)" in mutant.diff(module.read_text("utf-8"))


def test_every_fault_of_the_code_can_be_compiled() -> None:
    for module in sorted((ROOT / "stepwell" / "core" / "run").glob("*.py")):
        source = module.read_text("utf-8")
        for mutant in mutants_of(ROOT, module)[::10]:
            compile(mutant.apply(source), mutant.path, "exec", dont_inherit=True)


def test_a_seed_selects_the_same_faults_each_time_and_at_most_one_per_line() -> None:
    some = sample(ROOT, "core", 30, 1, "core/run")
    assert some == sample(ROOT, "core", 30, 1, "core/run")
    assert some != sample(ROOT, "core", 30, 2, "core/run")
    assert len({(mutant.path, mutant.line) for mutant in some}) == 30


def test_the_code_is_restored_after_a_fault(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("1", "utf-8")
    with changed(module, "2"):
        assert module.read_text("utf-8") == "2"
    assert module.read_text("utf-8") == "1"


def test_a_copy_contains_uncommitted_files_but_no_build_output(tmp_path: Path) -> None:
    for name in ("new.py", ".git/HEAD", "node_modules/a.js", "code/.mypy_cache/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", "utf-8")
    with copy_of_the_tree(tmp_path) as tree:
        files = {file.relative_to(tree).as_posix() for file in tree.rglob("*") if file.is_file()}
        assert (tree / "node_modules").is_symlink()
    assert files == {"new.py"}
    assert not tree.exists()


def mutant(was: str = "a < b", becomes: str = "(a <= b)") -> Mutant:
    return Mutant("stepwell/core/a.py", "f", 1, "comparison", 0, 5, "(a <= b)", was, becomes)


def test_an_equivalent_fault_is_recognised_by_function_and_text_in_any_module() -> None:
    known = [Equivalent("f", "a < b", "(a <= b)", "a is never b")]
    assert reason_of(mutant(), known) == "a is never b"
    assert reason_of(mutant("a < b + 1"), known) is None


def test_the_list_of_equivalent_faults_can_be_read_and_has_reasons() -> None:
    assert all(entry.reason.strip() for entry in read_equivalents())


def test_the_score_is_the_share_of_faults_found_without_equivalent_ones() -> None:
    fates: list[Fate] = ["killed", "killed", "timeout", "survived", "unfinished", "equivalent"]
    lines = report([Trial("core", mutant(), fate, "the diff") for fate in fates]).splitlines()
    assert lines[1:3] == ["survived (comparison; 0 test files ran)", "the diff"]
    assert lines[-1].split() == ["core", "75%", "2", "1", "1", "1", "1"]


def test_the_command_prints_which_test_found_a_fault() -> None:
    arguments = ["--only", "core", "--match", "_step_ms", "-n", "1", "--limit", "0.1", "--json"]
    done = subprocess.run([sys.executable, "-m", "mutants", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (trial,) = orjson.loads(done.stdout)
    assert trial["fate"] == "killed"
    assert trial["found_by"].startswith("tests/core/test_max_run_duration.py::test_")
    assert done.stderr.startswith("core 1/1  stepwell/core/run/max_run_duration.py")
