"""What of a definition has an effect on AWS alone, and makes a step see something else there than here."""

from __future__ import annotations

from stepwell.core.definition.problems import listed
from stepwell.core.definition.runtimes import Lambda
from stepwell.project.load import LoadedFunction
from stepwell.project.source import PlacedProblem


def only_on_aws(function: LoadedFunction) -> list[PlacedProblem]:
    """The networks and layers that a step has on AWS, and not on this machine: whoever tries it here should know."""
    found = []
    for step_id, step in function.definition.steps.items():
        if not isinstance(step.runtime, Lambda):
            continue
        names = [name for name in ("vpc", "layers") if getattr(step.runtime, name)]
        if names:
            verb = "has an effect" if len(names) == 1 else "have an effect"
            message = (
                f"step `{step_id}`: {listed(names)} {verb} only on AWS; here it has this machine's network and programs"
            )
            found.append(function.placed(("steps", step_id, "runtime", names[0]), message))
    return found
