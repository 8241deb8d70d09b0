"""`idempotency`: events with an equal value of an expression start one run of a function in 24 hours.

Two values are equal if CEL treats them as equal. The value must be a JSON scalar.
"""

from __future__ import annotations

import hashlib

import orjson

from stepwell.core.cel.equality import canonical, is_scalar
from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.events.events import Event

WINDOW_MS = 86_400_000


def value_key(source: str, event: Event) -> tuple[bytes, str | None]:
    """A digest of the expression's value for an event, or the reason why there is none."""
    found = compile_value(source, Scope.TRIGGER).value(Bindings(event=event.as_json()))
    if found.problem is not None:
        return b"", found.problem
    if not is_scalar(found.value):
        kind = "a list" if isinstance(found.value, list) else "an object"
        return b"", f"the value is {kind}, not a text, a number, true, false or null"
    return hashlib.blake2b(orjson.dumps(canonical(found.value)), digest_size=16).digest(), None


def claimed_value(source: str | None, event: Event) -> bytes | None:
    """The digest that a run of this event may have claimed; None if the expression has no value."""
    if source is None:
        return None
    value, problem = value_key(source, event)
    return value if problem is None else None


def already_run(run_id: str) -> str:
    """The reason why an event with an equal value does not start a run."""
    return f"run {run_id} has the same value, and was started in the last 24 hours"
