"""Which tests could find a fault in a function: those that enter it, in the order in which they should be tried."""

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

# Folders of tests, in the order in which they are tried; "@" and a platform leaves out the tests on the other one.
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
    "aws": ("tests/aws", "tests/store", "tests/behaviour@aws", "tests/push"),
}
_PLATFORMS = {"": (), "local": ("-k", "local"), "aws": ("-k", "aws and not unkind")}
_LONGEST_BASELINE = 240.0  # seconds, after which the functions entered so far must do
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
    """What a file of tests does where the code is as it should be."""

    digest: str  # of the file
    seconds: float
    cpu: float
    failed: list[str]  # tests that fail in a copy, and so find nothing
    functions: list[str]  # "stepwell/core/plan.py Plan.edges"; none where the file could not be run
    _set: set[str] = field(default_factory=set)

    def enters(self, mutant: Mutant) -> bool:
        self._set = self._set or set(self.functions)
        return f"{mutant.path} {mutant.function}" in self._set


class Baselines:
    """Runs each file of tests once, when it is first asked for, and keeps what it saw for the next time."""

    def __init__(self, tree: Path, kept: Path) -> None:
        self._tree = tree
        self._kept = kept
        self.cpu = 0.0  # seconds that baselines took in this process
        self._known: dict[str, Baseline] = {}
        if kept.exists():
            self._known = {name: Baseline(**fields) for name, fields in orjson.loads(kept.read_bytes()).items()}

    def known(self, file: TestFile) -> Baseline | None:
        found = self._known.get(file.name)
        return found if found and found.digest == self._digest(file) else None

    def of(self, file: TestFile) -> Baseline:
        found = self.known(file)
        if found is None:
            found = self._known[file.name] = self._run(file)
            self.cpu += found.cpu
            self._keep()
        return found

    def _keep(self) -> None:
        self._kept.parent.mkdir(exist_ok=True)
        new = self._kept.with_suffix(f".{os.getpid()}")
        new.write_bytes(orjson.dumps({name: _fields(known) for name, known in self._known.items()}))
        new.replace(self._kept)

    def _digest(self, file: TestFile) -> str:
        return hashlib.sha256((self._tree / file.path).read_bytes()).hexdigest()[:16]

    def _run(self, file: TestFile) -> Baseline:
        functions_to = self._tree.parent / "functions"
        functions_to.unlink(missing_ok=True)
        run = run_tests(self._tree, file.args, _LONGEST_BASELINE, functions_to)
        lines = set(functions_to.read_text("utf-8").splitlines()) if functions_to.exists() else set()
        functions = [] if run.crashed else sorted({_of_the_text(line) for line in lines})
        return Baseline(self._digest(file), run.took, run.cpu, list(run.failed), functions)


def _fields(baseline: Baseline) -> dict[str, Any]:
    return {name: getattr(baseline, name) for name in ("digest", "seconds", "cpu", "failed", "functions")}


_INNER = re.compile(r"(\.<locals>)?\.?<(listcomp|setcomp|dictcomp|genexpr|lambda)>.*")


def _of_the_text(line: str) -> str:
    """Comprehensions and lambdas are functions of Python's; in the text they are parts of the function around them."""
    path, _, name = line.partition("\t")
    return f"{path} {_INNER.sub('', name) or '<module>'}"


def test_files(tree: Path, package: str, mutant: Mutant, baselines: Baselines) -> list[TestFile]:
    """Returns what could find a mutant: files named as its module, then the quick ones."""
    found: list[TestFile] = []
    for folder in FOLDERS[package]:
        path, _, platform = folder.partition("@")
        files = [TestFile(f.relative_to(tree).as_posix(), platform) for f in sorted((tree / path).glob("test_*.py"))]
        found += sorted(files, key=lambda file: (*_distance(tree, file, mutant), _cost(baselines.known(file))))
    return sorted(found, key=lambda file: _distance(tree, file, mutant)[0])


def _cost(baseline: Baseline | None) -> float:
    return baseline.cpu if baseline else 5.0


def _distance(tree: Path, file: TestFile, mutant: Mutant) -> tuple[int, int]:
    module = Path(mutant.path).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    in_name = _words(file.path.rpartition("/")[2]) & _words(module.rpartition(".")[2])
    text = (tree / file.path).read_text("utf-8")
    parent, _, last = module.rpartition(".")
    mentions = module in text or re.search(rf"from {re.escape(parent)} import .*\b{last}\b", text) is not None
    return 0 if in_name and mentions else 1, 0 if in_name or mentions else 1


def _words(name: str) -> set[str]:
    return {word.rstrip("s") for word in re.split(r"[._]", name)} - _STOPWORDS
