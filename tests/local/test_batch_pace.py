"""When a batch ends: after so many facts or so many seconds, but not before the pieces that are granted to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.core.events.events import event_from
from stepwell.local.engine.batch_limit import AT_ONCE, BatchPace
from stepwell.local.store.store import LocalStore
from stepwell.platform import NewEvent, Route

LONG = 1_000.0  # seconds
MUCH = 2 * AT_ONCE + 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "db")
    store.batch(0)
    yield store
    store.close()


def test_a_batch_ends_after_a_number_of_facts(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 10, LONG)
    pace.count(9)
    assert not pace.is_over
    assert not pace.is_enough(MUCH)
    pace.count(1)
    assert pace.is_over
    assert pace.is_enough(MUCH)


def test_a_batch_ends_after_a_time(store: LocalStore) -> None:
    assert BatchPace(store.unrouted, 10, 0.0).is_over
    assert not BatchPace(store.unrouted, 10, LONG).is_over


def test_a_small_rest_is_done_in_the_same_batch(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 0, LONG)
    assert [pace.is_enough(left) for left in (0, 2 * AT_ONCE, MUCH, math.inf)] == [False, False, True, True]


def test_a_granted_piece_is_always_done(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 0, LONG)
    pace.grant()
    assert not pace.is_enough(math.inf)
    assert pace.is_enough(math.inf), "one piece was granted"


def test_an_unrouted_event_makes_later_events_of_its_name_wait(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 0, LONG)
    event = event_from({"name": "go", "id": "e", "ts": 0})
    store.events.put([NewEvent(event, (), (), ())], 0)
    assert not pace.must_wait("go")
    pace.leave([Route(event.at_position(1), ["f"])])
    assert (pace.must_wait("go"), pace.must_wait("other")) == (True, False)
    assert [route.event.id for route in store.unrouted.take(10)] == ["e"]
