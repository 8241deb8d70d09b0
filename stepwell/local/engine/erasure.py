"""Erases a person on the local server: stops the person's runs, then deletes stored data in pieces.

Rows stay, without their contents: so a repeated event is recognised as a duplicate, and each run has an event.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from stepwell.api.v1.users import Erased
from stepwell.api.views.user_models import ErasedCounts
from stepwell.core.events.events import Event, erased_body
from stepwell.core.events.users import Person, owner
from stepwell.core.events.users import unpack as unpack_person
from stepwell.core.run.inputs import erased_error
from stepwell.core.run.run import RunStatus, without_data
from stepwell.local.database.lists import merged
from stepwell.local.database.log_files import take_log_files
from stepwell.local.database.schema import forget_statistics
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.store.long_texts import delete_long_texts, whole
from stepwell.local.store.run_parts import read_run, write_whole
from stepwell.local.store.store import LocalStore
from stepwell.local.store.users import id_texts
from stepwell.platform import Effects

log = logging.getLogger("stepwell.erasure")

_PIECE = 200
_ERASED = "INSERT INTO counters VALUES ('erasures', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
_STOPPING_S = 10.0
_ENOUGH_S = 10.0  # of one request; the next request continues


@dataclass(slots=True)
class _Piece:
    """A person's next events after a position, and the runs of these: (row number, id, whether it has ended)."""

    events: list[Event] = field(default_factory=list)
    runs: list[tuple[int, str, bool]] = field(default_factory=list)
    last: int = -1


async def erase(platform: LocalPlatform, person: Person) -> Erased:
    """Erases a person; `is_done` is False if another call must continue. Raises Unavailable."""
    counts: ErasedCounts = {"events": 0, "runs": 0, "runs_cancelled": 0, "attempts": 0}
    after, deadline = 0, asyncio.get_running_loop().time() + _ENOUGH_S
    while (piece := await _find(platform, person, after)).last >= 0:
        open_runs = [run_id for _, run_id, is_over in piece.runs if not is_over]
        if open_runs:
            await asyncio.gather(*map(platform.runs.cancel, open_runs))
            counts["runs_cancelled"] += len(open_runs)
        is_late = asyncio.get_running_loop().time() > deadline
        if is_late or not await _is_stopped(platform, {run_id for _, run_id, _ in piece.runs}):
            return Erased(counts, is_done=False)
        await _redact(platform, piece, counts)
        after = piece.last
    await _forget(platform, person)
    await _wipe(platform)
    return Erased(counts, is_done=True)


async def _find(platform: LocalPlatform, person: Person, after: int) -> _Piece:
    piece = _Piece()
    names = [(text, after, _PIECE) for text in id_texts(person.ids)]

    def find(connection: sqlite3.Connection, now: int) -> None:
        sql = "SELECT seq, body FROM events INDEXED BY events_user WHERE user = ? AND seq > ? ORDER BY seq LIMIT ?"
        for seq, body in islice(merged(connection, sql, names, ascending=True), _PIECE):
            piece.last = seq
            event = Event.stored(seq, body)
            if owner(event.user) in person.ids:
                piece.events.append(event)
        for event in piece.events:
            runs = connection.execute("SELECT seq, id, status FROM runs WHERE event = ?", (event.position,))
            piece.runs += [(seq, run_id, status != RunStatus.RUNNING) for seq, run_id, status in runs]

    await platform.in_transaction(find)
    return piece


async def _is_stopped(platform: LocalPlatform, runs: set[str]) -> bool:
    """Stops the running attempts of these runs, and returns whether all have ended. Includes failed runs, since their
    attempts could write more data."""
    executor = platform.executor

    def stop(connection: sqlite3.Connection, now: int) -> None:
        stops = [attempt for attempt in executor.running if attempt[0] in runs]
        executor.carry_out(Effects(stops=stops))

    await platform.in_transaction(stop)
    deadline = asyncio.get_running_loop().time() + _STOPPING_S
    while any(attempt[0] in runs for attempt in executor.running):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def _redact(platform: LocalPlatform, piece: _Piece, counts: ErasedCounts) -> None:
    files: list[str] = []

    def redact(connection: sqlite3.Connection, now: int) -> None:
        files.extend(platform.store.forget([(seq, run_id) for seq, run_id, _ in piece.runs]))
        for event in piece.events:
            _release_claims(platform.store, event)
        for seq, run_id, _ in piece.runs:
            files.extend(take_log_files(connection, seq))
            counts["attempts"] += _redact_run(connection, seq, run_id)
        for event in piece.events:
            sql = "UPDATE events SET user = NULL, misses = NULL, invalid = NULL, body = ? WHERE seq = ?"
            connection.execute(sql, (erased_body(event), event.position))
            connection.execute("DELETE FROM event_keys WHERE event = ?", (event.position,))
        connection.execute(_ERASED)
        counts["runs"] += len(piece.runs)
        counts["events"] += len(piece.events)

    try:
        await platform.in_transaction(redact)
    finally:  # also if the batch could not be written: no file may stay without a row
        await platform.log_files.remove(files)


def _release_claims(store: LocalStore, event: Event) -> None:
    """Releases the values that the event's runs claimed: digests of the values are stored."""
    sql = "SELECT id, function, version FROM runs WHERE event = ?"
    for run_id, function, version in store.connection.execute(sql, (event.position,)).fetchall():
        store.checks.forget(store.functions.plan(function, version), event, run_id)


def _redact_run(connection: sqlite3.Connection, seq: int, run_id: str) -> int:
    """Erases the data of a run. Returns the number of attempts."""
    (state,) = connection.execute("SELECT state FROM runs WHERE seq = ?", (seq,)).fetchone()
    write_whole(connection, {seq: without_data(read_run(connection, seq, run_id, state))})
    connection.execute("UPDATE runs SET user = NULL WHERE seq = ?", (seq,))
    connection.execute("DELETE FROM logs WHERE run = ?", (seq,))
    sql = f"SELECT {whole('error')}, step, attempt FROM attempts WHERE run = ?"
    attempts = connection.execute(sql, (seq,)).fetchall()
    rows = [(None if error is None else erased_error(error), seq, step, attempt) for error, step, attempt in attempts]
    sql = "UPDATE attempts SET output = NULL, error = ?, user = NULL WHERE run = ? AND step = ? AND attempt = ?"
    connection.executemany(sql, rows)
    delete_long_texts(connection, [seq])
    return len(rows)


async def _forget(platform: LocalPlatform, person: Person) -> None:
    def forget(connection: sqlite3.Connection, now: int) -> None:
        _delete_person(connection, sorted(person.ids))
        forget_statistics(connection)  # they may contain sampled values
        platform.store.users.forget()

    await platform.in_transaction(forget)


async def _wipe(platform: LocalPlatform) -> None:
    """Removes what deleted rows have left in the database's files."""
    try:
        await platform.exclusively(platform.wal.wipe)
        await platform.wal.shrink_soon()
    except sqlite3.Error as error:
        log.warning("the database's files may contain traces of erased data, erase once more: %s", error)


def _delete_person(connection: sqlite3.Connection, ids: Sequence[tuple[int, str]]) -> None:
    rows = [
        connection.execute("SELECT person FROM person_ids WHERE kind = ? AND text = ?", pair).fetchone() for pair in ids
    ]
    for (seq,) in {row for row in rows if row is not None}:
        (record,) = connection.execute("SELECT record FROM people WHERE seq = ?", (seq,)).fetchone()
        sql = "DELETE FROM person_ids WHERE kind = ? AND text = ? AND person = ?"
        connection.executemany(sql, [(*user_id, seq) for user_id in unpack_person(record).ids])
        connection.execute("DELETE FROM people WHERE seq = ?", (seq,))
