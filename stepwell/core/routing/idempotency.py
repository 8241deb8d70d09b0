"""`idempotency`: one run of a function for each value of an expression about its event, in 24 hours.

One rule: values that CEL calls equal are the same value, and what is no JSON scalar is none.
"""

from __future__ import annotations

import hashlib

import orjson

from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.events.events import Event
from stepwell.core.routing.waits import canonical, is_scalar

WINDOW_MS = 86_400_000


def value_key(source: str, event: Event) -> tuple[bytes, str | None]:
    """A digest of the expression's value for this event; and, if it has none, why."""
    found = compile_value(source, Scope.TRIGGER).value(Bindings(event=event.as_json()))
    if found.problem is not None:
        return b"", found.problem
    if not is_scalar(found.value):
        kind = "a list" if isinstance(found.value, list) else "an object"
        return b"", f"is {kind}, not a text, a number, true, false or null"
    return hashlib.blake2b(orjson.dumps(canonical(found.value)), digest_size=16).digest(), None


def claimed_value(source: str | None, event: Event) -> bytes | None:
    """The digest under which a run of this event may have been claimed; None if under none."""
    if source is None:
        return None
    value, problem = value_key(source, event)
    return value if problem is None else None


def already_run(run_id: str) -> str:
    """Why an event with the same value starts nothing."""
    return f"has the value of run {run_id}, which counts for 24 hours"
