"""`POST /v1/runs/{id}/rerun`: parses the request. Without a body, the run starts from the beginning."""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.api.http.body import check_integers, read_object, wrong
from stepwell.core.run.outcome import read_json
from stepwell.core.run.resume import Restart

RERUN: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "from_step": {
            "type": ["string", "null"],
            "description": "The step to start from; results of earlier steps are kept.",
        },
        "outputs": {
            "type": ["object", "null"],
            "description": "Other outputs for kept steps, by step id.",
            "additionalProperties": True,
        },
    },
}


def read_rerun(body: bytes) -> Restart | None:
    """The step to restart from, with changed outputs; None: from the start. Raises Problem 400 with the place of every
    error."""
    if not body:
        return None
    raw = read_object(body, RERUN)
    check_integers(body)
    step, outputs = raw.get("from_step"), raw.get("outputs")
    if step is None:
        if outputs:
            raise wrong(("/outputs", "outputs can only be changed together with from_step; add it"))
        return None
    return Restart(step, {item: _output(item, value) for item, value in (outputs or {}).items()})


def _output(step: str, value: Any) -> bytes:
    """Checks and encodes an output in the same way as one that a step returns."""
    try:
        report = read_json(orjson.dumps(value))
    except TypeError:
        raise wrong((f"/outputs/{step[:64]}", "the output has more than 254 levels of nesting")) from None
    if report.output is None:
        raise wrong((f"/outputs/{step[:64]}", report.problem.message if report.problem else "no output"))
    return report.output
