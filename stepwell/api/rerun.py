"""`POST /v1/runs/{id}/rerun`: from the start, without a body, or from a step, with edited outputs of kept steps."""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.api.problem import Problem
from stepwell.core.events import large_integers
from stepwell.core.outcome import read_json
from stepwell.core.resume import Restart

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
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise _wrong("", 'the body is an object such as {"from_step": "step-2"}, or there is none')
    for name in raw:
        if name not in RERUN["properties"]:
            raise _wrong(f"/{name[:50]}", f"the field {name[:50]!r} is unknown; there are from_step and outputs")
    for large in large_integers(body):
        raise _wrong(large.pointer, large.message)
    step, outputs = raw.get("from_step"), raw.get("outputs")
    if step is not None and not isinstance(step, str):
        raise _wrong("/from_step", "from_step is the id of a step")
    if outputs is not None and not isinstance(outputs, dict):
        raise _wrong("/outputs", "outputs is an object: outputs by the ids of steps")
    if step is None:
        if outputs:
            raise _wrong("/outputs", "outputs are kept, or edited, only with from_step; add it")
        return None
    return Restart(step, {its: _output(its, value) for its, value in (outputs or {}).items()})


def _output(step: str, value: Any) -> bytes:
    """As if the step had said it."""
    try:
        said = read_json(orjson.dumps(value))
    except TypeError:
        raise _wrong(f"/outputs/{step[:64]}", "the output is nested more than 254 deep") from None
    if said.output is None:
        raise _wrong(f"/outputs/{step[:64]}", said.problem.message if said.problem else "no output")
    return said.output


def _wrong(pointer: str, message: str) -> Problem:
    return Problem(400, message, errors=[{"pointer": pointer, "message": message}])
