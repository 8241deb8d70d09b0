"""Admission: starts wait for limits in memory. Never too many, never forever, and each key by itself."""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.core.plan import Limit
from stepwell.core.run.permits import Permit
from stepwell.local.engine.admission import Admission
from stepwell.local.engine.buckets import Item, Lane, Waiter
from stepwell.local.store.limit_rows import ThrottleState
from stepwell.platform import AttemptId

A, B = Limit("f/concurrency", 2), Limit("groups/api/concurrency", 1)
PACE = Limit("f/steps/a/throttle", 3, period_ms=1000)


class Rows:
    """Rows that survive a restart: those of throttles. The others are only counted."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, bytes], ThrottleState] = {}
        self.waiting: dict[AttemptId, int] = {}
        self.lanes: dict[int, str] = {}

    def throttle(self, key: tuple[str, bytes]) -> ThrottleState:
        return self.stored.get(key, ThrottleState())

    def set_throttle(self, key: tuple[str, bytes], state: ThrottleState) -> None:
        self.stored[key] = state

    def waits(self, waiter: Waiter) -> None:
        self.waiting[waiter.item.id] = waiter.lane.number

    def waits_no_more(self, waiter: Waiter) -> None:
        del self.waiting[waiter.item.id]

    def moved(self, lane: Lane) -> None:
        if lane.bucket is None:
            self.lanes.pop(lane.number, None)
        else:
            self.lanes[lane.number] = lane.bucket.permit.limit.id


class Scene:
    """An admission with a clock, and the starts that it has admitted and that have not ended."""

    def __init__(self) -> None:
        self.now, self.rows = 1_000_000, Rows()
        self.values: dict[str, Limit] = {}
        self.running: dict[AttemptId, Item] = {}
        self.started: list[tuple[int, Item]] = []
        self.queued: dict[AttemptId, Item] = {}
        self.restart()

    def restart(self) -> None:
        """As after a crash: attempts that ran are lost, and queued again under the next number."""
        self.rows.waiting.clear()
        self.rows.lanes.clear()
        lost, self.running = list(self.running.values()), {}
        self.it = Admission(self.rows, lambda limit: self.values.get(limit.id, limit), lambda: self.now)
        for item in [*self.queued.values(), *lost]:
            self.queued[item.id] = item
            self.it.request(item)
        self.it.open()

    def request(self, name: str, *permits: Permit, rank: int = 0) -> AttemptId:
        item_id = (name, 0, 1)
        item = Item(item_id, permits, rank, len(self.queued), lambda: self._start(item_id))
        self.queued[item_id] = item
        self.it.request(item)
        return item_id

    def _start(self, item_id: AttemptId) -> None:
        self.running[item_id] = self.queued.pop(item_id)
        self.started.append((self.now, self.running[item_id]))

    def end(self, item_id: AttemptId) -> None:
        del self.running[item_id]
        self.it.release(item_id)

    def travel(self, ms: int) -> None:
        """Moves the clock forward, to each due time on the way."""
        target = self.now + ms
        while (due := self.it.next_due) is not None and due <= target:
            self.now = max(self.now, due)
            self.it.admit_due()
        self.now = target

    def check(self) -> None:
        held = Counter(
            (p.limit.id, p.key) for item in self.running.values() for p in set(item.permits) if not p.limit.period_ms
        )
        for (limit_id, _), count in held.items():
            most = {A.id: A, B.id: B}[limit_id]
            assert count <= (self.values.get(limit_id, most).limit or 0), limit_id
        assert set(self.rows.waiting) == set(self.queued)
        assert set(self.rows.waiting.values()) == set(self.rows.lanes)


def names(started: list[tuple[int, Item]]) -> list[str]:
    return [item.id[0] for _, item in started]


def permit(limit: Limit, key: str = "") -> Permit:
    return Permit(limit, key.encode())


# --- one by one ------------------------------------------------------------------------------------------------------


def test_the_lowest_rank_comes_first_then_the_earliest() -> None:
    scene = Scene()
    first = scene.request("first", permit(B))
    for name, rank in (("late", 5), ("early", 1), ("also early", 1)):
        scene.request(name, permit(B), rank=rank)
    for item_id in (first, ("early", 0, 1), ("also early", 0, 1)):
        scene.end(item_id)
    assert names(scene.started) == ["first", "early", "also early", "late"]


def test_a_start_that_is_requested_twice_counts_once() -> None:
    scene = Scene()
    first = scene.request("first", permit(B))
    scene.it.request(scene.running[first])
    waiting = scene.request("waiting", permit(B))
    scene.it.request(scene.queued[waiting])
    scene.end(first)
    scene.end(waiting)
    assert names(scene.started) == ["first", "waiting"]


def test_what_waits_for_a_second_limit_holds_nothing_of_the_first() -> None:
    scene = Scene()
    busy = scene.request("busy", permit(B))
    scene.request("both", permit(A), permit(B))
    for name in ("one", "two"):
        scene.request(name, permit(A))
    assert names(scene.started) == ["busy", "one", "two"]
    scene.end(busy)
    scene.end(("one", 0, 1))
    assert names(scene.started)[3:] == ["both"]


def test_a_start_with_two_limits_does_not_starve_behind_those_with_one() -> None:
    """Neither limit is ever free at the same time as the other, unless one of them is kept."""
    scene = Scene()
    one = Limit("f/concurrency/one", 1)
    alternately = deque([scene.request("x0", permit(one)), scene.request("y0", permit(B))])
    scene.request("both", permit(one), permit(B))
    for n in range(1, 50):
        scene.request(f"x{n}", permit(one))
        scene.request(f"y{n}", permit(B))
    for _ in range(24):
        ended = alternately.popleft()
        scene.end(ended)
        alternately += [item_id for item_id in scene.running if item_id not in alternately]
        if "both" in names(scene.started):
            return
    raise AssertionError("it did not start")


def test_a_withdrawn_start_gives_back_what_its_lane_has_kept() -> None:
    scene = Scene()
    one = Limit("f/concurrency/one", 1)
    x, y = scene.request("x0", permit(one)), scene.request("y0", permit(B))
    both = scene.request("both", permit(one), permit(B))
    for n in range(1, 8):
        scene.request(f"x{n}", permit(one))
        scene.request(f"y{n}", permit(B))
    for n in range(1, 4):
        scene.end(x)
        scene.end(y)
        x, y = (f"x{n}", 0, 1), (f"y{n}", 0, 1)
        if x not in scene.running or y not in scene.running:
            break
    scene.it.withdraw(both)
    del scene.queued[both]
    for _ in range(8):
        for item_id in list(scene.running):
            scene.end(item_id)
    assert not scene.queued


def test_lanes_take_turns_however_much_one_of_them_has_queued() -> None:
    scene = Scene()
    first = scene.request("first", permit(B))
    for n in range(1000):
        scene.request(f"many{n}", permit(A, "many"), permit(B))
    scene.request("single", permit(A, "single"), permit(B))
    scene.end(first)
    scene.end(("many0", 0, 1))
    assert "single" in names(scene.started)


def test_a_larger_limit_applies_to_what_waits() -> None:
    scene = Scene()
    for n in range(4):
        scene.request(str(n), permit(B))
    scene.values[B.id] = Limit(B.id, 3)
    scene.it.look_again()
    assert names(scene.started) == ["0", "1", "2"]


def test_a_faster_throttle_applies_to_what_waits() -> None:
    scene = Scene()
    slow = Limit("f/throttle", 1, period_ms=1_000_000)
    scene.request("0", permit(slow))
    scene.request("1", permit(slow))
    scene.values[slow.id] = Limit(slow.id, 1, period_ms=1_000_000, burst=1)
    scene.it.look_again()
    assert names(scene.started) == ["0", "1"]


def test_nothing_is_admitted_until_all_holders_are_known() -> None:
    scene = Scene()
    scene.it = Admission(scene.rows, lambda limit: limit, lambda: scene.now)
    scene.request("new", permit(B))
    scene.it.hold(Item(("old", 0, 1), [permit(B)], 0, 0, lambda: None))
    scene.it.open()
    assert not scene.started
    scene.it.release(("old", 0, 1))
    assert names(scene.started) == ["new"]


def test_a_throttle_admits_nothing_until_all_holders_are_known_and_is_not_due() -> None:
    scene = Scene()
    scene.it = Admission(scene.rows, lambda limit: limit, lambda: scene.now)
    for name in ("first", "second"):
        scene.request(name, permit(PACE))
    scene.it.admit_due()
    assert (scene.it.next_due, names(scene.started)) == (None, [])
    scene.it.open()
    assert names(scene.started) == ["first"]
    assert scene.it.next_due is not None


def test_holders_that_run_on_are_kept_by_a_reset() -> None:
    scene = Scene()
    running = scene.request("running", permit(B))
    scene.request("forgotten", permit(A))
    scene.it.reset({running})
    scene.request("next", permit(B))
    scene.it.open()
    assert names(scene.started) == ["running", "forgotten"]
    scene.it.release(running)
    assert names(scene.started)[2:] == ["next"]
    assert len(list(scene.it.buckets)) == 1


@pytest.mark.parametrize("ends", ["release", "withdraw"])
def test_buckets_that_are_not_used_are_forgotten(ends: str) -> None:
    scene = Scene()
    first = scene.request("first", permit(B, "k"), permit(A, "k"))
    second = scene.request("second", permit(B, "k"), permit(A, "k"))
    if ends == "withdraw":
        scene.it.withdraw(second)
        scene.end(first)
    else:
        scene.end(first)
        scene.end(second)
    assert not list(scene.it.buckets)


# --- at random -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_limits_are_never_exceeded_and_every_start_is_admitted_in_the_end(seed: int) -> None:
    numbers, scene = random.Random(seed), Scene()
    choices = [
        [permit(A, "x")], [permit(A, "y")], [permit(A, "x"), permit(B)], [permit(A, "y"), permit(B), permit(PACE)],
        [permit(PACE)], [permit(B)],
    ]  # fmt: skip
    for n in range(120):
        action = numbers.choice(
            ("request", "request", "request", "end", "end", "travel", "withdraw", "restart", "change")
        )
        if action == "request":
            scene.request(str(n), *numbers.choice(choices), rank=numbers.randrange(5))
        elif action == "end" and scene.running:
            scene.end(numbers.choice(list(scene.running)))
        elif action == "travel":
            scene.travel(numbers.randrange(900))
        elif action == "withdraw" and scene.queued and numbers.random() < 0.3:
            gone = numbers.choice(list(scene.queued))
            scene.it.withdraw(gone)
            del scene.queued[gone]
        elif action == "restart" and numbers.random() < 0.2:
            scene.restart()
        elif action == "change" and not scene.running:
            scene.values[A.id] = Limit(A.id, numbers.randrange(1, 4))
            scene.it.look_again()
        scene.check()
    while scene.queued or scene.running:
        before = len(scene.queued) + len(scene.running)
        for item_id in list(scene.running):
            scene.end(item_id)
        scene.travel(400)
        scene.check()
        assert len(scene.queued) + len(scene.running) < before or scene.it.next_due is not None
    check_spread(scene.started)
    assert not scene.rows.lanes


def check_spread(started: list[tuple[int, Item]]) -> None:
    """Starts of a throttle are as far apart as it demands; times are whole milliseconds."""
    times = defaultdict(list)
    for time, item in started:
        for p in item.permits:
            if p.limit.period_ms:
                times[p.key].append(time)
    for of_key in times.values():
        for i in range(len(of_key) - PACE.limit):  # type: ignore[operator]
            assert of_key[i + 3] - of_key[i] >= PACE.period_ms - 3
