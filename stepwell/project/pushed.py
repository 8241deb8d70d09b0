"""Leaves out of a push the code that works only on the machine that made it.

These are Python's virtual environments, and `node_modules/.bin` unless a step's command names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from stepwell.core.definition.model import Step
from stepwell.core.definition.runtimes import Lambda
from stepwell.project.code import StepCode, hash_of, virtual_environments
from stepwell.project.load import LoadedFunction
from stepwell.project.source import PlacedProblem

_BIN = "node_modules/.bin"


def for_push(function: LoadedFunction) -> LoadedFunction:
    """The function without the files that are not pushed."""
    steps = {step_id: _pushed(function.definition.steps[step_id], code) for step_id, code in function.steps.items()}
    return replace(function, steps=steps)


def not_pushed(function: LoadedFunction) -> list[PlacedProblem]:
    """One problem for each virtual environment that is not pushed: a step that needs it fails elsewhere."""
    problems = []
    for step_id, code in function.steps.items():
        for folder in sorted(_environments(code)):
            message = (
                f"step `{step_id}`: the virtual environment {folder} works only on this machine, so it is not pushed;"
                " install the packages with `pip install --target .` (add the folder to .stepwellignore to hide this)"
            )
            problems.append(function.placed(("steps", step_id, "path"), message))
    return problems


def _pushed(step: Step, code: StepCode) -> StepCode:
    environments = _environments(code)
    keeps_bin = isinstance(step.runtime, Lambda) and _BIN in " ".join(step.runtime.command or ())

    def stays(path: str) -> bool:
        parents = [str(parent) for parent in PurePosixPath(path).parents]
        is_bin = any(f"/{parent}".endswith(f"/{_BIN}") for parent in parents)
        return environments.isdisjoint(parents) and (keeps_bin or not is_bin)

    return _only(code, stays)


def _environments(code: StepCode) -> frozenset[str]:
    return virtual_environments(file.path for file in code.files) - {""}


def _only(code: StepCode, stays: Callable[[str], bool]) -> StepCode:
    files = tuple(file for file in code.files if stays(file.path))
    return code if len(files) == len(code.files) else replace(code, files=files, hash=hash_of(files))
