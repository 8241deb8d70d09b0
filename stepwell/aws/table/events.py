"""An accepted event as an item of the table."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from stepwell.aws.table.keys import Item, event_key
from stepwell.core.routing.not_started import NotStarted, with_misses
from stepwell.core.run.invalid_events import MOST_SHOWN
from stepwell.core.run.stored_links import stored_body
from stepwell.platform import NewEvent

_LONGEST_MISSES = 64 * 1024  # bytes; an item has at most 400 KB


def event_item(new: NewEvent, position: int, ttl: int) -> Item:
    """What is kept of an event: m is the message that brought it, o its origin, st what it starts, ms what it does not
    start, rp its replay, iv what its type has against it."""
    item: Item = {
        **event_key(new.event.id),
        "b": {"B": stored_body(new.event)},
        "p": {"N": str(position)},
        "ttl": {"N": str(ttl)},
    }
    if new.cause is not None:
        item["m"] = {"S": new.cause.id}
    if new.event.origin:
        item["o"] = {"S": new.event.origin}
    if new.starts:
        item["st"] = {"L": [{"S": function} for function in new.starts]}
    if new.not_started:
        item["ms"] = {"B": misses_text(None, new.not_started)}
    if new.replay is not None:
        item["rp"] = {"S": new.replay}
    if new.event.invalid:
        item["iv"] = {"B": orjson.dumps(new.event.invalid[:MOST_SHOWN])}
    return item


def misses_text(kept: bytes | None, misses: Iterable[NotStarted]) -> bytes:
    """Those that are kept, and further ones: as many as have room in an item that holds the largest event and the names
    of a thousand functions."""
    room, fitting = _LONGEST_MISSES, []
    for miss in with_misses(kept, misses):
        room -= len(written := orjson.dumps(miss)) + 1
        if room < 0:
            break
        fitting.append(orjson.Fragment(written))
    return orjson.dumps(fitting)
