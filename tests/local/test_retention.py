"""Old data is deleted, and needed data stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from stepwell.core.routing.versions import Canary, Routing, paused, resumed
from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.run import RunStatus
from stepwell.local.code.in_use import code_in_use
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.retention import clean, rest
from tests.local.scripted import Scripted, scripted, until

DAY_MS = 86_400_000
Test = Callable[[Scripted], Coroutine[None, None, None]]
WAIT = {"after": [{"step": "$trigger", "async": {"event": "more", "ttl": "300d"}}]}


def on_platform(folder: Path, test: Test, clock: Clock | None = None) -> None:
    async def main() -> None:
        async with scripted(folder, clock=clock) as it:
            await test(it)

    asyncio.run(main())


def rows(it: Scripted) -> dict[str, int]:
    return {table: it.count(table) for table in ("events", "event_keys", "runs", "attempts", "logs", "timers", "waits")}


def test_old_ended_runs_and_their_events_are_deleted_with_all_their_rows(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        for _ in range(3):
            await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(31 * DAY_MS)
        new = await it.send()
        await it.platform.until_idle()
        await clean(it.platform, 30)
        assert [run.event_id for run in it.runs()] == [new]
        assert rows(it) == {"events": 2, "event_keys": 0, "runs": 1, "attempts": 1, "logs": 0, "timers": 0, "waits": 0}

    on_platform(tmp_path, test)


def test_young_rows_stay(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        await it.platform.until_idle()
        before = rows(it)
        it.platform.clock.advance(30 * DAY_MS - 60_000)
        await clean(it.platform, 30)
        assert rows(it) == before

    on_platform(tmp_path, test)


def test_more_rows_than_one_piece_are_deleted(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.platform.send(it.events(700))
        await it.platform.send(it.events(700, "nothing"))
        await it.platform.until_idle()
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert (it.count("events"), it.count("runs"), it.count("attempts")) == (0, 0, 0)

    on_platform(tmp_path, test)


def test_values_of_idempotency_are_forgotten_once_their_day_is_over(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(idempotency="event.id")
        await it.platform.send(it.events(600))
        it.platform.clock.advance(DAY_MS - 60_000)
        await it.send()
        await clean(it.platform, 30)
        assert it.count("once") == 601
        it.platform.clock.advance(60_000)
        await clean(it.platform, 30)
        assert it.count("once") == 1

    on_platform(tmp_path, test)


def test_starts_that_no_longer_count_for_a_rate_limit_are_forgotten(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(control={"rate_limit": {"limit": 10, "period": "40d", "key": "event.data.n"}})
        for number in range(120):
            await it.send(data={"n": number})
        it.platform.clock.advance(40 * DAY_MS - 60_000)
        await it.send(data={"n": 0})
        await clean(it.platform, 30)
        assert it.count("rate_starts") == 121
        it.platform.clock.advance(60_000)
        await clean(it.platform, 30)
        assert it.count("rate_starts") == 1

    on_platform(tmp_path, test)


def test_a_key_of_singleton_is_forgotten_with_its_run(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(control={"singleton": {"mode": "skip", "key": "event.data.n"}})
        await it.deploy("waits", control={"singleton": {"mode": "skip", "key": "event.data.n"}}, b=WAIT)
        for number in range(60):
            await it.send(data={"n": number})
        await it.platform.until_idle()
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert (it.count("singletons"), it.count("runs")) == (60, 60), "those of open runs"
        await it.send(data={"n": 0})
        await it.platform.until_idle()
        assert it.count("runs") == 61

    on_platform(tmp_path, test)


def test_a_busy_key_of_a_rate_limit_keeps_only_the_starts_that_count(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(control={"rate_limit": {"limit": 2, "period": "1m"}})
        for _ in range(10):
            await it.send()
            it.platform.clock.advance(30_000)
        await it.platform.until_idle()
        assert len(it.runner.started) == 10
        assert it.count("rate_starts") <= 3

    on_platform(tmp_path, test)


def test_an_open_run_keeps_its_event_and_later_ones(tmp_path: Path) -> None:
    """The event that satisfied a wait is read again when the step starts, even months later."""

    async def test(it: Scripted) -> None:
        delayed = {"after": [{"step": "b", "wait": "200d"}]}
        await it.deploy(b=WAIT, c=delayed)
        await it.platform.send(it.events(1, "before"))
        started = await it.send()
        more = await it.send("more", data={"n": 7})
        await it.platform.until_idle()
        for _ in range(3):
            it.platform.clock.advance(40 * DAY_MS)
            await clean(it.platform, 30)
        assert [event.event.id for event in it.queries.read_events(limit=10).items] == [more, started]
        await it.platform.travel(100 * DAY_MS)
        assert [run.run.status for run in it.runs(started)] == [RunStatus.COMPLETED]

    on_platform(tmp_path, test)


def test_an_event_held_for_a_paused_function_stays_until_it_has_run(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        change = it.platform.registration.change_routing
        await change("f", lambda routing, versions, now: paused(routing, drop=False))
        kept = await it.send()
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        await change("f", lambda routing, versions, now: resumed(routing))
        await it.platform.until_idle()
        assert [run.run.status for run in it.runs(kept)] == [RunStatus.COMPLETED]

    on_platform(tmp_path, test)


def test_a_wait_is_satisfied_after_months(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(b=WAIT)
        started = await it.send()
        await it.platform.until_idle()
        it.platform.clock.advance(100 * DAY_MS)
        await clean(it.platform, 30)
        await it.send("more")
        await it.platform.until_idle()
        assert [run.run.status for run in it.runs(started)] == [RunStatus.COMPLETED]

    on_platform(tmp_path, test)


def test_runs_that_ended_while_waiting_leave_no_rows(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(b=WAIT, c={"after": [{"step": "$trigger", "wait": "300d"}]})
        await it.send()
        await it.platform.until_idle()
        (run,) = it.runs()
        await it.platform.runs.cancel(run.run.id)
        assert (it.count("waits"), it.count("timers")) == (0, 0)
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert set(rows(it).values()) == {0}

    on_platform(tmp_path, test)


def test_a_rerun_keeps_the_event_of_a_deleted_run(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        event_id = await it.send()
        await it.platform.until_idle()
        (first,) = it.runs(event_id)
        it.platform.clock.advance(20 * DAY_MS)
        again = await it.platform.runs.rerun(first.run.id, "token")
        await it.platform.until_idle()
        it.platform.clock.advance(15 * DAY_MS)
        await clean(it.platform, 30)
        assert [run.run.id for run in it.runs(event_id)] == [again]

    on_platform(tmp_path, test)


def test_row_numbers_are_never_reused(tmp_path: Path) -> None:
    clock = Clock()
    numbers: list[tuple[int, int]] = []

    async def test(it: Scripted) -> None:
        await it.deploy()
        event_id = await it.send()
        await it.platform.until_idle()
        execute = it.platform.store.connection.execute
        numbers.append(execute("SELECT events.seq, runs.seq FROM events JOIN runs ON runs.event = events.seq"
                               " WHERE events.id = ?", (event_id,)).fetchone())  # fmt: skip
        clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert (it.count("events"), it.count("runs")) == (0, 0)

    for _ in range(3):
        on_platform(tmp_path, test, clock)
    assert numbers == sorted(set(numbers))
    assert len({event for event, _ in numbers}) == len({run for _, run in numbers}) == 3


def test_an_id_is_remembered_for_at_least_a_day(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.send(id="once")
        it.platform.clock.advance(DAY_MS - 1000)
        await clean(it.platform, 1)
        await it.send(id="once")
        assert it.count("events") == 1

    on_platform(tmp_path, test)


def test_versions_without_runs_go_but_the_newest_and_the_live_one_stay(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        for n in range(4):
            await it.deploy(a={"env": {"N": str(n)}})
            if n == 1:
                await it.deploy("waiting", "go", a=WAIT)
                await it.send()
                await it.platform.until_idle()
        await clean(it.platform, 30)
        assert versions(it, "f") == [1, 2, 3, 4]  # they are too young
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert versions(it, "f") == [4]  # the run ended long ago
        assert versions(it, "waiting") == [1]

    on_platform(tmp_path, test)


def versions(it: Scripted, function: str) -> list[int]:
    detail = it.queries.read_function(function)
    assert detail is not None
    return [version.number for version in detail.versions]


def test_code_stays_while_a_backup_copies_it(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        old = tmp_path / "code" / ("b" * 64)
        old.mkdir(parents=True)
        with code_in_use(tmp_path / "code"):
            await clean(it.platform, 30)
            assert old.is_dir()
        await clean(it.platform, 30)
        assert not old.exists()

    on_platform(tmp_path, test)


def test_unneeded_code_and_archives_are_deleted(tmp_path: Path) -> None:
    needed, old = "a" * 64, "b" * 64
    for name in (needed, old, f".changed-{needed}"):
        (tmp_path / "code" / name).mkdir(parents=True)
        (tmp_path / "code" / name / "main.sh").write_text("echo 1")
        (tmp_path / "code" / name).chmod(0o555)

    for name in ("f-1.zip", "f-2.zip", "g-2.zip"):
        (tmp_path / "code" / name).touch()

    async def test(it: Scripted) -> None:
        definition = {"id": "f", "name": "f", "triggers": [{"event": "go"}], "steps": {}}
        await it.platform.registration.register(definition, {"a": old}, {}, "f.json")
        it.platform.clock.advance(31 * DAY_MS)
        await it.platform.registration.register(definition, {"a": needed}, {}, "f.json")
        await clean(it.platform, 30)
        assert {path.name for path in (tmp_path / "code").iterdir()} == {needed, "f-2.zip"}

    on_platform(tmp_path, test)


def test_senders_do_not_wait_for_retention(tmp_path: Path) -> None:
    """Each piece is a batch of its own, so that events are accepted in between."""

    async def test(it: Scripted) -> None:
        await it.platform.send(it.events(3000, "nothing"))
        it.platform.clock.advance(31 * DAY_MS)
        cleaning = asyncio.create_task(clean(it.platform, 30, piece_s=0))
        sent = 0
        while not cleaning.done():
            await it.send("nothing")
            sent += 1
        assert sent > 60
        assert it.count("events") == sent

    on_platform(tmp_path, test)


@pytest.mark.parametrize("days", [1, 30])
def test_an_empty_database_is_clean(tmp_path: Path, days: float) -> None:
    async def test(it: Scripted) -> None:
        await clean(it.platform, days)

    on_platform(tmp_path, test)


def test_pieces_are_farther_apart_while_others_write(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        resting = asyncio.create_task(rest(it.platform, 0.005))
        await asyncio.sleep(0)
        await it.platform.send(it.events(1))
        await resting
        assert loop.time() - began >= 8 * 0.005

    on_platform(tmp_path, test)


def test_a_failed_run_stays_while_an_attempt_is_running(tmp_path: Path) -> None:
    """The attempt's outcome has yet to be recorded."""

    async def test() -> None:
        async with scripted(tmp_path, hold=True) as it:
            await it.deploy(a={"retries": {"attempts": 0}}, b={})
            started = await it.send()
            await until(lambda: len(it.runner.held) == 2)
            slow = it.runner.held.pop()
            it.runner.release(Outcome(error=Error("exit", "exit status 1"), retryable=False))
            await until(lambda: [run.run.status for run in it.runs(started)] == [RunStatus.FAILED])
            it.platform.clock.advance(31 * DAY_MS)
            await clean(it.platform, 30)
            assert len(it.runs(started)) == 1
            slow.end(Outcome(output=b"1"))
            await it.platform.until_idle()
            assert it.count("attempts") == 2
            await clean(it.platform, 30)
            assert (it.count("runs"), it.count("attempts")) == (0, 0)

    asyncio.run(test())


def test_live_and_canary_versions_stay_however_old_they_are(tmp_path: Path) -> None:
    """The live version after a rollback, and the canary."""

    async def test(it: Scripted) -> None:
        for n in range(5):
            await it.deploy(a={"env": {"N": str(n)}})
        routing = Routing(2, Canary(3, 0.1, "event.id", 0))
        await it.platform.registration.change_routing("f", lambda before, versions, now: routing)
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert versions(it, "f") == [2, 3, 5]

    on_platform(tmp_path, test)
