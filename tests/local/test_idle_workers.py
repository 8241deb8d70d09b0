"""Which idle workers stay if there are too many, or if they use too much memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from stepwell.local.runners.idle import IdleWorkers, Place
from stepwell.local.system.memory import private_bytes, usable_memory

GB = 1024**3


class Pool:
    """Workers with an id and a handler, without processes. A use takes no time."""

    def __init__(self, most: int, most_bytes: int = GB, always: int = 1) -> None:
        self.now = 1e9  # seconds: a clock that has been running for years
        self.starts: list[str] = []
        self._idle = IdleWorkers[int](most, most_bytes, always)
        self._places: dict[int, Place] = {}
        self._ids = itertools.count()

    def take(self, handler: str) -> int:
        """A worker of this handler; a new one if none is idle."""
        worker = self._idle.find(handler)
        if worker is None:
            worker = next(self._ids)
            self._places[worker] = self._idle.open_place(handler)
            self.starts.append(handler)
        else:
            self._idle.remove(worker)
        return worker

    def give_back(self, worker: int, size: int = 0) -> None:
        self._places[worker].size = size
        self._idle.add(worker, self._places[worker], self.now)
        for surplus in self._idle.surplus(worker, self.now):
            self._idle.remove(surplus)
            self._idle.close_place(self._places.pop(surplus))

    def use(self, *handlers: str, size: int = 0, after_s: float = 0.01) -> None:
        for handler in handlers:
            self.now += after_s
            self.give_back(self.take(handler), size)

    @property
    def idle(self) -> list[str]:
        return sorted(str(place.key) for worker, place in self._places.items() if worker in self._idle)


def test_handlers_that_take_turns_keep_their_workers_as_far_as_there_is_room() -> None:
    pool = Pool(most=12)
    handlers = [f"h{n}" for n in range(13)]
    pool.use(*handlers)
    pool.starts.clear()
    for _ in range(100):
        pool.use(*handlers)
    assert len(pool.starts) < 150  # one in 13 has no room; if the oldest were stopped, all 1,300 uses would be starts


def test_the_most_used_worker_stays() -> None:
    pool = Pool(most=2)
    pool.use("often", "often", "often", "seldom", "newer", "newer", "newer", "newer")
    assert pool.idle == ["newer", "often"]


def test_old_uses_count_little() -> None:
    pool = Pool(most=2)
    pool.use(*["old", "older"] * 50)
    pool.now += 1200
    pool.use("old", *["new"] * 3)
    assert pool.idle == ["new", "old"]


def test_a_handler_that_is_used_more_often_keeps_a_worker() -> None:
    pool = Pool(most=2)
    pool.use(*["a", "b"] * 5)
    pool.use(*["c", "c", "a", "c", "b"] * 10)
    assert "c" in pool.idle


def test_of_one_handlers_workers_the_first_is_used_and_the_last_is_stopped() -> None:
    pool = Pool(most=3)
    first, second, third = (pool.take("h") for _ in range(3))
    for worker in (third, second, first):
        pool.give_back(worker)
    for _ in range(5):
        assert pool.take("h") == first
        assert pool.take("h") == second
        pool.give_back(second)
        pool.give_back(first)
    pool.use(*["other"] * 3)
    assert pool.idle == ["h", "h", "other"]
    assert (pool.take("h"), pool.take("h")) == (first, second)


def test_beyond_a_few_workers_may_have_only_so_much_memory_together() -> None:
    pool = Pool(most=100, most_bytes=GB, always=2)
    pool.use("a", "b", size=4 * GB)
    assert pool.idle == ["a", "b"]  # a worker that has loaded a large model stays
    pool.use("c")
    assert pool.idle == ["a", "b"]
    small = Pool(most=100, most_bytes=GB, always=2)
    small.use(*map(str, range(50)), size=GB // 25)
    assert len(small.idle) == 25


def test_uses_fade_correctly_over_days() -> None:
    pool = Pool(most=2)
    pool.use("a", "b")
    pool.use("a", "c", "c", after_s=30 * 86_400)
    assert pool.idle == ["a", "c"]


@pytest.mark.parametrize(
    ("cgroup", "file", "limit", "memory"),
    [
        ("0::/a\n", "a/memory.max", "1000000\n", 1_000_000),
        ("4:memory:/a\n", "memory/a/memory.limit_in_bytes", "2000000\n", 2_000_000),
        ("0::/a\n", "a/memory.max", "max\n", None),
        ("4:memory:/a\n", "memory/a/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_the_limits_of_control_groups_count(
    tmp_path: Path, cgroup: str, file: str, limit: str, memory: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    (tmp_path / "sys/fs/cgroup" / file).parent.mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup" / file).write_text(limit)
    whole = usable_memory(tmp_path / "nothing")
    assert usable_memory(tmp_path) == (memory or whole)
    assert whole > 100_000_000


def test_an_ended_process_has_no_memory() -> None:
    assert private_bytes(2**22 + 1) == 0
