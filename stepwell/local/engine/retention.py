"""Deletes old data: ended runs, events that no run needs, versions without runs, and code that no version needs.

Each piece is part of a batch and takes some milliseconds. The pause after a piece is as long as the piece with its
commit, and eight times as long if there were other batches meanwhile. So a busy engine gets most of the time.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson

from stepwell.local.code.in_use import code_free
from stepwell.local.code.keeper import pushed_name
from stepwell.local.database import not_started_tables
from stepwell.local.database.log_files import take_log_files
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.store import idempotency, limit_rows, rate_limits
from stepwell.local.store.long_texts import delete_long_texts
from stepwell.project.code_copies import CHANGED, remove

log = logging.getLogger("stepwell.retention")

_EVERY_MS = 600_000
_PIECE_S = 0.006  # of deleting; the commit takes about as long
_PAUSE, _BUSY_PAUSE = 1, 8  # multiples of the time of a piece with the commit
_AT_ONCE = 50  # rows between two checks of the clock
_DAY_MS = 86_400_000


async def keep_clean(platform: LocalPlatform, keep_days: float) -> None:
    """Deletes data older than `keep_days` regularly. The minimum is one day, during which duplicates are recognised."""
    while True:
        try:
            await clean(platform, max(1.0, keep_days))
        except Unavailable as reason:
            log.warning("old data is not deleted before the next round: %s", reason)
        await platform.clock.pause(_EVERY_MS)


async def clean(platform: LocalPlatform, keep_days: float, piece_s: float = _PIECE_S) -> None:
    """Deletes all data that is old now. A piece ends after `piece_s` seconds."""
    cut = platform.clock.now() - int(keep_days * _DAY_MS)
    files: list[str] = []
    await _in_pieces(platform, partial(_delete_runs, files), cut, piece_s)
    await platform.log_files.remove(files)
    await _in_pieces(platform, _delete_events, cut, piece_s)
    await platform.in_transaction(lambda connection, now: not_started_tables.delete_unused(connection))
    for expired in (idempotency.delete_expired, rate_limits.delete_expired, limit_rows.delete_over):
        await _in_pieces(platform, partial(_delete_expired, expired), platform.clock.now(), piece_s)
    await _in_pieces(platform, _delete_quarantined, cut, piece_s)
    forgotten: list[tuple[str, int]] = []
    await platform.in_transaction(lambda connection, now: forgotten.extend(_delete_versions(connection, cut)))
    platform.store.functions.forget(forgotten)
    async with platform.code_lock:
        needed = _needed_code(platform.store.connection)
        await asyncio.to_thread(_delete_code, platform.code, needed)


async def _in_pieces(
    platform: LocalPlatform, delete: Callable[[sqlite3.Connection, int, int], int], cut: int, piece_s: float
) -> None:
    position, began = 0, 0.0

    def piece(connection: sqlite3.Connection, now: int) -> None:
        nonlocal position, began
        began = time.perf_counter()
        _keep_counters(connection)
        while True:
            position = delete(connection, cut, position)
            if position < 0 or time.perf_counter() - began >= piece_s:
                return

    while position >= 0:
        await platform.in_transaction(piece)
        took_s = time.perf_counter() - began  # with the commit and the rest of the batch
        await rest(platform, took_s)


async def rest(platform: LocalPlatform, took_s: float) -> None:
    """Pauses before the next piece."""
    before = platform.batches.begun
    await asyncio.sleep(_PAUSE * took_s)
    if platform.batches.begun > before:
        await asyncio.sleep((_BUSY_PAUSE - _PAUSE) * took_s)


def _keep_counters(connection: sqlite3.Connection) -> None:
    """Stores the highest row numbers before rows are deleted, so that none is used twice."""
    for table in ("events", "runs"):
        connection.execute(
            f"INSERT OR REPLACE INTO counters SELECT '{table}', max(coalesce(max(seq), 0),"
            f" coalesce((SELECT value FROM counters WHERE name = '{table}'), 0)) FROM {table}"
        )


def _delete_runs(files: list[str], connection: sqlite3.Connection, cut: int, after: int) -> int:
    """Deletes old ended runs among the next rows. Returns the position to continue after; -1 at the end.

    Appends to `files` the names of log files to be removed. A run that has ended has no waits."""
    rows = connection.execute(
        "SELECT seq, created_at, ended_at, active FROM runs WHERE seq > ? ORDER BY seq LIMIT ?", (after, _AT_ONCE)
    ).fetchall()
    old = [(seq,) for seq, _, ended_at, active in rows if ended_at is not None and ended_at < cut and not active]
    for (seq,) in old:
        files += take_log_files(connection, seq)
    delete_long_texts(connection, [seq for (seq,) in old])
    connection.executemany("DELETE FROM singletons WHERE run = (SELECT id FROM runs WHERE seq = ?)", old)
    for table in ("logs", "attempts", "timers"):
        connection.executemany(f"DELETE FROM {table} WHERE run = ?", old)
    connection.executemany("DELETE FROM runs WHERE seq = ?", old)
    return -1 if len(rows) < _AT_ONCE or rows[-1][1] >= cut else rows[-1][0]


def _delete_events(connection: sqlite3.Connection, cut: int, after: int) -> int:
    """Deletes old, unneeded events among the next rows. Returns the position to continue after; -1 at the end."""
    rows = connection.execute(
        "SELECT seq, accepted_at, EXISTS (SELECT 1 FROM runs WHERE runs.event = events.seq)"
        " OR EXISTS (SELECT 1 FROM kept WHERE kept.event = events.seq)"
        " OR EXISTS (SELECT 1 FROM unrouted WHERE unrouted.name = events.name AND unrouted.event = events.seq)"
        " FROM events"
        " WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, _AT_ONCE),
    ).fetchall()
    # An open run may still look for events that came after the trigger.
    (oldest,) = connection.execute('SELECT min("after") FROM runs WHERE status = 0').fetchone()
    old = [
        (seq,)
        for seq, accepted_at, used in rows
        if accepted_at < cut and not used and (oldest is None or seq <= oldest)
    ]
    connection.executemany("DELETE FROM event_keys WHERE event = ?", old)
    connection.executemany("DELETE FROM events WHERE seq = ?", old)
    return -1 if len(rows) < _AT_ONCE or rows[-1][1] >= cut else rows[-1][0]


def _delete_expired(
    delete: Callable[[sqlite3.Connection, int, int], bool], connection: sqlite3.Connection, now: int, after: int
) -> int:
    return 0 if delete(connection, now, _AT_ONCE) else -1


def _delete_quarantined(connection: sqlite3.Connection, cut: int, after: int) -> int:
    sql = "DELETE FROM quarantine WHERE seq IN (SELECT seq FROM quarantine WHERE at < ? LIMIT ?)"
    return 0 if connection.execute(sql, (cut, _AT_ONCE)).rowcount == _AT_ONCE else -1


def _delete_versions(connection: sqlite3.Connection, cut: int) -> list[tuple[str, int]]:
    unused: list[tuple[str, int]] = connection.execute(
        "SELECT function, version FROM versions WHERE NOT EXISTS (SELECT 1 FROM runs WHERE"
        " runs.function = versions.function AND runs.version = versions.version)"
        " AND version < (SELECT max(version) FROM versions AS newer WHERE newer.function = versions.function)"
        " AND NOT EXISTS (SELECT 1 FROM functions WHERE id = versions.function AND version IN"
        " (live, json_extract(routing, '$.canary.version')))"
        " AND created_at < ?",
        (cut,),
    ).fetchall()
    connection.executemany("DELETE FROM versions WHERE function = ? AND version = ?", unused)
    return unused


def _needed_code(connection: sqlite3.Connection) -> set[str]:
    """Names of the entries in the code folder that versions need: code by hash, and pushed archives."""
    rows = connection.execute("SELECT function, version, code FROM versions").fetchall()
    return {name for f, v, code in rows for name in (*orjson.loads(code).values(), pushed_name(f, v))}


def _delete_code(folder: Path, needed: set[str]) -> None:
    if not folder.is_dir():
        return
    with code_free(folder) as is_free:  # false while a backup copies the code: the next round deletes it
        for entry in folder.iterdir() if is_free else ():
            if entry.name in needed:
                continue
            if entry.suffix == ".zip":
                entry.unlink()
            elif len(entry.name) == 64 or entry.name.startswith(CHANGED):
                remove(entry)
