"""A server looks at the code that it is about to run before it runs anything: at that of live versions and open runs.

One rule: what can be put in order is, from where the code came from; a server whose code is lost does not start, since
it would look healthy and fail every run.
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
    """Code that live versions or open runs need is not there, or not what it was; the message says whose it is."""


def check_code(
    needed: Iterable[NeededVersion], keeper: CodeKeeper, paths: Sequence[Path], *, may_be_lost: bool = False
) -> None:
    """Put the code of these versions in order. `paths`: where functions are looked for next, so that what they are made
    of is at hand. Takes as long as it takes to hash it all. Raises CodeLost, unless code may be lost."""
    lost = [needed_version for needed_version in needed if _problems(needed_version, keeper)]
    if lost and paths:
        functions, errors = load_all(paths)
        for function in functions:
            keeper.keep_definition(function.definition.id, function.file)
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
            log.error("it cannot run: %s", problem)
        return
    more = f"\n  and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
    raise CodeLost(
        "the code that functions need is not there, or not what it was:\n  "
        + "\n  ".join(problems[:_MOST_SHOWN])
        + f"{more}\nRestore a backup that has it (`stepwell restore FILE --force`), or put the folder back that lay"
        " beside the database, or start with the folder that the functions came from. If it is lost, start with"
        " --allow-missing-code, push new versions, and rerun what failed."
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
    """Whether it is used once all that was found is live: what came from a file is made live anew, or retired, unless
    that file cannot be loaded."""
    broken = {problem.file.parent for error in errors for problem in error.problems}
    is_replaced = any(function.definition.id == version.function_id for function in functions)
    is_kept = not version.file or (Path(version.file).parent in broken and not is_replaced)
    return version.has_runs or is_kept
