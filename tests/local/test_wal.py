"""The write-ahead log stays bounded despite long readers, and erased data is in no file of the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from stepwell.api.v1.users import Erased
from stepwell.core.events.users import Person
from stepwell.core.run.messages import Outcome
from stepwell.local.database.schema import WAL_BYTES, WAL_PAGES, connect
from stepwell.local.database.wal import WriteAheadLog
from stepwell.local.engine.erasure import erase
from stepwell.local.runners.job import End, Job, Log, Running
from stepwell.local.users import LocalUsers
from tests.local.scripted import Scripted, scripted, until

MB = 1024 * 1024


@contextmanager
def long_reader(database: Path) -> Iterator[None]:
    """A read transaction that does not end."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    try:
        yield
    finally:
        connection.execute("COMMIT")
        connection.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """An open database with a log of one megabyte."""
    connection = connect(tmp_path / "db")
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [(b"x" * MB,)])
    yield tmp_path / "db"
    connection.close()


def on_platform(folder: Path, test: Callable[[Scripted], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with scripted(folder) as it:
            await test(it)

    asyncio.run(main())


async def tended(wal: WriteAheadLog, holds: Callable[[], bool]) -> None:
    task = asyncio.create_task(wal.keep_small(every_s=0.01))
    await until(holds)
    task.cancel()


def test_the_log_is_truncated_after_a_long_reader_has_ended(database: Path) -> None:
    wal = WriteAheadLog(database, most_bytes=MB // 2)
    with long_reader(database):
        assert wal.size > MB
        assert not wal.shrink()
        assert wal.size > MB
    asyncio.run(tended(wal, lambda: wal.size == 0))


def test_a_small_log_is_not_touched(database: Path) -> None:
    wal = WriteAheadLog(database, most_bytes=2 * MB)

    async def look_often() -> None:
        task = asyncio.create_task(wal.keep_small(every_s=0))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(look_often())
    assert wal.size > MB


def test_a_log_that_cannot_be_truncated_is_reported_once(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    wal = WriteAheadLog(database, most_bytes=MB // 8)
    with long_reader(database), caplog.at_level(logging.WARNING):
        asyncio.run(tended(wal, lambda: bool(caplog.records)))
        asyncio.run(asyncio.sleep(0))
    (message,) = {record.getMessage() for record in caplog.records}
    assert f"{database}-wal" in message
    assert "because a long reader" in message


def test_commits_do_not_checkpoint_while_the_task_runs(database: Path) -> None:
    writer = connect(database)

    def pages() -> int:
        number: int = writer.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
        return number

    async def look_after_it() -> None:
        task = asyncio.create_task(WriteAheadLog(database).keep_small(writer, every_s=0.01))
        await until(lambda: pages() == 0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(look_after_it())
    assert pages() == WAL_PAGES
    writer.close()


def test_a_growing_log_is_checkpointed_and_overwritten(tmp_path: Path) -> None:
    """While events come all the time."""

    async def test(it: Scripted) -> None:
        wal = WriteAheadLog(tmp_path / "db", write_back_bytes=MB)
        task = asyncio.create_task(wal.keep_small(it.platform.store.connection, it.platform.exclusively, every_s=0.001))
        left, size, begun = 0, 0, 0
        while begun < 3:
            await it.platform.send(it.events(1, "nothing", data={"x": "x" * 200_000}))
            begun += wal.left < left
            left = wal.left
            assert wal.size >= size
            size = wal.size
        task.cancel()

    on_platform(tmp_path, test)


def test_overlapping_readers_do_not_make_the_log_grow(tmp_path: Path) -> None:
    """The writer waits until all current readers have finished, so that the next ones read after the restart."""
    ended = threading.Event()

    def read() -> None:
        with contextlib.closing(connect(tmp_path / "db", read_only=True)) as connection:
            while not ended.is_set():
                connection.execute("SELECT count(*) FROM events").fetchone()

    async def test(it: Scripted) -> None:
        wal = WriteAheadLog(tmp_path / "db", write_back_bytes=MB)
        tasks = [
            asyncio.create_task(wal.keep_small(it.platform.store.connection, it.platform.exclusively, every_s=0.001))
        ]
        tasks += [asyncio.create_task(asyncio.to_thread(read)) for _ in range(3)]
        largest = 0
        for _ in range(100):
            await it.platform.send(it.events(1, "nothing", data={"x": "x" * 200_000}))
            largest = max(largest, wal.size)
        ended.set()
        await asyncio.wait(tasks[1:])
        tasks[0].cancel()
        assert it.count("events") == 100
        assert largest < 10 * MB < 100 * 200_000

    on_platform(tmp_path, test)


def test_writers_truncate_a_log_that_a_long_reader_made_grow(tmp_path: Path) -> None:
    """Without the checkpointing task, as if the server were too busy for it."""

    async def test(it: Scripted) -> None:
        size = it.platform.wal
        with long_reader(tmp_path / "db"):
            while size.size < WAL_BYTES + 8 * MB:
                await it.platform.send(it.events(15, "nothing", data={"x": "x" * 250_000}))
        for _ in range(3):
            await it.platform.send(it.events(1, "nothing"))
        assert size.size <= WAL_BYTES

    on_platform(tmp_path, test)


def test_a_server_that_ends_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        await it.platform.until_idle()
        assert len(it.runs()) == 1  # by a connection that stays open
        assert it.platform.wal.size > 0

    on_platform(tmp_path, test)
    assert WriteAheadLog(tmp_path / "db").size == 0


def test_pages_that_are_not_checkpointed_are_counted(database: Path) -> None:
    wal = WriteAheadLog(database)
    assert MB < wal.left <= wal.size
    assert wal.write_back() == 0
    assert wal.left == 0
    assert wal.size > MB
    assert WriteAheadLog(database.with_name("none")).left == 0


def test_a_restarted_log_is_truncated_only_if_it_is_too_large(database: Path) -> None:
    assert WriteAheadLog(database).restart()
    assert WriteAheadLog(database).size > MB
    wal = WriteAheadLog(database, most_bytes=MB // 2)
    assert wal.restart()
    assert wal.size == 0


def test_a_log_with_erased_data_is_truncated_when_it_restarts(database: Path) -> None:
    wal = WriteAheadLog(database)
    wal.wipe()
    assert wal.restart()
    assert wal.size == 0


# --- after an erasure ------------------------------------------------------------------------------------------------

VICTIM = "victim@example.com"


class Says:
    """A runner whose steps print data of the event, of several lengths, and sometimes fail."""

    def __init__(self) -> None:
        self._random = random.Random(1)

    def start(self, job: Job, log: Log, end: End) -> Running:
        secret = orjson.loads(job.input)["event"]["data"]["secret"]
        log("stderr", f"{secret} in a log".encode())
        content = orjson.dumps({"said": secret + "." * self._random.randrange(900)})
        asyncio.get_running_loop().call_soon(end, Outcome(output=content))
        return self

    def stop(self) -> None:
        """Does nothing: the attempt has ended."""

    async def close(self) -> None:
        """Does nothing."""


async def _history(it: Scripted, events: int) -> None:
    """Events of some users in random order, with runs of three steps whose rows grow and move."""
    it.platform.executor._runner = Says()
    after = {"after": [{"step": "a"}]}
    await it.deploy(a={}, b=after, c=after)
    chance = random.Random(2)
    for n in range(events):
        user = chance.choice([VICTIM, *(f"u{i}@example.com" for i in range(9))])
        data = {"secret": f"secret of {user} {n:05}", "more": "." * chance.randrange(1500)}
        await it.send(data=data, user={"email": user, "external_id": user.split("@")[0]})
        if n % 7 == 0:
            await it.platform.until_idle()
    await it.platform.until_idle()


def _victim(folder: Path) -> Person:
    def never(person: Person) -> Erased:
        raise AssertionError

    person = LocalUsers(folder / "db", never).find(VICTIM)
    assert person is not None
    return person


def _found(folder: Path, *texts: bytes) -> list[str]:
    return [file.name for file in folder.iterdir() if file.is_file() and any(t in file.read_bytes() for t in texts)]


def test_no_file_of_the_database_contains_erased_data(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await _history(it, 400)
        assert _found(tmp_path, VICTIM.encode())
        person = _victim(tmp_path)
        assert (await erase(it.platform, person)).is_done
        assert _found(tmp_path, b"victim") == []
        assert _found(tmp_path, b"secret of u1@example.com") == ["db"]
        await it.send(data={"secret": "x"})
        await it.platform.until_idle()

    on_platform(tmp_path, test)


def test_erased_data_leaves_the_log_when_the_last_reader_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(it: Scripted) -> None:
        await _history(it, 20)
        person = _victim(tmp_path)
        with long_reader(tmp_path / "db"):
            assert (await erase(it.platform, person)).is_done
            assert "until the current readers of the database finish" in caplog.text
        await tended(it.platform.wal, lambda: not _found(tmp_path, b"victim"))

    on_platform(tmp_path, test)


def test_events_during_a_vacuum_are_accepted(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await _history(it, 200)
        person = _victim(tmp_path)
        erasing = asyncio.create_task(erase(it.platform, person))
        while not erasing.done():
            await it.send(data={"secret": "x"})
        assert erasing.result().is_done
        await it.platform.until_idle()

    on_platform(tmp_path, test)


def test_counting_pending_pages_keeps_sqlites_locks(database: Path) -> None:
    """Otherwise another process would consider the log unused and cut it while it is mapped here (SIGBUS)."""
    program = f"""
import fcntl
with open({str(database.with_name(f"{database.name}-shm"))!r}, "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)  # which every connection shares while it is open
"""
    with contextlib.closing(connect(database)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        for _ in range(2):
            assert WriteAheadLog(database).left >= 0
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
            assert "BlockingIOError" in done.stderr
