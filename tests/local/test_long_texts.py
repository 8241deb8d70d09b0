"""Long outputs and errors are stored completely, but not in the rows that are searched by key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import orjson
import pytest

from stepwell.core.run.messages import Error, Outcome
from stepwell.local.engine.erasure import erase
from stepwell.local.engine.retention import clean
from stepwell.local.users import LocalUsers
from tests.local.scripted import Scripted, scripted, until

LONG, SHORT = b'"%b"' % (b"x" * 250_000), b'"short"'
FAILED = Outcome(error=Error("exit", "no", output=LONG), retryable=False)
LARGEST_ROW = 1000  # bytes that SQLite stores of a row on its page
DAY_MS = 86_400_000

Test = Callable[[Scripted], Coroutine[None, None, None]]


def on_platform(folder: Path, test: Test) -> None:
    async def main() -> None:
        async with scripted(folder, hold=True) as it:
            await it.deploy(a={}, b={"after": [{"step": "a"}]})
            await test(it)

    asyncio.run(main())


async def end(it: Scripted, outcome: Outcome) -> None:
    await until(lambda: it.runner.held)
    it.runner.release(outcome)
    await asyncio.sleep(0)


def kept(it: Scripted) -> list[tuple[bytes | None, bytes | None]]:
    """The stored result of each attempt."""
    (run,) = it.runs()
    return [(attempt.output, attempt.error) for attempt in run.attempts]


@pytest.mark.parametrize("size", [898, 899, 250_000])
def test_outputs_of_any_size_are_stored(tmp_path: Path, size: int) -> None:
    async def test(it: Scripted) -> None:
        output = b'"%b"' % (b"x" * size)
        await it.send()
        await end(it, Outcome(output=output))
        await until(lambda: it.runner.held)
        assert orjson.loads(it.runner.held[0].job.input)["steps"]["a"] == "x" * size
        await end(it, Outcome(output=SHORT))
        await it.platform.until_idle()
        assert kept(it) == [(output, None), (SHORT, None)]

    on_platform(tmp_path, test)


def test_the_next_step_gets_a_long_output_after_a_restart(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.send()
        await end(it, Outcome(output=LONG))
        await until(lambda: it.runner.held)

    on_platform(tmp_path, test)

    async def again() -> None:
        async with scripted(tmp_path, hold=True) as it:
            await until(lambda: it.runner.held)
            assert orjson.loads(it.runner.held[0].job.input)["steps"]["a"] == orjson.loads(LONG)

    asyncio.run(again())


def test_long_errors_are_stored(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.send()
        await end(it, FAILED)
        await it.platform.until_idle()
        ((output, error),) = kept(it)
        assert output is None
        assert orjson.loads(error or b"")["output"] == orjson.loads(LONG)

    on_platform(tmp_path, test)


def test_rows_of_attempts_are_short(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.send()
        await end(it, Outcome(output=LONG))
        await end(it, FAILED)
        await it.platform.until_idle()
        assert it.count("attempts") == 2
        assert it.count(f"attempts WHERE length(output) > {LARGEST_ROW} OR length(error) > {LARGEST_ROW}") == 0

    on_platform(tmp_path, test)


def test_long_texts_stored_by_an_older_stepwell_are_read(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.send()
        await end(it, Outcome(output=SHORT))
        await end(it, Outcome(output=SHORT))
        await it.platform.until_idle()
        it.platform.store.connection.execute("UPDATE attempts SET output = ?", (LONG,))
        assert kept(it) == [(LONG, None), (LONG, None)]

    on_platform(tmp_path, test)


def test_retention_deletes_long_texts_with_their_runs_and_no_others(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        for _ in range(2):
            await it.send()
            await end(it, Outcome(output=LONG))
            await end(it, FAILED)
            await it.platform.until_idle()
            it.platform.clock.advance(20 * DAY_MS)
        assert it.count("long_texts") == 4
        await clean(it.platform, 30)
        assert it.count("long_texts") == 2
        assert [error is None for _, error in kept(it)] == [True, False]

    on_platform(tmp_path, test)


def test_an_erasure_leaves_nothing_of_long_texts(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        for user in ("ada", "bob"):
            await it.send(user={"external_id": user, "plan": "pro"})
            await end(it, Outcome(output=LONG.replace(b"x", user[:1].encode())))
            await end(it, FAILED)
        await it.platform.until_idle()
        users = LocalUsers(it.platform.store.path, lambda person: pytest.fail("nobody asks"))
        ada = users.find("ada")
        assert ada is not None
        assert users.timeline(ada, before=None, limit=10)
        assert (await erase(it.platform, ada)).is_done
        assert it.count("long_texts") == 2
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        assert (b"a" * 2000 in files, b"b" * 2000 in files) == (False, True)

    on_platform(tmp_path, test)


def test_dev_reads_long_events_without_their_data(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        ids = [await it.send(data={"text": "x" * size}) for size in (10, 250_000)]
        found = [
            (detail.event.id, detail.event.name, len(detail.event.data), len(runs))
            for detail, runs in it.queries.read_tail(0, 10)
        ]
        assert found == [(ids[0], "go", 1, 1), (ids[1], "go", 0, 1)]

    on_platform(tmp_path, test)
