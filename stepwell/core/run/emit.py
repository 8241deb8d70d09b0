"""The event that a step of type `emit` sends.

Its id follows from run and step. So a step that is executed again, after a crash, sends a duplicate, which is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from stepwell.core.cel.expressions import Bindings, Scope, compile_moment, compile_value
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.envelope import InvalidEnvelope, new_event
from stepwell.core.events.events import Event, Invalid
from stepwell.core.plan import Step
from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.outcome import printable

_SHOWN = 5  # places of an event that an error lists


class NotEmitted(Exception):
    """The step fails with this error, because its event cannot be made."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.error = Error("emit_failed", printable(message))


def emitted_event(step: Step, run_id: str, step_input: bytes, now: int) -> Event:
    """The event that a step sends. `step_input`: the step's input document, a JSON text. Raises NotEmitted."""
    runtime, document = step.runtime, orjson.loads(step_input)
    bindings = Bindings(document["event"], document["steps"], document["errors"], async_event=document["async"])
    user = document["event"]["user"] if runtime.user is None else _value("user", runtime.user, bindings)
    if isinstance(user, str):
        user = {"id": user}
    fields = {
        "name": runtime.event,
        "data": {} if runtime.data is None else _value("data", runtime.data, bindings),
        "user": user,
        "id": f"{EngineId.EMIT}{run_id}:{step.id}",
        "ts": now if runtime.ts is None else _moment(runtime.ts, bindings),
    }
    for name, must_be in (("data", "a map, as in {'order': data.order}"), ("user", "a map, or the user's id as text")):
        if not isinstance(fields[name], dict):
            raise NotEmitted(f"`{name}` is {_shown(fields[name])}, but must be {must_be}")
    try:
        return new_event(fields, now, str, (EngineId.EMIT,), accepted_before=False)
    except InvalidEnvelope as refused:
        reasons = ", ".join(f"{pointer}: {message}" if pointer else message for pointer, message in refused.problems)
        raise NotEmitted(f"the event {runtime.event} cannot be sent: {reasons}") from None


def sent(event: Event) -> Outcome:
    """The outcome of a step that has sent its event."""
    return Outcome(output=orjson.dumps({"id": event.id}))


def refused(event: Event, errors: Sequence[Invalid]) -> Error:
    """The error of a step whose event does not match its schema."""
    places = ", ".join(f"{error.pointer or '/'}: {error.message}" for error in errors[:_SHOWN])
    more = f", and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    output = {"errors": [{"pointer": error.pointer, "message": error.message} for error in errors[:_SHOWN]]}
    message = f"the event {event.name} does not match its schema: {places}{more}"
    return Error("event_refused", printable(message), output=orjson.dumps(output))


def _value(field: str, source: str, bindings: Bindings) -> Any:
    found = compile_value(source, Scope.ARGUMENTS).value(bindings)
    if found.problem is not None:
        raise _without_value(field, found.problem)
    return found.value


def _moment(source: str, bindings: Bindings) -> int:
    found = compile_moment(source, Scope.ARGUMENTS).moment(bindings)
    if found.problem is not None:
        raise _without_value("ts", found.problem)
    moment: int = found.value
    return moment


def _without_value(field: str, problem: str) -> NotEmitted:
    return NotEmitted(
        f"`{field}` has no value: {problem}; if a value may be missing, check it with has(...), as in"
        " has(data.x) ? data.x : ..."
    )


def _shown(value: object) -> str:
    return orjson.dumps(value)[:100].decode("utf-8", "replace")
