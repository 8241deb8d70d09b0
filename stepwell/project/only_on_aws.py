"""Finds settings of a step that work only on AWS, so that the step behaves differently on the local server."""

from __future__ import annotations

from stepwell.core.definition.problems import listed
from stepwell.core.definition.runtimes import Lambda
from stepwell.project.load import LoadedFunction
from stepwell.project.source import PlacedProblem


def only_on_aws(function: LoadedFunction) -> list[PlacedProblem]:
    """One problem for each step that sets `vpc` or `layers`, which the local server ignores."""
    problems = []
    for step_id, step in function.definition.steps.items():
        if not isinstance(step.runtime, Lambda):
            continue
        names = [name for name in ("vpc", "layers") if getattr(step.runtime, name)]
        if names:
            verb = "has an effect" if len(names) == 1 else "have an effect"
            message = f"step `{step_id}`: {listed(names)} {verb} only on AWS; here the step has this machine's network"
            problems.append(function.placed(("steps", step_id, "runtime", names[0]), message))
    return problems
