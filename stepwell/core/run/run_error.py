"""The error of a failed run, for the API, the log and `stepwell/run.failed`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from stepwell.core.plan import TRIGGER, Plan
from stepwell.core.run.outcome import printable
from stepwell.core.run.run import Run

CONDITION_FAILED = "condition_failed"
_LONGEST_SOURCE = 300
_NOT_STORED = {"kind": "unknown", "message": "the error is not stored any more", "status": None, "output": None}


def run_error(plan: Plan, run: Run, errors: Mapping[int, bytes | None]) -> dict[str, Any] | None:
    """The error of a run, with the `step` that it belongs to; None if the run did not fail.

    It is the error of the failed step, or that of the edge whose `if` has no value. `errors`: the errors of the failed
    steps, as JSON texts.
    """
    if run.failed_edge is not None:
        return _condition_failed(plan, run, run.failed_edge, errors)
    if run.failed_step is None:
        return None
    error = errors.get(run.failed_step)
    return {"step": plan.steps[run.failed_step].id, **(orjson.loads(error) if error else _NOT_STORED)}


def _condition_failed(plan: Plan, run: Run, e: int, errors: Mapping[int, bytes | None]) -> dict[str, Any]:
    edge = plan.edges[e]
    step = plan.steps[edge.step]
    index = step.edges.index(e)
    parent = "$trigger" if edge.parent == TRIGGER else plan.steps[edge.parent].id
    problem = next((text for kind, at, text in run.problems if (kind, at) == ("edge", e)), "the reason is erased")
    source = edge.condition or ""
    if len(source) > _LONGEST_SOURCE:
        source = f"{source[:_LONGEST_SOURCE]}..."
    message = (
        f"cannot decide whether `{step.id}` runs after `{parent}`: `if` of steps.{step.id}.after[{index}], `{source}`, "
        f"has no value: {problem}; if a value may be missing, check it first with has(...), as in has(data.x) && "
        "data.x > 1"
    )
    if failure := errors.get(edge.parent):
        value = orjson.loads(failure)
        message = f"{message}. Before that, step `{parent}` failed: {value['kind']}: {value['message']}"
    return {
        "step": step.id,
        "kind": CONDITION_FAILED,
        "message": printable(message),
        "status": None,
        "output": None,
        "edge": {"step": step.id, "after": parent, "index": index, "problem": problem},
    }
