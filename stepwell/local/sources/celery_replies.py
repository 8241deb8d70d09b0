"""Finds the ends of runs that callers of Celery tasks wait for, and writes the results, in a thread of its own.

The engine stores an event at the end of each run, so new ends are found by reading the newest of these events.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import orjson

from stepwell.api.views.runs import run_view
from stepwell.core.run.run import RunStatus
from stepwell.core.run.run_events import RUN_EVENTS
from stepwell.core.sources.settings import resolved, without_secrets
from stepwell.local.celery.replies import Reply, ReplyWriter, failed, not_registered, revoked, success
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.queries.queries import Queries
from stepwell.local.sources import store

_LOOK_S = 0.02  # between two looks for ends of runs
_LATER_S = 1.0  # until a call is looked at again that cannot be answered yet
_AT_ONCE = 500
_ENDS = tuple(f"{RUN_EVENTS}{status}" for status in ("completed", "failed", "cancelled"))
_NEW_ENDS = "SELECT seq, body FROM events WHERE name = ? AND seq > ? ORDER BY seq LIMIT ?"
_CALL = "SELECT source, content FROM celery_calls WHERE event = ?"
_CALLS = "SELECT event FROM celery_calls WHERE event > ? ORDER BY event LIMIT ?"
_UNROUTED = "SELECT 1 FROM unrouted WHERE name = ? AND event = ?"
_RUNS = "SELECT id, ended_at FROM runs WHERE event = ? AND replay IS NULL"
log = logging.getLogger("stepwell.celery")


class CeleryReplies:
    """`look_at`, `look_at_all` and `close` are called on the event loop's thread."""

    def __init__(self, platform: LocalPlatform, secret: Callable[[str], str | None]) -> None:
        self._platform, self._secret = platform, secret
        self._loop = asyncio.get_running_loop()
        self._queries = Queries(platform.store.path)
        self._inbox: deque[str] = deque()
        self._deletions: set[asyncio.Task[None]] = set()
        self._wake = threading.Event()
        self._is_closed = self._must_look_at_all = False
        # of the thread:
        self._open: set[str] = set()  # ids of events whose runs have not ended
        self._later: deque[tuple[float, str]] = deque()
        self._writers: dict[tuple[str, str], ReplyWriter] = {}
        self._positions: dict[str, int] = {}  # by name of event: the newest one that was looked at
        self._thread = threading.Thread(target=self._work, name="stepwell-celery-replies", daemon=True)
        self._thread.start()

    def look_at(self, events: Iterable[str]) -> None:
        """Writes the results of these calls once their runs have ended."""
        self._inbox.extend(events)
        self._wake.set()

    def look_at_all(self) -> None:
        self._must_look_at_all = True
        self._wake.set()

    async def close(self) -> None:
        self._is_closed = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, 2)

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._is_closed:
            self._wake.wait(_LOOK_S if self._open or self._later else None)
            self._wake.clear()
            try:
                self._look()
            except Exception:
                log.exception("results of Celery tasks cannot be looked up, trying again")
                self._must_look_at_all = True
                if not self._is_closed:
                    time.sleep(_LATER_S)
        for writer in self._writers.values():
            with suppress(Exception):
                writer.close()

    def _look(self) -> None:
        if not self._positions:
            (newest,) = self._queries.connection.execute("SELECT max(seq) FROM events").fetchone()
            self._positions = dict.fromkeys(_ENDS, newest or 0)
        ids = list(self._new_ends())
        if self._must_look_at_all:
            self._must_look_at_all = False
            ids += self._all_calls()
        while self._inbox:
            ids.append(self._inbox.popleft())
        while self._later and self._later[0][0] <= time.monotonic():
            ids.append(self._later.popleft()[1])
        for start in range(0, len(ids), _AT_ONCE):
            self._answer(ids[start : start + _AT_ONCE])

    def _new_ends(self) -> Iterable[str]:
        """The ids of the events whose runs have ended since the last look, if a caller waits for them."""
        connection = self._queries.connection
        for name in _ENDS:
            while rows := connection.execute(_NEW_ENDS, (name, self._positions[name], _AT_ONCE)).fetchall():
                self._positions[name] = rows[-1][0]
                for _, body in rows:
                    event_id = orjson.loads(body)["data"].get("event_id")
                    if event_id in self._open:
                        yield event_id

    def _all_calls(self) -> list[str]:
        found = [""]
        while rows := self._queries.connection.execute(_CALLS, (found[-1], _AT_ONCE)).fetchall():
            found += [event_id for (event_id,) in rows]
        return found[1:]

    def _answer(self, ids: Sequence[str]) -> None:
        """Writes the results of these calls, as far as they are known."""
        answered = [event_id for event_id in dict.fromkeys(ids) if self._answer_one(event_id)]
        if answered:
            with suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._forget, answered)

    def _answer_one(self, event_id: str) -> bool:
        """Whether the call is answered, or has been before."""
        row = self._queries.connection.execute(_CALL, (event_id,)).fetchone()
        if row is None:
            self._open.discard(event_id)
            return False
        content = orjson.loads(row[1])
        reply = Reply(**content["reply"]) if content["reply"] else self._reply(event_id)
        if reply is None:
            return False
        self._open.discard(event_id)
        source = store.read_source(self._queries.connection, row[0])
        if source is None or "backend" not in source.definition:
            return True  # the source was removed, so the backend is not known
        try:
            self._writer(source.definition).write(content["call"], reply)
            return True
        except Exception as error:
            self._writers.clear()
            text = without_secrets(str(error) or type(error).__name__, source.definition, self._secret)
            log.warning("source %s: the result of a task cannot be written, trying again: %s", source.name, text)
            self._later.append((time.monotonic() + _LATER_S, event_id))
            return False

    def _reply(self, event_id: str) -> Reply | None:
        """The result of the event's first run that has ended; None if it is not known yet."""
        connection = self._queries.connection
        event = connection.execute("SELECT seq, name FROM events WHERE id = ?", (event_id,)).fetchone()
        if event is None:
            return failed("the event of the task is no longer stored")
        runs = connection.execute(_RUNS, (event[0],)).fetchall()
        if ended := [(at, run_id) for run_id, at in runs if at is not None]:
            return self._reply_of_run(min(ended)[1])
        if not runs:
            if connection.execute(_UNROUTED, (event[1], event[0])).fetchone():
                self._later.append((time.monotonic() + _LATER_S, event_id))
                return None
            if connection.execute("SELECT 1 FROM kept WHERE event = ?", (event[0],)).fetchone() is None:
                return not_registered(f"no function started for the event {event[1]} ({event_id})")
        self._open.add(event_id)
        return None

    def _reply_of_run(self, run_id: str) -> Reply:
        detail = self._queries.read_run(run_id)
        if detail is None:
            return failed(f"the run {run_id} is no longer stored")
        view = run_view(detail)
        if detail.run.status is RunStatus.CANCELLED:
            return revoked(f"the run {run_id} was cancelled")
        if detail.run.status is RunStatus.FAILED:
            error: Any = view["error"] or {}
            return failed(f"{error.get('message')} ({error.get('kind')}, step {error.get('step')} of run {run_id})")
        output = view["output"] or {}
        return success(next(iter(output.values())) if len(output) == 1 else output or None)

    def _writer(self, definition: dict[str, Any]) -> ReplyWriter:
        settings = resolved(definition, self._secret)
        key = settings["broker"], settings["backend"]
        if key not in self._writers:
            self._writers[key] = ReplyWriter(*key)
        return self._writers[key]

    # --- on the event loop's thread --------------------------------------------------------------------------------

    def _forget(self, events: list[str]) -> None:
        task = self._loop.create_task(self._delete(events))
        self._deletions.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._deletions.discard)

    async def _delete(self, events: list[str]) -> None:
        def delete(connection: sqlite3.Connection, now: int) -> None:
            connection.executemany("DELETE FROM celery_calls WHERE event = ?", [(event,) for event in events])

        with suppress(Unavailable):  # a result that is written again is the same
            await self._platform.in_transaction(delete)
