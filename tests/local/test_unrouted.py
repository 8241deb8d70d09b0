"""Events that start and wake more than a batch may: later batches continue, also after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.events.events import Event, erased_body
from stepwell.core.routing.versions import paused, resumed
from stepwell.core.run.run import RunStatus
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.retention import clean
from stepwell.local.store.batch import LocalBatch
from tests.local.scripted import Scripted, scripted, until

Test = Callable[[Scripted], Coroutine[None, None, None]]
WAITING: dict[str, Any] = {"after": [{"step": "$trigger", "async": {"event": "wake", "ttl": "1d"}}]}
BY_ORDER: dict[str, Any] = {
    "after": [
        {
            "step": "$trigger",
            "async": {"event": "wake", "match": "async.data.order == event.data.order", "ttl": "1d"},
        }
    ]
}
COMPLETED = f"runs WHERE status = {int(RunStatus.COMPLETED)}"


def on_platform(folder: Path, test: Test, **options: Any) -> None:
    folder.mkdir(exist_ok=True)

    async def main() -> None:
        async with scripted(folder, **{"batch_facts": 100, **options}) as it:
            await test(it)

    asyncio.run(main())


class Batches:
    """The amount of work in each batch of a platform, recorded at the commit."""

    def __init__(self, it: Scripted) -> None:
        self.runs: list[int] = []
        store, runs = it.platform.store, self.runs

        class Counted(LocalBatch):
            def flush(self) -> None:
                super().flush()
                runs.append(it.count("runs"))

        store.batch = lambda now: Counted(store, now)  # type: ignore[method-assign]


def crash(it: Scripted, folder: Path) -> Path:
    """The files that a process would leave if it died now."""
    assert not it.platform.store.connection.in_transaction
    folder.mkdir()
    for file in it.platform.store.path.parent.glob("db*"):
        shutil.copy(file, folder / file.name)
    return folder


def test_a_request_is_answered_before_all_of_its_runs_have_started(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.platform.send(it.events(400))
        assert it.count("events WHERE name = 'go'") == 400
        assert 0 < it.count("runs") < 400
        await until(lambda: it.count("runs") == 400)

    on_platform(tmp_path, test, hold=True)


def test_no_batch_starts_more_runs_than_it_may(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        batches = Batches(it)
        await asyncio.gather(*(it.platform.send(it.events(400)) for _ in range(3)))
        await it.platform.until_idle()
        assert it.count(COMPLETED) == 1200
        assert it.count("unrouted") == 0
        started = [after - before for before, after in zip([0, *batches.runs], batches.runs, strict=False)]
        assert max(started) <= 250

    on_platform(tmp_path, test, parallelism=50)


def test_an_event_that_starts_many_functions_does_so_in_several_batches(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        for n in range(300):
            await it.deploy(f"f{n}")
        batches = Batches(it)
        await it.send()
        await it.platform.until_idle()
        assert it.count(COMPLETED) == it.count("runs") == 300
        assert len(set(batches.runs)) > 1

    on_platform(tmp_path, test, parallelism=50)


def test_an_event_that_wakes_many_runs_does_so_in_several_batches(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a=WAITING)
        await it.platform.send(it.events(400))
        await it.platform.until_idle()
        await it.send("wake")
        assert 0 < it.count("waits") < 400
        await it.platform.until_idle()
        assert it.count("waits") == it.count("unrouted") == 0
        assert it.count(COMPLETED) == 400

    on_platform(tmp_path, test, parallelism=50)


def test_waits_of_all_keys_are_woken_once_and_no_others(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy("named", a=WAITING)
        await it.deploy("keyed", a=BY_ORDER)
        for order in (1, 2):
            await it.platform.send(it.events(300, data={"order": order}))
        await it.platform.until_idle()
        await it.send("wake", data={"order": 1})
        await it.platform.until_idle()
        assert it.count(f"{COMPLETED} AND function = 'named'") == 600
        assert it.count(f"{COMPLETED} AND function = 'keyed'") == 300
        assert it.count("attempts") == 900
        assert it.count("waits") == 300

    on_platform(tmp_path, test, parallelism=50)


def test_of_two_events_the_first_wakes_a_run_even_in_a_later_batch(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a=WAITING)
        await it.platform.send(it.events(600))
        await it.platform.until_idle()
        first, second = await it.send("wake"), await it.send("wake")
        await it.platform.until_idle()
        pauses = [run.run.pauses[0] for run in it.runs()]
        assert {pause.event_id for pause in pauses} == {first}
        assert second != first

    on_platform(tmp_path, test, parallelism=50)


def test_events_with_one_name_start_runs_in_their_order(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        for _ in range(5):
            await it.platform.send(it.events(400))
            await it.send()
        await until(lambda: it.count("runs") == 2005)
        events = it.platform.store.connection.execute("SELECT event FROM runs ORDER BY seq")
        numbers = [event for (event,) in events]
        assert numbers == sorted(numbers)

    on_platform(tmp_path, test, hold=True)


def test_the_first_event_with_an_idempotency_value_counts_even_in_a_later_batch(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(idempotency="event.data.order")
        await it.platform.send([*it.events(399, data={"order": 1}), *it.events(1, data={"order": 2})])
        (last,) = it.platform.store.connection.execute("SELECT id FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        later = await it.send(data={"order": 2})
        await it.platform.until_idle()
        assert [run.run.status for run in it.runs(last)] == [RunStatus.COMPLETED]
        assert it.runs(later) == []

    on_platform(tmp_path, test)


def test_an_event_with_another_name_need_not_wait(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.deploy("other", on="small")
        await it.platform.send(it.events(400))
        await it.send("small")
        assert it.count("runs WHERE function = 'other'") == 1
        assert it.count("runs") < 401

    on_platform(tmp_path, test, hold=True)


def test_runs_that_have_begun_end_while_others_are_still_to_start(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        steps = {"b": {"after": [{"step": "a"}]}, "c": {"after": [{"step": "b"}]}}
        await it.deploy(a={}, **steps)
        await it.platform.send(it.events(400))
        await until(lambda: it.count(COMPLETED) > 0)
        assert it.count("runs") < 400
        await it.platform.until_idle()
        assert it.count(COMPLETED) == 400

    on_platform(tmp_path, test)


def test_runs_end_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={"after": [{"step": "a"}]}, c={"after": [{"step": "b"}]})
        await it.platform.send(it.events(100))
        for _ in range(6):
            await until(lambda: len(it.runner.held) == 2)  # two slots
            it.runner.release()
        assert [step for _, step in it.runner.started[:12]] == ["a", "a", "b", "b", "c", "c"] * 2

    on_platform(tmp_path, test, hold=True, parallelism=2)


def test_a_crash_between_batches_loses_and_duplicates_no_run(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await it.deploy("f")
        await it.deploy("g")
        await it.platform.send(it.events(400))
        assert it.count("unrouted") > 0
        crash(it, tmp_path / "crashed")

    async def after(it: Scripted) -> None:
        await it.platform.until_idle()
        assert it.count(COMPLETED) == it.count("runs") == 800
        sql = "SELECT count(DISTINCT function || event) FROM runs"
        assert it.platform.store.connection.execute(sql).fetchone() == (800,)
        assert it.count("unrouted") == 0

    on_platform(tmp_path / "before", before, hold=True)
    on_platform(tmp_path / "crashed", after, parallelism=50)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_crash_between_batches_loses_no_wake_up(tmp_path: Path, batches: int) -> None:
    async def before(it: Scripted) -> None:
        await it.deploy(a=WAITING)
        await it.platform.send(it.events(1000))
        await until(lambda: it.count("waits") == 1000)
        await it.send("wake")
        for _ in range(batches - 1):
            left = it.count("waits")
            await until(lambda left=left: it.count("waits") < left)  # type: ignore[misc]
        while it.platform.store.connection.in_transaction:
            await asyncio.sleep(0)
        assert 0 < it.count("waits") < 1000
        crash(it, tmp_path / "crashed")

    async def after(it: Scripted) -> None:
        await it.platform.until_idle()
        assert it.count("waits") == it.count("unrouted") == 0
        assert it.count(COMPLETED) == 1000
        assert it.count("attempts WHERE status = 'completed'") == 1000

    on_platform(tmp_path / "before", before, hold=True)
    on_platform(tmp_path / "crashed", after, parallelism=50)


def left_behind(tmp_path: Path, count: int = 400) -> Path:
    """The database of a process that died before events had started all of their runs."""

    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.platform.send(it.events(count))
        crash(it, tmp_path / "crashed")

    on_platform(tmp_path / "before", test, hold=True)
    return tmp_path / "crashed"


def test_an_erased_event_starts_no_more_runs(tmp_path: Path) -> None:
    folder = left_behind(tmp_path)
    with contextlib.closing(sqlite3.connect(folder / "db")) as connection, connection:
        started = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        for seq, body in connection.execute("SELECT seq, body FROM events").fetchall():
            erased = erased_body(Event.stored(seq, body))
            connection.execute("UPDATE events SET body = ? WHERE seq = ?", (erased, seq))

    async def test(it: Scripted) -> None:
        await it.platform.until_idle()
        assert it.count("runs") == started < 400
        assert it.count("unrouted") == 0

    on_platform(folder, test)


def test_an_old_unrouted_event_is_not_deleted(tmp_path: Path) -> None:
    folder = left_behind(tmp_path, 1000)
    with contextlib.closing(sqlite3.connect(folder / "db")) as connection, connection:
        connection.execute("UPDATE events SET accepted_at = 1")

    async def test(it: Scripted) -> None:
        await clean(it.platform, 1.0)
        await until(lambda: it.count("unrouted") == 0)
        assert it.count("runs") == 1000

    on_platform(folder, test, batch_facts=1, hold=True)


def test_a_batch_that_cannot_be_written_keeps_unrouted_events(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.platform.send(it.events(400))
        it.platform.store.connection.execute("PRAGMA query_only = 1")
        with pytest.raises(Unavailable):
            await it.send()
        it.platform.store.connection.execute("PRAGMA query_only = 0")
        await until(lambda: it.count("runs") == 400)
        it.runner.hold = False
        it.runner.release()
        await it.platform.until_idle()
        assert it.count(COMPLETED) == 400

    on_platform(tmp_path, test, hold=True)


def test_unrouted_events_of_a_paused_function_are_held(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.platform.send(it.events(400))
        started = it.count("runs")
        await it.platform.registration.change_routing("f", lambda routing, versions, now: paused(routing, drop=False))
        await until(lambda: it.count("unrouted") == 0)
        assert started <= it.count("runs") < 400
        assert it.count("runs") + it.count("kept") == 400
        await it.platform.registration.change_routing("f", lambda routing, versions, now: resumed(routing))
        await it.platform.until_idle()
        assert it.count(COMPLETED) == 400

    on_platform(tmp_path, test)
