"""Checks at a server's start that the code of live versions and open runs is present and unchanged.

Damaged code is restored from where it came from. A server whose code is lost does not start: it would look healthy, and
fail every run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from stepwell.local.code.in_use import NeededVersion
from stepwell.local.code.keeper import CodeKeeper
from stepwell.project.load import LoadedFunction, LoadError, load_all

log = logging.getLogger("stepwell.code")

_MOST_SHOWN = 10


class CodeLost(Exception):
    """Code that live versions or open runs need is missing or changed. The message lists the affected steps."""


def check_code(
    needed: Iterable[NeededVersion], keeper: CodeKeeper, paths: Sequence[Path], *, may_be_lost: bool = False
) -> None:
    """Restores the code of these versions where needed. Raises CodeLost unless `may_be_lost` is set.

    `paths` are the folders that functions are loaded from next; code is restored from there. Hashes all of the code."""
    lost = [needed_version for needed_version in needed if _problems(needed_version, keeper)]
    if lost and paths:
        functions, errors = load_all(paths)
        for function in functions:
            keeper.remember_definition(function.definition.id, function.file)
        lost = [
            needed_version
            for needed_version in lost
            if _is_needed(needed_version, functions, errors) and _problems(needed_version, keeper)
        ]
    if not lost:
        return
    problems = [problem for needed_version in lost for problem in _problems(needed_version, keeper)]
    if may_be_lost:
        for problem in problems:
            log.error("the step cannot run: %s", problem)
        return
    more = f"\n  and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
    raise CodeLost(
        "the code that functions need is missing or was changed:\n  "
        + "\n  ".join(problems[:_MOST_SHOWN])
        + f"{more}\nRestore a backup that contains it (`stepwell restore FILE --force`), or put the folder back that"
        " was beside the database, or start with the folder that the functions came from. If the code is lost, start"
        " with --allow-missing-code, push new versions, and rerun the failed runs."
    )


def _problems(version: NeededVersion, keeper: CodeKeeper) -> list[str]:
    uses = " and ".join(
        words for words, holds in (("live", version.is_live), ("used by open runs", version.has_runs)) if holds
    )
    return [
        f"{version.function_id} version {version.version} ({uses}), step {step}: {keeper.folder / code_hash}"
        for step, code_hash in version.code.items()
        if keeper.check(code_hash, version.function_id, version.version) is not None
    ]


def _is_needed(version: NeededVersion, functions: Sequence[LoadedFunction], errors: Sequence[LoadError]) -> bool:
    """Whether the version is still needed after all found functions are deployed. A function that came from a file is
    then replaced or retired, unless that file cannot be loaded."""
    broken = {problem.file.parent for error in errors for problem in error.problems}
    is_replaced = any(function.definition.id == version.function_id for function in functions)
    is_kept = not version.file or (Path(version.file).parent in broken and not is_replaced)
    return version.has_runs or is_kept
