"""Rows of unrouted events: names take turns, and no part of an event is forgotten or done twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import Event, erased_body, event_from
from stepwell.local.store.store import LocalStore
from stepwell.local.store.unrouted import Unrouted
from stepwell.platform import NewEvent, OpenedWait, Route

NOW = 1_780_000_000_000
WAIT = {"event": "paid", "ttl": "1h", "match": "async.data.n == event.data.n"}
CODE = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.f"}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    """A store, within a batch."""
    store = LocalStore(tmp_path / "db")
    steps = {"a": {**CODE, "after": [{"step": "$trigger", "async": WAIT}]}}
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": steps}
    store.batch(NOW)
    store.functions.register(parse_definition(raw).normalised(), {}, {}, "f.json", NOW)
    yield store
    store.close()


def accept(store: LocalStore, *names: str, **data: Any) -> list[Event]:
    """Accepts events with these names; returns them by position."""
    found = []
    for name in names:
        number = store.events.newest + 1
        event = event_from({"name": name, "id": f"e{number}", "ts": NOW, "data": data})
        store.events.put([NewEvent(event, (), (), ())], NOW)
        found.append(event.at_position(number))
    return found


def leave(store: LocalStore, *events: Event, **fields: Any) -> None:
    store.unrouted.leave(Route(event, **{"starts": ["f"], **fields}) for event in events)


def taken(store: LocalStore, most: int = 10) -> list[str]:
    return [route.event.id for route in store.unrouted.take(most)]


def test_unrouted_events_are_taken_once(store: LocalStore) -> None:
    assert not store.unrouted
    leave(store, *accept(store, "go", "go"))
    assert store.unrouted
    assert ("go" in store.unrouted, "other" in store.unrouted) == (True, False)
    assert taken(store) == ["e1", "e2"]
    assert not store.unrouted
    assert (taken(store), "go" in store.unrouted) == ([], False)
    assert store.connection.execute("SELECT count(*) FROM unrouted").fetchone() == (0,)


def test_names_take_turns_and_events_of_one_come_in_their_order(store: LocalStore) -> None:
    events = accept(store, "a", "b", "a", "c", "a", "b")
    leave(store, *reversed(events))
    turns = []
    while store.unrouted:
        turns += taken(store, 1)
    by_name = {event.id: event.name for event in events}
    assert turns == ["e2", "e1", "e4", "e6", "e3", "e5"]
    assert [by_name[event_id] for event_id in turns] == ["b", "a", "c", "b", "a", "a"]


def test_routes_are_returned_as_they_were_left(store: LocalStore) -> None:
    starting, waking = accept(store, "go", "paid", n=7)
    place = (b"key", 3, 1)
    leave(store, starting, starts=["f", "g"])
    leave(store, waking, starts=(), is_awaited=True, behind=place)
    (start,), (wake,) = store.unrouted.take(10), store.unrouted.take(10)
    assert (start.event, list(start.starts), start.is_awaited, start.behind) == (starting, ["f", "g"], False, None)
    assert (list(start.keys), start.cause, start.is_first) == ([], None, True)
    assert (wake.event, list(wake.starts), wake.is_awaited, wake.behind) == (waking, [], True, place)
    assert list(wake.keys) == store.catalog().keys(waking) != []


def test_waits_found_but_not_woken_are_searched_again(store: LocalStore) -> None:
    (event,) = accept(store, "paid", n=7)
    leave(store, event, starts=(), found=deque([OpenedWait("r", 0, NOW)]))
    (route,) = store.unrouted.take(10)
    assert route.is_awaited
    assert not route.found


def test_an_event_that_is_left_again_has_a_shorter_route(store: LocalStore) -> None:
    (event,) = accept(store, "go")
    leave(store, event, starts=["f", "g"])
    leave(store, event, starts=["g"])
    (route,) = store.unrouted.take(10)
    assert list(route.starts) == ["g"]


def test_an_erased_event_has_no_route(store: LocalStore) -> None:
    one, two = accept(store, "go", "go")
    leave(store, one, two)
    store.connection.execute("UPDATE events SET body = ? WHERE id = 'e1'", (erased_body(one),))
    assert taken(store) == ["e2"]


def test_after_a_restart_all_unrouted_events_are_found(store: LocalStore) -> None:
    leave(store, *accept(store, "c", "a", "b", "a"))
    again = Unrouted(store.connection, store.catalog)
    assert [name in again for name in ("a", "b", "c", "d")] == [True, True, True, False]
    assert [[route.event.id for route in again.take(10)] for _ in range(4)] == [["e2", "e4"], ["e3"], ["e1"], []]


def test_after_a_rollback_unrouted_events_are_read_from_the_file(store: LocalStore) -> None:
    leave(store, *accept(store, "kept"))
    store.connection.execute("COMMIT")
    batch = store.batch(NOW)
    assert taken(store) == ["e1"]
    leave(store, *accept(store, "lost"))
    batch.rollback()
    store.batch(NOW)
    assert ("kept" in store.unrouted, "lost" in store.unrouted) == (True, False)
    assert taken(store) == ["e1"]
