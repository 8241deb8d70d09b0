"""Tries one mutant: runs the tests that enter the changed function, file by file, until one fails."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mutants.copies import changed
from mutants.operators import Mutant
from mutants.runs import run_tests
from mutants.tests_of import Baselines, test_files

Fate = Literal[
    "killed", "survived", "timeout", "equivalent", "unfinished"
]  # unfinished: the time limit came before the last test


@dataclass(frozen=True, slots=True)
class Trial:
    package: str
    mutant: Mutant
    fate: Fate
    diff: str
    found_by: str = ""  # the test that failed
    files: int = 0  # number of test files that ran
    cpu: float = 0.0  # seconds
    reason: str = ""  # why it is equivalent


def try_mutant(tree: Path, package: str, mutant: Mutant, baselines: Baselines, limit: float) -> Trial:
    """The fate of a mutant, found within about `limit` seconds of CPU time.

    Test files that import the module run first; then those that enter the changed function. Finding out which ones do
    counts towards the limit. An endless loop counts as found.
    """
    module = tree / mutant.path
    source = module.read_text("utf-8")
    diff, cpu, files = mutant.diff(source), 0.0, 0
    for file, imports_module in test_files(tree, package, mutant, baselines):
        if cpu >= limit:
            return Trial(package, mutant, "unfinished", diff, "", files, cpu)
        before = baselines.cpu
        if not imports_module and not baselines.of(file).enters(mutant):
            cpu += baselines.cpu - before
            continue
        with changed(module, mutant.apply(source)):
            run = run_tests(tree, [*file.args, "-x", *baselines.without(file)], baselines.patience(file))
        found = run.failed[0] if run.failed else file.name
        is_real = not run.failed or baselines.passes(found)
        cpu, files = cpu + run.cpu + baselines.cpu - before, files + 1
        if run.timed_out and baselines.comes_to_its_end(file):
            return Trial(package, mutant, "timeout", diff, file.name, files, cpu)
        if not run.timed_out and (run.failed or run.crashed) and is_real:
            return Trial(package, mutant, "killed", diff, found, files, cpu)
    return Trial(package, mutant, "survived", diff, "", files, cpu)
