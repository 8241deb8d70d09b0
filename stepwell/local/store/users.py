"""Users in SQLite: a user is one row with a record, and each id of the user points to that row.

The single writer caches users. An event that contains nothing new about the user costs no statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from stepwell.core.events.events import Event
from stepwell.core.events.users import Person, UserId, fold, identity_claim, pack, unpack

_MOST = 10_000  # ids kept in memory

_FIND = "SELECT seq, record FROM person_ids CROSS JOIN people ON people.seq = person WHERE kind = ? AND text = ?"


class UserIndex:
    """Writes users within the store's batch."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cache: dict[UserId, tuple[int, Person]] = {}  # row number and record

    def forget(self) -> None:
        """Clears the cache, after a change to the file that did not go through this object."""
        self._cache.clear()

    def record(self, event: Event, position: int, now: int) -> None:
        """Stores what an event contains about the user, if that is new. `position` is where the event is accepted."""
        claim = identity_claim(event)
        if claim is None:
            return
        rows = {user_id: row for user_id in (*claim.ids, *claim.previous) if (row := self._find(user_id)) is not None}
        person = fold(claim, position, now, {user_id: person for user_id, (_, person) in rows.items()})
        if any(person == item for _, item in rows.values()):
            return
        seq = self._write(person, sorted({seq for seq, item in rows.values() if item.ids <= person.ids}))
        if len(self._cache) > _MOST:
            self._cache.clear()
        self._cache.update(dict.fromkeys(person.ids, (seq, person)))

    def _write(self, person: Person, seqs: list[int]) -> int:
        """Stores the record in the oldest of the rows that it replaces. Returns the row number."""
        execute = self._connection.execute
        if seqs:
            execute("UPDATE people SET record = ? WHERE seq = ?", (pack(person), seqs[0]))
        else:
            seqs = [execute("INSERT INTO people (record) VALUES (?)", (pack(person),)).lastrowid or 0]
        self._connection.executemany("DELETE FROM people WHERE seq = ?", [(seq,) for seq in seqs[1:]])
        ids = [(user_id.kind, user_id.text, seqs[0]) for user_id in person.ids]
        self._connection.executemany("INSERT OR REPLACE INTO person_ids VALUES (?, ?, ?)", ids)
        return seqs[0]

    def _find(self, user_id: UserId) -> tuple[int, Person] | None:
        known = self._cache.get(user_id)
        if known is not None:
            return known
        row = self._connection.execute(_FIND, user_id).fetchone()
        return None if row is None else (row[0], unpack(row[1]))


def read_person(connection: sqlite3.Connection, text: str) -> Person | None:
    """The user with this id. If several kinds of id have the same text, the first kind counts."""
    sql = "SELECT record FROM person_ids CROSS JOIN people ON people.seq = person WHERE text = ? ORDER BY kind LIMIT 1"
    row = connection.execute(sql, (text,)).fetchone()
    return None if row is None else unpack(row[0])


def ids_of_user(connection: sqlite3.Connection, text: str) -> list[str]:
    """All ids of the user who has this one, as lists may store them."""
    person = read_person(connection, text)
    return sorted({text} | id_texts(person.ids if person else ()))


def id_texts(ids: Iterable[UserId]) -> set[str]:
    return {user_id.text for user_id in ids}
