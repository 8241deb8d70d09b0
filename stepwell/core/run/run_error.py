"""The error of a failed run, for the API, the log and `stepwell/run.failed`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from stepwell.core.plan import TRIGGER, Plan
from stepwell.core.run.outcome import printable
from stepwell.core.run.run import UNTIL, Run

CONDITION_FAILED = "condition_failed"
_LONGEST_SOURCE = 300
_NOT_STORED = {"kind": "unknown", "message": "the error is not stored any more", "status": None, "output": None}


def run_error(plan: Plan, run: Run, errors: Mapping[int, bytes | None]) -> dict[str, Any] | None:
    """The error of a run, with the `step` that it belongs to; None if the run did not fail.

    It is the error of the failed step, or of the edge whose `if` or `wait.until` has no value. `errors`: the errors
    of the failed steps, as JSON texts.
    """
    if run.failed_edge is not None:
        return _condition_failed(plan, run, run.failed_edge, errors)
    if run.failed_step is None:
        return None
    error = errors.get(run.failed_step)
    return {"step": plan.steps[run.failed_step].id, **(orjson.loads(error) if error else _NOT_STORED)}


def _shortened(source: str) -> str:
    return source if len(source) <= _LONGEST_SOURCE else f"{source[:_LONGEST_SOURCE]}..."


def _condition_failed(plan: Plan, run: Run, e: int, errors: Mapping[int, bytes | None]) -> dict[str, Any]:
    edge = plan.edges[e]
    step = plan.steps[edge.step]
    index = step.edges.index(e)
    parent = "$trigger" if edge.parent == TRIGGER else plan.steps[edge.parent].id
    kind, problem = next(
        ((kind, text) for kind, at, text in run.problems if at == e and kind in ("edge", UNTIL)),
        ("edge", "the reason is erased"),
    )
    word, field, source = "whether", "if", edge.condition
    cure = "has(data.x) && data.x > 1"
    if kind == UNTIL and edge.pause is not None:
        word, field, source = "when", "wait.until", plan.pauses[edge.pause].until
        cure = "has(data.at) ? data.at : '2026-12-24T18:00:00Z'"
    message = (
        f"cannot decide {word} `{step.id}` runs after `{parent}`: `{field}` of steps.{step.id}.after[{index}], "
        f"`{_shortened(source or '')}`, has no value: {problem}; if a value may be missing, check it first with "
        f"has(...), as in {cure}"
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
