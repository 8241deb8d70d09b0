"""`python -m mutants`: tries a seeded sample of small faults in the code, and prints those that no test finds."""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from mutants.copies import ROOT, copy_of_the_tree
from mutants.equivalents import Equivalent, read_equivalents, reason_of
from mutants.operators import Mutant, mutants_of
from mutants.runs import import_before
from mutants.tests_of import FOLDERS, Baselines
from mutants.trial import Trial, try_mutant

SOURCES = {
    "core": ("stepwell/core",),
    "engine": ("stepwell/engine",),
    "local": ("stepwell/local",),
    "aws": ("stepwell/aws",),
}
_BASELINES = Path(".mutants/baselines.json")


def main(argv: Sequence[str] | None = None) -> None:
    options = _options().parse_args(argv)
    packages = options.only.split(",") if options.only else list(SOURCES)
    if unknown := set(packages) - set(SOURCES):
        sys.exit(f"--only {options.only}: unknown {', '.join(sorted(unknown))}; choose from {', '.join(SOURCES)}")
    with warnings.catch_warnings(action="ignore"):
        import_before()
    if options.fresh:
        (ROOT / _BASELINES).unlink(missing_ok=True)
    trials: list[Trial] = []
    with copy_of_the_tree() as tree:
        baselines = Baselines(tree, ROOT / _BASELINES)
        for package in packages:
            chosen = sample(tree, package, options.n, options.seed, options.match)
            for number, mutant in enumerate(chosen, 1):
                trials.append(_try(tree, package, mutant, baselines, options.limit, read_equivalents()))
                _print_progress(f"{package} {number}/{len(chosen)}", trials[-1], options.json)
    if options.json:
        print(orjson.dumps([asdict(trial) for trial in trials], option=orjson.OPT_INDENT_2).decode())
    else:
        print(report(trials))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="selects the sample; default: 1")
    parser.add_argument("-n", type=int, default=40, help="mutants per package; default: 40")
    parser.add_argument("--only", help=f"packages, separated by commas; default: {','.join(FOLDERS)}")
    parser.add_argument("--match", default="", help="only mutants whose path or function contains this text")
    parser.add_argument("--limit", type=float, default=120.0, help="CPU seconds of tests per mutant; default: 120")
    parser.add_argument("--json", action="store_true", help="print all mutants as JSON; progress goes to stderr")
    parser.add_argument("--fresh", action="store_true", help="measure again which tests enter which functions")
    return parser


def sample(tree: Path, package: str, count: int, seed: int, match: str = "") -> list[Mutant]:
    """The first `count` mutants of a package in an order given by the seed, at most one per line of code."""
    modules = [m for source in SOURCES[package] for m in _modules(tree / source)]
    found = [mutant for module in modules for mutant in mutants_of(tree, module)]
    found = [mutant for mutant in found if match in f"{mutant.path} {mutant.function}"]
    random.Random(f"{seed} {package}").shuffle(found)
    chosen = {(mutant.path, mutant.line): mutant for mutant in reversed(found)}
    return list(reversed(chosen.values()))[:count]


def _modules(source: Path) -> Iterable[Path]:
    if source.is_dir():
        return sorted(source.rglob("*.py"))
    return [source] if source.exists() else []


def _try(
    tree: Path, package: str, mutant: Mutant, baselines: Baselines, limit: float, equivalents: list[Equivalent]
) -> Trial:
    if reason := reason_of(mutant, equivalents):
        return Trial(package, mutant, "equivalent", mutant.diff((tree / mutant.path).read_text("utf-8")), reason=reason)
    return try_mutant(tree, package, mutant, baselines, limit)


def _print_progress(where: str, trial: Trial, to_stderr: bool) -> None:
    mutant = trial.mutant
    outcome = f"{trial.fate} by {trial.found_by}" if trial.found_by else trial.fate
    place = f"{mutant.path}:{mutant.line} {mutant.function}, {mutant.operator}"
    print(f"{where}  {place}: {outcome} ({trial.cpu:.1f} s)", file=sys.stderr if to_stderr else sys.stdout, flush=True)


def report(trials: list[Trial]) -> str:
    """The surviving mutants as diffs, and each package's score: the share of mutants that were found.

    Equivalent mutants are not counted, and no mutants whose time limit came before the last test.
    """
    lines = []
    for trial in trials:
        if trial.fate in ("survived", "unfinished"):
            ran = f"{trial.files} test files ran" + (", more were not tried" if trial.fate == "unfinished" else "")
            lines += ["", f"{trial.fate} ({trial.mutant.operator}; {ran})", trial.diff]
    head = f"{'':8} {'score':>6} {'killed':>7} {'timeouts':>9} {'survived':>9} {'unfinished':>11} {'equivalent':>11}"
    lines += ["", head]
    for package in dict.fromkeys(trial.package for trial in trials):
        fates = Counter(trial.fate for trial in trials if trial.package == package)
        found = fates["killed"] + fates["timeout"]
        of = found + fates["survived"]
        score = f"{100 * found / of:.0f}%" if of else "-"
        row = f"{package:8} {score:>6} {fates['killed']:>7} {fates['timeout']:>9} {fates['survived']:>9}"
        lines.append(f"{row} {fates['unfinished']:>11} {fates['equivalent']:>11}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
