"""Selects the tests that could find a fault in a function: those that enter it, in the order to try them."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from mutants.operators import Mutant
from mutants.runs import run_tests

# Folders of tests, in the order to try them. "@" and a platform selects the tests for that platform.
FOLDERS = {
    "core": ("tests/core", "tests/project", "tests/event_types", "tests/behaviour@local", "tests/local", "tests/api"),
    "engine": (
        "tests/engine",
        "tests/store",
        "tests/behaviour@local",
        "tests/local",
        "tests/behaviour@aws",
        "tests/aws",
    ),
    "local": (
        "tests/local",
        "tests/store",
        "tests/behaviour@local",
        "tests/api",
        "tests/crash",
        "tests/cli",
        "tests/dev",
    ),
    "aws": ("tests/aws", "tests/store", "tests/behaviour@aws", "tests/push", "tests/adapter"),
}
_PLATFORMS = {"": (), "local": ("-k", "local"), "aws": ("-k", "aws and not unkind")}
_LONGEST_BASELINE = 240.0  # seconds; after that, the functions entered so far are used
_STOPWORDS = {"test", "py", "engine", "local", "aws", "core", "init"}


@dataclass(frozen=True, slots=True)
class TestFile:
    path: str
    platform: str = ""

    @property
    def name(self) -> str:
        return f"{self.path}@{self.platform}" if self.platform else self.path

    @property
    def args(self) -> tuple[str, ...]:
        return (self.path, *_PLATFORMS[self.platform])


@dataclass(slots=True)
class Baseline:
    """What a test file does when the code has no fault."""

    digest: str  # of the test file
    seconds: float
    cpu: float
    failed: list[str]  # tests that fail in a copy even without a fault, so they prove nothing
    functions: list[str]  # such as "stepwell/core/plan.py Plan.edges"; empty if the file could not be run
    _set: set[str] = field(default_factory=set)

    def enters(self, mutant: Mutant) -> bool:
        self._set = self._set or set(self.functions)
        return f"{mutant.path} {mutant.function}" in self._set


class Baselines:
    """Runs each test file once without a fault, when it is first needed, and stores the result in a file."""

    def __init__(self, tree: Path, file: Path) -> None:
        self._tree = tree
        self._file = file
        self._passes: dict[str, bool] = {}
        self.cpu = 0.0  # CPU seconds of baselines in this process
        self._known: dict[str, Baseline] = {}
        if file.exists():
            self._known = {name: Baseline(**fields) for name, fields in orjson.loads(file.read_bytes()).items()}

    def known(self, file: TestFile) -> Baseline | None:
        found = self._known.get(file.name)
        return found if found and found.digest == self._digest(file) else None

    def of(self, file: TestFile) -> Baseline:
        found = self.known(file)
        if found is None:
            found = self._known[file.name] = self._run(file)
            self.cpu += found.cpu
            self._save()
        return found

    def without(self, file: TestFile) -> list[str]:
        """Arguments of pytest that leave out the tests that fail even without a fault."""
        known = self.known(file)
        return [f"--deselect={test}" for test in known.failed] if known else []

    def patience(self, file: TestFile) -> float:
        """Seconds after which a run with a mutant counts as an endless loop."""
        known = self.known(file)
        return 30 + 8 * known.seconds if known else _LONGEST_BASELINE

    def passes(self, test: str) -> bool:
        """Whether a test passes without a fault."""
        if test not in self._passes:
            run = run_tests(self._tree, [test], _LONGEST_BASELINE)
            self._passes[test], self.cpu = not run.failed, self.cpu + run.cpu
        return self._passes[test]

    def comes_to_its_end(self, file: TestFile) -> bool:
        """Whether a file that timed out with a mutant takes less than half of the time limit without it."""
        if self.known(file):
            return True
        if file.name not in self._passes:
            run = run_tests(self._tree, file.args, _LONGEST_BASELINE / 2)
            self._passes[file.name], self.cpu = not run.timed_out, self.cpu + run.cpu
        return self._passes[file.name]

    def _save(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        new = self._file.with_suffix(f".{os.getpid()}")
        new.write_bytes(orjson.dumps({name: _fields(known) for name, known in self._known.items()}))
        new.replace(self._file)

    def _digest(self, file: TestFile) -> str:
        return hashlib.sha256((self._tree / file.path).read_bytes()).hexdigest()[:16]

    def _run(self, file: TestFile) -> Baseline:
        functions_to = self._tree.parent / "functions"
        functions_to.unlink(missing_ok=True)
        run = run_tests(self._tree, file.args, _LONGEST_BASELINE, functions_to)
        lines = set(functions_to.read_text("utf-8").splitlines()) if functions_to.exists() else set()
        functions = [] if run.crashed else sorted({_written_function(line) for line in lines})
        return Baseline(self._digest(file), run.took, run.cpu, list(run.failed), functions)


def _fields(baseline: Baseline) -> dict[str, Any]:
    return {name: getattr(baseline, name) for name in ("digest", "seconds", "cpu", "failed", "functions")}


_INNER = re.compile(r"(\.<locals>)?\.?<(listcomp|setcomp|dictcomp|genexpr|lambda)>.*")


def _written_function(line: str) -> str:
    """Path and function name of an entered function. Comprehensions and lambdas count as the function around them."""
    path, _, name = line.partition("\t")
    return f"{path} {_INNER.sub('', name) or '<module>'}"


def test_files(tree: Path, package: str, mutant: Mutant, baselines: Baselines) -> list[tuple[TestFile, bool]]:
    """The test files that could find a mutant, best first, each with whether it imports the module."""
    found: list[tuple[TestFile, int]] = []
    for folder in FOLDERS[package]:
        path, _, platform = folder.partition("@")
        files = [TestFile(f.relative_to(tree).as_posix(), platform) for f in sorted((tree / path).glob("test_*.py"))]
        distances = [(file, _distance(tree, file, mutant)) for file in files]
        found += sorted(distances, key=lambda item: (item[1], _cost(baselines.known(item[0]))))
    return [(file, distance < 2) for file, distance in sorted(found, key=lambda item: item[1])]


def _cost(baseline: Baseline | None) -> float:
    return baseline.cpu if baseline else 5.0


def _distance(tree: Path, file: TestFile, mutant: Mutant) -> int:
    """How close a test file is to a module.

    0: it imports the module and has a similar name; 1: it imports it; 2: it has a similar name, or it or the fixtures
    of its folder import another module of the package; 3: none of these.
    """
    module = Path(mutant.path).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    has_similar_name = _words(file.path.rpartition("/")[2]) & _words(module.rpartition(".")[2])
    text = (tree / file.path).read_text("utf-8")
    parent, _, last = module.rpartition(".")
    is_named = re.search(rf"{re.escape(module)}(?!\w)", text)  # `sweep` must not match in `sweeper`
    imports = is_named is not None or re.search(rf"from {re.escape(parent)} import .*\b{last}\b", text) is not None
    if imports:
        return 0 if has_similar_name else 1
    fixtures = tree / Path(file.path).parent / "conftest.py"
    is_near = parent in text or (fixtures.exists() and parent in fixtures.read_text("utf-8"))
    return 2 if has_similar_name or is_near else 3


def _words(name: str) -> set[str]:
    return {word.rstrip("s") for word in re.split(r"[._]", name)} - _STOPWORDS
