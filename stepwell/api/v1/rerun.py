"""`POST /v1/runs/{id}/rerun`: from the start, without a body, or from a step, with edited outputs of kept steps."""

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
        "from_step": {"type": ["string", "null"], "description": "go on from this step; what ended before it is kept"},
        "outputs": {
            "type": ["object", "null"],
            "description": "outputs by step, instead of those that are kept",
            "additionalProperties": True,
        },
    },
}


def read_rerun(body: bytes) -> Restart | None:
    """None: from the start. Raises Problem 400 with the place of what is wrong."""
    if not body:
        return None
    raw = read_object(body, RERUN)
    check_integers(body)
    step, outputs = raw.get("from_step"), raw.get("outputs")
    if step is None:
        if outputs:
            raise wrong(("/outputs", "outputs are kept, or edited, only with from_step; add it"))
        return None
    return Restart(step, {item: _output(item, value) for item, value in (outputs or {}).items()})


def _output(step: str, value: Any) -> bytes:
    """As if the step had said it."""
    try:
        report = read_json(orjson.dumps(value))
    except TypeError:
        raise wrong((f"/outputs/{step[:64]}", "the output is nested more than 254 deep")) from None
    if report.output is None:
        raise wrong((f"/outputs/{step[:64]}", report.problem.message if report.problem else "no output"))
    return report.output
