"""The keys of limits: runs with equal values of a limit's `key` share one limit.

Unlike the values of `idempotency`, a key may be a list or an object, such as `[data.region, data.customer]`.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import orjson

from stepwell.core.cel.equality import canonical_json
from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.events.events import Event

WHOLE = b""  # the key of a limit without `key`: all runs of the function share it
_DEEPEST = 8  # levels of lists and objects in a key
_SMALL = 4096  # bytes of an event whose keys are kept for a while


class Key(NamedTuple):
    """The key of a limit. `text` is the value as JSON, for people; empty if the limit has no `key`.

    `problem` is set if the expression has no value. Then the key belongs to one run alone, so that strangers never
    share a limit.
    """

    digest: bytes
    text: str = ""
    problem: str | None = None


NO_KEY = Key(WHOLE)


def limit_key(source: str | None, event: Event, run_id: str | None = None) -> tuple[bytes, str | None]:
    """The key of a limit for an event: a digest of the expression's value, and None.

    If the expression has no value, the second part is the reason, to show as a problem of the run. `run_id`: the run
    that the key belongs to then; None: the run that the event starts.
    """
    if source is None:
        return WHOLE, None
    found = key_of_event(source, event, run_id or event.id)
    return found.digest, found.problem


def key_of_event(source: str, event: Event, run_id: str) -> Key:
    """The key that an expression over an event gives. `run_id`: the run that the key belongs to if there is no value.

    A run needs it when it is made, and again when its first step is queued, mostly soon after. So the keys of the last
    events are kept.
    """
    if len(event.body) > _SMALL:
        return _owned(_key(source, Scope.TRIGGER, Bindings(event=event.as_json())), run_id)
    return _owned(_recent_key(source, event.body), run_id)


def key_of(source: str, scope: Scope, bindings: Bindings, run_id: str) -> Key:
    """The key that an expression gives. `run_id`: the run that the key belongs to if there is no value."""
    return _owned(_key(source, scope, bindings), run_id)


@lru_cache(maxsize=2048)
def _recent_key(source: str, body: bytes) -> Key:
    return _key(source, Scope.TRIGGER, Bindings(event=Event.stored(0, body).as_json()))


def _key(source: str, scope: Scope, bindings: Bindings) -> Key:
    """The key, without a digest if there is no value."""
    found = compile_value(source, scope).value(bindings)
    if found.problem is not None:
        return Key(WHOLE, problem=found.problem)
    try:
        digest = _digest("value", canonical_json(found.value, _DEEPEST))
    except ValueError:
        return Key(WHOLE, problem=f"the value has more than {_DEEPEST} levels of lists and objects")
    return Key(digest, orjson.dumps(found.value).decode())


def _owned(key: Key, run_id: str) -> Key:
    return key if key.problem is None else key._replace(digest=_digest("own", run_id))


def claimed_key(source: str | None, event: Event) -> bytes | None:
    """The digest of a value that a run of this event may have claimed. None if there is no value."""
    if source is None:
        return None
    key, problem = limit_key(source, event)
    return key if problem is None else None


def _digest(kind: str, content: object) -> bytes:
    return hashlib.blake2b(orjson.dumps([kind, content]), digest_size=16).digest()
