"""Long logs are stored in files beside the database; readers of a run see no difference."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from stepwell.core.run.messages import Error, Outcome
from stepwell.local.database.log_files import LogFile, LogFiles, log_folder
from stepwell.local.engine.attempt_logs import IN_DATABASE
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.erasure import erase
from stepwell.local.engine.retention import clean
from stepwell.local.store.users import read_person
from tests.local.scripted import Scripted, scripted, until

Test = Callable[[Scripted], Coroutine[None, None, None]]
DAY_MS = 86_400_000
LINE = b"0123456789abcdef" * 1000
LONG = LINE * 20


def on_platform(folder: Path, test: Test) -> None:
    async def main() -> None:
        async with scripted(folder, hold=True, clock=Clock()) as it:
            await it.deploy()
            await test(it)

    asyncio.run(main())


async def run_that_logs(it: Scripted, *pieces: bytes, user: str = "ann") -> str:
    """The id of a run whose only attempt has logged this, and ended."""
    event = await it.send(user={"id": user, "email": f"{user}@example.com"})
    await until(lambda: it.runner.held)
    (attempt,) = it.runner.held
    for piece in pieces:
        attempt.log("stderr", piece)
    it.runner.release()
    await it.platform.until_idle()
    return it.runs(event)[0].run.id


def log_of(it: Scripted, run_id: str, attempt: int = 1) -> bytes:
    found = it.queries.read_run(run_id)
    assert found is not None
    return found.logs.get((0, attempt), b"")


def files(folder: Path) -> list[Path]:
    path = log_folder(folder / "db")
    return sorted(path.iterdir()) if path.exists() else []


def test_a_short_log_makes_no_file(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        run_id = await run_that_logs(it, b"a" * IN_DATABASE)
        assert log_of(it, run_id) == b"a" * IN_DATABASE
        assert files(tmp_path) == []

    on_platform(tmp_path, test)


def test_a_long_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        pieces = [b"first\n", *[b"%d" % number + LINE for number in range(50)], b"last\n"]
        run_id = await run_that_logs(it, *pieces)
        assert log_of(it, run_id) == b"".join(pieces)
        (path,) = files(tmp_path)
        assert it.count("logs") <= 5
        assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)

    on_platform(tmp_path, test)


def test_a_long_log_is_read_while_its_attempt_runs(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        event = await it.send()
        await until(lambda: it.runner.held)
        it.runner.held[0].log("stderr", LONG)
        (run,) = it.runs(event)
        await until(lambda: log_of(it, run.run.id) == LONG)
        it.runner.held[0].log("stdout", b"more")
        await until(lambda: log_of(it, run.run.id) == LONG + b"more")

    on_platform(tmp_path, test)


def test_each_attempt_has_a_log_of_its_own(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        event = await it.send()
        for text in (b"1", b"2"):
            await until(lambda: it.runner.held)
            it.runner.held[0].log("stderr", text * 100_000)
            it.runner.release(Outcome(output=b"1") if text == b"2" else _again())
            await it.platform.until_idle()
            it.platform.clock.advance(60_000)  # until the retry
        (run,) = it.runs(event)
        assert [log_of(it, run.run.id, n) for n in (1, 2)] == [b"1" * 100_000, b"2" * 100_000]

    on_platform(tmp_path, test)


def _again() -> Outcome:
    return Outcome(error=Error("exit", "no"))


def test_the_log_of_an_ended_attempt_is_complete_and_durable(tmp_path: Path) -> None:
    """Like after a kill: another process reads the database and the files."""

    async def test(it: Scripted) -> None:
        event = await it.send()
        await until(lambda: it.runner.held)
        it.runner.held[0].log("stderr", LONG)
        it.runner.release()
        await until(lambda: it.count("runs WHERE ended_at IS NOT NULL"))
        assert log_of(it, it.runs(event)[0].run.id) == LONG

    on_platform(tmp_path, test)


def test_logs_are_preserved_over_a_restart(tmp_path: Path) -> None:
    async def before(it: Scripted) -> None:
        await it.send()
        await until(lambda: it.runner.held)
        it.runner.held[0].log("stderr", LONG)

    async def after(it: Scripted) -> None:
        (run,) = it.runs()
        assert log_of(it, run.run.id) == LONG

    on_platform(tmp_path, before)
    on_platform(tmp_path, after)


def test_an_erasure_removes_the_files_of_the_user_and_no_others(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        ann, ben = [await run_that_logs(it, LONG, user=name) for name in ("ann", "ben")]
        assert len(files(tmp_path)) == 2
        person = read_person(it.platform.store.connection, "ann")
        assert person is not None
        assert (await erase(it.platform, person)).is_done
        assert [log_of(it, run_id) for run_id in (ann, ben)] == [b"", LONG]
        assert len(files(tmp_path)) == 1
        assert it.count("log_files") == 1

    on_platform(tmp_path, test)


def test_retention_removes_the_files_of_old_runs(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await run_that_logs(it, LONG)
        it.platform.clock.advance(31 * DAY_MS)
        new = await run_that_logs(it, LONG)
        await clean(it.platform, 30)
        assert len(files(tmp_path)) == it.count("log_files") == 1
        assert log_of(it, new) == LONG

    on_platform(tmp_path, test)


def test_files_without_a_row_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """Files that a crash has left, or that belong to a database from before a restore: same run, but another file."""

    async def before(it: Scripted) -> None:
        await run_that_logs(it, LONG)

    async def after(it: Scripted) -> None:
        await until(lambda: len(files(tmp_path)) == 2)
        assert log_of(it, it.runs()[0].run.id) == LONG
        assert [path.name for path in files(tmp_path)] == [value.name, "notes.txt"]  # the latter is not Stepwell's

    on_platform(tmp_path, before)
    (value,) = files(tmp_path)
    run, step, attempt, _ = value.name.split("-")
    for name in (f"{run}-{step}-{attempt}-{'0' * 16}.log", f"99-0-1-{'0' * 16}.log", "notes.txt"):
        (value.parent / name).write_text("left")
    on_platform(tmp_path, after)


def test_the_rest_of_a_log_is_read_if_its_file_is_gone(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        run_id = await run_that_logs(it, b"first", LONG)
        files(tmp_path)[0].unlink()
        assert log_of(it, run_id) == b"first"

    on_platform(tmp_path, test)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="paths are those of Linux")
def test_a_log_that_cannot_be_written_delays_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(it: Scripted) -> None:
        log_folder(tmp_path / "db").write_text("a file in the place of the folder")
        run_id = await run_that_logs(it, b"first", LONG)
        assert it.runs()[0].run.ended_at is not None
        log_folder(tmp_path / "db").unlink()
        assert log_of(it, run_id) == b"first"
        assert "cannot be written" in caplog.text

    on_platform(tmp_path, test)


def test_the_thread_is_woken_for_many_pieces_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        writes: list[int] = []
        logs = LogFiles(tmp_path / "db")
        monkeypatch.setattr(logs, "_append", lambda name, text: writes.append(len(text)))
        file, done = LogFile("1-0-1-0000000000000000.log"), asyncio.Event()
        for _ in range(64):
            logs.append(file, b"x" * 65_536)
        logs.finish(file, done.set)
        await done.wait()
        await logs.close()
        assert sum(writes) == 64 * 65_536
        assert len(writes) <= 4

    asyncio.run(test())
