"""Callers of Celery tasks that wait for results: a row for each, from acceptance until its result is written.

The row is written before the message is acknowledged. So a caller gets the result even if the server dies between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import orjson

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.events import Event
from stepwell.core.rules.event_rule import made_id
from stepwell.core.sources.records import Record
from stepwell.core.sources.source import NoEvent
from stepwell.local.celery.received import Call
from stepwell.local.celery.replies import Reply, failed, not_registered, revoked
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.sources.celery_queue import CeleryToken, record_id, waiting_calls
from stepwell.local.sources.reader import Polled

if TYPE_CHECKING:
    from stepwell.local.sources.celery_replies import CeleryReplies

_OPEN_RUNS = "SELECT runs.id FROM events CROSS JOIN runs ON runs.event = events.seq WHERE events.id = ? AND status = 0"
_PUT = "INSERT OR REPLACE INTO celery_calls VALUES (?, ?, ?)"


class CeleryCalls:
    """Records the calls of all sources of the type celery. Call it on the event loop's thread."""

    def __init__(self, platform: LocalPlatform, secret: Callable[[str], str | None]) -> None:
        self._platform, self._secret = platform, secret
        self._replies: CeleryReplies | None = None

    def start(self) -> None:
        """Writes the results of calls that were left when the server ended."""
        if self._platform.store.connection.execute("SELECT 1 FROM celery_calls LIMIT 1").fetchone():
            self._started().look_at_all()

    async def accepted(
        self,
        source: dict[str, Any],
        polled: Polled,
        made: Iterable[tuple[Event, Record]],
        refused: Iterable[tuple[Record, NoEvent]],
    ) -> None:
        """Notes who waits for these records, whose events are durable now. Cancels the runs of tasks that callers have
        revoked. Raises Unavailable."""
        if isinstance(polled.token, CeleryToken) and polled.token.revoked:
            await self._cancel(source["name"], polled.token.revoked)
        if "backend" not in source:
            return
        rows = _rows(source["name"], polled, list(made), {record.id: reason for record, reason in refused})
        if rows:
            await self._platform.in_transaction(lambda connection, now: _write(connection, rows))
            self._started().look_at([row[0] for row in rows])

    async def _cancel(self, source: str, task_ids: list[str]) -> None:
        for task_id in task_ids:
            event_id = made_id(EngineId.SOURCE, source, record_id(task_id))
            for (run_id,) in self._platform.store.connection.execute(_OPEN_RUNS, (event_id,)).fetchall():
                await self._platform.runs.cancel(run_id)

    async def close(self) -> None:
        if self._replies is not None:
            await self._replies.close()

    def _started(self) -> CeleryReplies:
        if self._replies is None:
            from stepwell.local.sources.celery_replies import CeleryReplies

            self._replies = CeleryReplies(self._platform, self._secret)
        return self._replies


def _rows(
    source: str, polled: Polled, made: list[tuple[Event, Record]], refused: dict[str, NoEvent]
) -> list[tuple[str, str, bytes]]:
    """A row for each caller that waits. Records without an event have their replies already."""
    calls = waiting_calls(polled, polled.records)
    events = {record.id: event.id for event, record in made}
    rows = []
    for name, call in calls.items():
        if name in events:
            rows.append(_row(events[name], source, call, None))
        elif name in refused:
            rows.append(_row(f"{source}/{name}", source, call, failed(f"not accepted: {refused[name]}")))
        else:
            reason = f"the condition `if` of the source {source} is false for this task"
            rows.append(_row(f"{source}/{name}", source, call, not_registered(reason)))
    token = polled.token
    for call, reason in token.dropped if isinstance(token, CeleryToken) else ():
        if call.is_awaited:
            rows.append(_row(f"{source}/{call.task_id}", source, call, revoked(reason)))
    return rows


def _row(name: str, source: str, call: Call, reply: Reply | None) -> tuple[str, str, bytes]:
    decided = None if reply is None else {"state": reply.state, "result": reply.result}
    return name, source, orjson.dumps({"call": call.stored(), "reply": decided})


def _write(connection: sqlite3.Connection, rows: list[tuple[str, str, bytes]]) -> None:
    connection.executemany(_PUT, rows)
