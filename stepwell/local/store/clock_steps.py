"""Corrects stored times when the clock is set back.

A time that lies in the future was set while the clock was ahead, so it moves back with the clock. A timer that was set
at or before the current time keeps the time at which it is due. Nothing then waits for hours that pass twice, and
nothing is due too early. A clock that is set forward needs no correction: what became due is due.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace

from stepwell.core.plan import Plan
from stepwell.core.routing.idempotency import WINDOW_MS
from stepwell.core.routing.versions import from_json, to_json
from stepwell.core.run.messages import TimerKind
from stepwell.core.run.run import Run
from stepwell.core.run.timeouts import TIMEOUT_NAMES
from stepwell.local.store import rate_limits
from stepwell.local.store.functions import GUARD_EVERY_MS
from stepwell.local.store.run_parts import read_run, write_whole
from stepwell.local.store.schedules import Schedules

TOLERANCE_MS = 1_000  # smaller steps need no correction
_ROWS = 2_000  # updated in one piece


def newest_time(connection: sqlite3.Connection) -> int:
    """The latest time that the database contains, in ms since the epoch."""
    sql = (
        "SELECT max(coalesce((SELECT accepted_at FROM events WHERE seq = (SELECT max(seq) FROM events)), 0),"
        " coalesce((SELECT created_at FROM runs WHERE seq = (SELECT max(seq) FROM runs)), 0))"
    )
    newest: int = connection.execute(sql).fetchone()[0]
    return newest


def move_back(
    connection: sqlite3.Connection, plan_of: Callable[[str, int], Plan], by_ms: int, now: int
) -> Iterator[None]:
    """Corrects all stored times after the clock was set back by `by_ms`, to `now`.

    Yields after each piece of work. Runs first in a batch; no run may be cached in memory.
    """
    for seq in _ascending(connection, "SELECT min(run) FROM timers WHERE run > ?"):
        _move_timers(connection, plan_of, seq, by_ms, now)
        yield
    connection.execute("UPDATE once SET until = until - ? WHERE until > ?", (by_ms, now + WINDOW_MS))
    rate_limits.move_back(connection, by_ms, now)
    connection.execute("UPDATE throttles SET theoretical = theoretical - ? WHERE theoretical > ?", (by_ms, now))
    connection.execute("UPDATE guards SET next_at = min(next_at, ?)", (now + GUARD_EVERY_MS,))
    _move_canaries(connection, now)
    Schedules(connection).cap_next_ticks(now)
    yield
    yield from _cap_row_times(connection, now)


def _ascending(connection: sqlite3.Connection, sql: str) -> Iterator[int]:
    """The numbers that a query finds, in ascending order. The query returns the least one above the parameter."""
    number = 0
    while (number := connection.execute(sql, (number,)).fetchone()[0]) is not None:
        yield number


def _move_timers(
    connection: sqlite3.Connection, plan_of: Callable[[str, int], Plan], seq: int, by_ms: int, now: int
) -> None:
    """Moves the timers of one run that were set while the clock was ahead."""
    sql = "SELECT id, function, version, state FROM runs WHERE seq = ?"
    run_id, function, version, state = connection.execute(sql, (seq,)).fetchone()
    plan, before = plan_of(function, version), read_run(connection, seq, run_id, state)
    run = before
    sql = "SELECT kind, step_or_pause FROM timers WHERE run = ?"
    for kind, index in connection.execute(sql, (seq,)).fetchall():
        if _set_at(connection, plan, seq, run, TimerKind(kind), index) <= now:
            continue
        run = _moved(run, TimerKind(kind), index, by_ms)
        sql = "UPDATE timers SET due_at = due_at - ? WHERE run = ? AND kind = ? AND step_or_pause = ?"
        connection.execute(sql, (by_ms, seq, kind, index))
        if kind == TimerKind.DEADLINE:
            sql = "UPDATE waits SET deadline = deadline - ? WHERE event = ? AND key = ? AND run = ? AND pause = ?"
            event, key = plan.pauses[index].event, run.pauses[index].key or b""
            connection.execute(sql, (by_ms, event, key, seq, index))
    if run is not before:
        write_whole(connection, {seq: run})


def _set_at(connection: sqlite3.Connection, plan: Plan, seq: int, run: Run, kind: TimerKind, index: int) -> int:
    """When a timer was set."""
    if kind is TimerKind.DELAY and plan.pauses[index].until is not None:
        return 0  # a point in time stays where it is
    if kind is TimerKind.DELAY:
        return run.pauses[index].due_at - plan.pauses[index].delay_ms
    if kind is TimerKind.DEADLINE:
        return run.pauses[index].due_at - plan.pauses[index].ttl_ms
    if kind is TimerKind.DECISION:
        return run.steps[index].at
    if kind in TIMEOUT_NAMES:
        return (run.created_at if kind is TimerKind.START else run.started_at) or 0
    sql = "SELECT coalesce(max(ended_at), 0) FROM attempts WHERE run = ? AND step = ?"
    ended_at: int = connection.execute(sql, (seq, index)).fetchone()[0]
    return ended_at


def _moved(run: Run, kind: TimerKind, index: int, by_ms: int) -> Run:
    if kind is TimerKind.START:
        return run._replace(created_at=run.created_at - by_ms)
    if kind is TimerKind.FINISH:
        return run._replace(started_at=(run.started_at or 0) - by_ms)
    if kind in (TimerKind.DELAY, TimerKind.DEADLINE):
        pause = run.pauses[index]
        pauses = (*run.pauses[:index], pause._replace(due_at=pause.due_at - by_ms), *run.pauses[index + 1 :])
        return run._replace(pauses=pauses)
    step = run.steps[index]
    return run._replace(steps=(*run.steps[:index], step._replace(at=step.at - by_ms), *run.steps[index + 1 :]))


def _move_canaries(connection: sqlite3.Connection, now: int) -> None:
    """A canary must not begin after the runs that are made from now on."""
    sql = "SELECT id, live, routing FROM functions WHERE json_extract(routing, '$.canary') IS NOT NULL"
    for function_id, live, text in connection.execute(sql).fetchall():
        routing = from_json(live, text)
        if (canary := routing.canary) is None:
            continue
        guard = canary.guard
        if guard is not None:
            guard = replace(guard, began_at=min(guard.began_at, now), looked_at=min(guard.looked_at, now))
        canary = replace(canary, since=min(canary.since, now), guard=guard)
        text = to_json(replace(routing, canary=canary)).decode()
        connection.execute("UPDATE functions SET routing = ? WHERE id = ?", (text, function_id))


def _cap_row_times(connection: sqlite3.Connection, now: int) -> Iterator[None]:
    """Limits row times to `now`. Lists and retention rely on times that grow with row numbers."""
    for table, column in (("events", "accepted_at"), ("runs", "created_at")):
        sql = f"SELECT seq FROM {table} WHERE {column} <= ? ORDER BY seq DESC LIMIT 1"
        row = connection.execute(sql, (now,)).fetchone()
        sql = f"UPDATE {table} SET {column} = ? WHERE seq > ? AND seq <= ?"
        for first, last in _pieces(connection, table, row[0] if row else 0):
            connection.execute(sql, (now, first, last))
            yield
    for first, last in _pieces(connection, "runs", 0):
        sql = "UPDATE runs SET ended_at = ? WHERE seq > ? AND seq <= ? AND ended_at > ?"
        connection.execute(sql, (now, first, last, now))
        yield
    connection.execute("UPDATE versions SET created_at = ? WHERE created_at > ?", (now, now))


def _pieces(connection: sqlite3.Connection, table: str, behind: int) -> Iterator[tuple[int, int]]:
    """Ranges of row numbers above `behind`: each exclusive of the first number and inclusive of the second."""
    sql = f"SELECT seq FROM {table} WHERE seq > ? ORDER BY seq LIMIT 1 OFFSET {_ROWS - 1}"
    while (row := connection.execute(sql, (behind,)).fetchone()) is not None:
        yield behind, row[0]
        behind = row[0]
    yield behind, 2**63 - 1
