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


def test_a_batch_is_over_once_it_has_done_so_many(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 10, LONG)
    pace.count(9)
    assert not pace.is_over
    assert not pace.is_enough(MUCH)
    pace.count(1)
    assert pace.is_over
    assert pace.is_enough(MUCH)


def test_a_batch_is_over_once_it_has_taken_so_long(store: LocalStore) -> None:
    assert BatchPace(store.unrouted, 10, 0.0).is_over
    assert not BatchPace(store.unrouted, 10, LONG).is_over


def test_a_little_that_is_left_is_done_all_the_same(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 0, LONG)
    assert [pace.is_enough(left) for left in (0, 2 * AT_ONCE, MUCH, math.inf)] == [False, False, True, True]


def test_a_piece_that_is_granted_is_done_whatever_the_batch_has_done(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 0, LONG)
    pace.grant()
    assert not pace.is_enough(math.inf)
    assert pace.is_enough(math.inf), "one piece was granted"


def test_what_is_left_makes_later_events_with_its_name_wait(store: LocalStore) -> None:
    pace = BatchPace(store.unrouted, 0, LONG)
    event = event_from({"name": "go", "id": "e", "ts": 0})
    store.events.put([NewEvent(event, (), (), ())], 0)
    assert not pace.must_wait("go")
    pace.leave([Route(event.at_position(1), ["f"])])
    assert (pace.must_wait("go"), pace.must_wait("other")) == (True, False)
    assert [route.event.id for route in store.unrouted.take(10)] == ["e"]
