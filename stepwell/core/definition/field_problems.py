"""Explains errors about field names in a definition: missing fields, unknown fields, unknown runtimes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from stepwell.core.definition.fields import Model, names_of
from stepwell.core.definition.flow_control import (
    Concurrency,
    RateLimit,
    Singleton,
    StepConcurrency,
    StepThrottle,
    Throttle,
    Timeouts,
)
from stepwell.core.definition.model import (
    Async,
    Backoff,
    Cancel,
    Definition,
    Edge,
    EventDefinition,
    Retries,
    Step,
    Trigger,
    Until,
)
from stepwell.core.definition.problems import Pointer, Problem, listed, nearest
from stepwell.core.definition.runtimes import Approval, Celery, Docker, Emit, Faktory, Http, Lambda, Wasm

_RUNTIMES: dict[str, type[Model]] = {
    "lambda": Lambda,
    "docker": Docker,
    "http": Http,
    "wasm": Wasm,
    "approval": Approval,
    "emit": Emit,
    "celery": Celery,
    "faktory": Faktory,
}
_INSIDE_STEP: dict[str, type[Model]] = {
    "retries": Retries,
    "backoff": Backoff,
    "after": Edge,
    "async": Async,
    "concurrency": StepConcurrency,
    "throttle": StepThrottle,
    "until": Until,
}

_FLOW_CONTROL: dict[str | int, type[Model]] = {
    "concurrency": Concurrency,
    "rate_limit": RateLimit,
    "singleton": Singleton,
    "throttle": Throttle,
    "timeouts": Timeouts,
}


def _model_at(location: Pointer) -> type[BaseModel]:
    """The model that contains the field at `location`."""
    if location[0] in _FLOW_CONTROL and len(location) > 1:
        return _FLOW_CONTROL[location[0]]
    if location[0] not in ("triggers", "steps", "cancel") or len(location) < 3:
        return Definition
    if location[0] == "cancel":
        return Cancel
    if location[0] == "triggers":
        return EventDefinition if location[2:3] == ("definition",) and len(location) > 3 else Trigger
    inside = [part for part in location[2:-1] if isinstance(part, str)]
    if inside[:1] == ["runtime"]:
        return _RUNTIMES[inside[1]]
    return _INSIDE_STEP[inside[-1]] if inside else Step


def pointer_of(error: Any) -> Pointer:
    """The place of the value that an error of pydantic describes."""
    location: Pointer = error["loc"]
    pointer = tuple(part for part in location if part != "[key]")
    if len(location) > 3 and location[0] == "steps" and location[2] == "runtime":
        pointer = location[:3] + pointer[4:]  # pydantic adds the runtime's type as a part of the place
    if len(location) > 5 and location[0] == "steps" and (location[2], location[4]) == ("after", "wait"):
        pointer = location[:5] + location[6:]  # and the kind of the delay
    return pointer


def field_problem(error: Any) -> Problem | None:
    """The problem, if the error is about the name of a field; None if it is about a value."""
    location, pointer = error["loc"], pointer_of(error)
    match error["type"]:
        case "extra_forbidden":
            return Problem(pointer, _unknown(str(location[-1]), _model_at(location)))
        case "missing":
            field = location[-1]
            about = next(f.description for n, f in _model_at(location).model_fields.items() if (f.alias or n) == field)
            return Problem(pointer, f"`{field}` is missing; add this field: {about}")
        case "union_tag_not_found":
            return Problem(pointer, f"`runtime` has no `type`; add one of {', '.join(_RUNTIMES)}")
        case "union_tag_invalid":
            return Problem((*pointer, "type"), _unknown_runtime(str(error["ctx"]["tag"])))
    return None


def _unknown(field: str, model: type[BaseModel]) -> str:
    kinds = [kind for kind, runtime in _RUNTIMES.items() if field in names_of(runtime)]
    if kinds and model in _RUNTIMES.values():
        return f"only the runtime {' or '.join(kinds)} has `{field}`; this runtime has {listed(names_of(model))}"
    return f"unknown field `{field[:100]}`; {nearest(field, names_of(model))}"


def _unknown_runtime(name: str) -> str:
    return f"unknown runtime {name[:100]!r}; {nearest(name, _RUNTIMES)}"
