"""Sources and the quarantine in SQLite. A source from a file is removed when it disappears from the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stepwell.core.sources.records import Record

if TYPE_CHECKING:
    from stepwell.core.sources.source import NoEvent

Json = dict[str, Any]

_COLUMNS = "definition, file, changed_at, is_paused, identity, replay"
_PUT = "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?)"
_QUARANTINE = (
    "INSERT INTO quarantine (source, record, at, kind, field, why, content) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (source, record) DO UPDATE SET kind = excluded.kind, field = excluded.field, why = excluded.why"
)


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay in progress: records before `until` get ids that end with `token`."""

    token: str
    until: Any


@dataclass(frozen=True, slots=True)
class StoredSource:
    """`identity`: made when the source is stored first. `file`: where it comes from; None: it was put by the API."""

    definition: Json
    file: str | None
    changed_at: int
    is_paused: bool
    identity: str
    replay: Replay | None

    @property
    def name(self) -> str:
        return str(self.definition["name"])


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that made no event, with the reason and the time (ms). `number` orders the records of all sources."""

    number: int
    source: str
    at: int
    kind: str
    field: str
    why: str
    record: Record


def read_sources(connection: sqlite3.Connection) -> list[StoredSource]:
    """All sources, ordered by name."""
    return [_source(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM sources ORDER BY name")]


def read_source(connection: sqlite3.Connection, name: str) -> StoredSource | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM sources WHERE name = ?", (name,)).fetchone()
    return None if row is None else _source(row)


def _source(row: Sequence[Any]) -> StoredSource:
    definition, file, changed_at, is_paused, identity, replay = row
    found = None if replay is None else Replay(**orjson.loads(replay))
    return StoredSource(orjson.loads(definition), file, changed_at, bool(is_paused), identity, found)


def write_source(connection: sqlite3.Connection, source: StoredSource) -> None:
    replay = (
        None if source.replay is None else orjson.dumps({"token": source.replay.token, "until": source.replay.until})
    )
    definition = orjson.dumps(source.definition)
    values = (source.name, definition, source.file, source.changed_at, source.is_paused, source.identity, replay)
    connection.execute(_PUT, values)


def delete_source(connection: sqlite3.Connection, name: str) -> None:
    """Removes a source and its quarantined records."""
    connection.execute("DELETE FROM sources WHERE name = ?", (name,))
    connection.execute("DELETE FROM quarantine WHERE source = ?", (name,))


def put_in_quarantine(
    connection: sqlite3.Connection, source: str, refused: Sequence[tuple[Record, NoEvent]], now: int
) -> None:
    """Keeps records that made no event. A record that is there already gets the new reason, and keeps its time."""
    connection.executemany(
        _QUARANTINE,
        [(source, r.id, now, reason.kind, reason.field, reason.why, r.stored()) for r, reason in refused],
    )


def read_quarantine(connection: sqlite3.Connection, source: str, before: int | None, limit: int) -> list[Quarantined]:
    """Records of a source's quarantine, newest first."""
    rows = connection.execute(
        "SELECT seq, source, at, kind, field, why, content FROM quarantine WHERE source = ? AND seq < ?"
        " ORDER BY seq DESC LIMIT ?",
        (source, 2**62 if before is None else before, limit),
    )
    return [_quarantined(row) for row in rows]


def read_quarantined(connection: sqlite3.Connection, source: str, number: int) -> Quarantined | None:
    row = connection.execute(
        "SELECT seq, source, at, kind, field, why, content FROM quarantine WHERE seq = ? AND source = ?",
        (number, source),
    ).fetchone()
    return None if row is None else _quarantined(row)


def count_quarantined(connection: sqlite3.Connection, source: str) -> int:
    (count,) = connection.execute("SELECT count(*) FROM quarantine WHERE source = ?", (source,)).fetchone()
    return int(count)


def delete_quarantined(connection: sqlite3.Connection, source: str, numbers: Sequence[int]) -> None:
    connection.executemany("DELETE FROM quarantine WHERE seq = ? AND source = ?", [(n, source) for n in numbers])


def _quarantined(row: Sequence[Any]) -> Quarantined:
    number, source, at, kind, field, why, content = row
    return Quarantined(number, source, at, kind, field, why, Record.of_stored(content))
