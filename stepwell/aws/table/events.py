"""Converts an accepted event into an item of the table."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from stepwell.aws.table.keys import Item, event_key
from stepwell.core.routing.not_started import NotStarted, with_misses
from stepwell.core.run.invalid_events import MOST_SHOWN
from stepwell.core.run.stored_links import stored_body
from stepwell.platform import NewEvent

_LONGEST_NOT_STARTED = 64 * 1024  # bytes; DynamoDB allows 400 KB for an item


def event_item(new: NewEvent, position: int, ttl: int) -> Item:
    """The item of an event.

    - `b`: the event as JSON
    - `p`: the position
    - `m`: the id of the message that brought the event
    - `o`: the origin
    - `st`: the functions that it starts
    - `ms`: the functions that it does not start, and why
    - `rp`: the replay that sent it
    - `iv`: the violations of the schema
    """
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
        item["ms"] = {"B": not_started_json(None, new.not_started)}
    if new.replay is not None:
        item["rp"] = {"S": new.replay}
    if new.event.invalid:
        item["iv"] = {"B": orjson.dumps(new.event.invalid[:MOST_SHOWN])}
    return item


def not_started_json(stored: bytes | None, misses: Iterable[NotStarted]) -> bytes:
    """The stored reasons and the given ones as JSON.

    Reasons beyond 64 KB are left out, so that the item has room for the largest event and the names of a thousand
    functions.
    """
    room, fitting = _LONGEST_NOT_STARTED, []
    for miss in with_misses(stored, misses):
        room -= len(written := orjson.dumps(miss)) + 1
        if room < 0:
            break
        fitting.append(orjson.Fragment(written))
    return orjson.dumps(fitting)
