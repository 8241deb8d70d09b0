"""`/v1/users` on the local server: users, and the timeline of a user.

Rows are found by the text of an id. Another user may have an id of another kind with the same text, so the kind of the
id in the row's event is compared too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from stepwell.api.v1.timeline import EndedAttempt, Entry, Mark, UserRun, event_entry, run_entry, step_entry
from stepwell.api.v1.users import Erased, Seen
from stepwell.core.events.users import Person, owner, single_id_person, unpack
from stepwell.core.run.run import RunStatus
from stepwell.local.database.lists import LAST, merged
from stepwell.local.database.row_ranges import first_row
from stepwell.local.queries.queries import Queries
from stepwell.local.store.long_texts import whole
from stepwell.local.store.users import id_texts, read_person
from stepwell.reader import Page

_EVENTS = "SELECT seq, accepted_at, seq, id, name FROM events INDEXED BY events_user WHERE user = ? AND seq < ?"
_RUNS = (
    "SELECT runs.seq, runs.created_at, runs.event, runs.id, function, version, events.id, status, ended_at, rerun_of,"
    " runs.replay FROM runs INDEXED BY runs_user CROSS JOIN events ON events.seq = runs.event"
    " WHERE runs.user = ? AND runs.seq < ? ORDER BY runs.seq DESC"
)
_STEPS = (
    "SELECT attempts.ended_at, run, step, attempt, runs.event, runs.id, function, version, attempts.status,"
    f" {whole('error')}"
    " FROM attempts INDEXED BY attempts_user CROSS JOIN runs ON runs.seq = attempts.run"
    " WHERE attempts.user = ? AND attempts.ended_at <= ?"
    " ORDER BY attempts.ended_at DESC, run DESC, step DESC, attempt DESC"
)


class LocalUsers(Queries):
    """Implements `api.v1.users.Users`. `erase` blocks until the person is erased."""

    def __init__(self, path: Path, erase: Callable[[Person], Erased]) -> None:
        super().__init__(path)
        self._erase = erase

    def read_users(self, *, before: int | None, limit: int) -> Page[Person]:
        sql = "SELECT seq, record FROM people WHERE seq < ? ORDER BY seq DESC LIMIT ?"
        rows = self._connection.execute(sql, (LAST if before is None else before, limit + 1)).fetchall()
        people = [unpack(record) for _, record in rows[:limit]]
        return Page(people, rows[limit - 1][0] if len(rows) > limit else None)

    def find(self, text: str) -> Person | None:
        person = read_person(self._connection, text)
        if person is not None:
            return person
        sql = "SELECT body, accepted_at FROM events WHERE user = ? ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(sql, (text,)).fetchone()
        user_id = None if row is None else owner(orjson.loads(row[0])["user"])
        return None if user_id is None else single_id_person(user_id, row[1])

    def seen(self, person: Person) -> Seen:
        first = next(self._accepted(person, f"{_EVENTS} ORDER BY seq", ascending=True), person.since)
        return Seen(person, first, next(self._accepted(person, f"{_EVENTS} ORDER BY seq DESC"), person.since))

    def erase(self, person: Person) -> Erased:
        return self._erase(person)

    # --- what happened ---------------------------------------------------------------------------------------------

    def timeline(self, person: Person, *, before: Mark | None, limit: int) -> Sequence[Entry]:
        """The newest entries. Each kind of entry is read along an index, no further than the page needs."""
        until = LAST if before is None else before[0]
        with self._snapshot():
            kinds = (self._events(person, until), self._runs(person, until), self._steps(person, until))
            entries = heapq.merge(*kinds, key=lambda entry: entry.mark, reverse=True)
            return list(islice((entry for entry in entries if before is None or entry.mark < before), limit))

    def _events(self, person: Person, until: int) -> Iterator[Entry]:
        end = self._end("events", "accepted_at", until)
        rows = self._rows(person, f"{_EVENTS} ORDER BY seq DESC", end)
        for seq, at, _, event_id, name in self._own(person, rows, 2):
            yield event_entry(event_id, name, at, seq)

    def _runs(self, person: Person, until: int) -> Iterator[Entry]:
        rows = self._rows(person, _RUNS, self._end("runs", "created_at", until))
        for row in self._own(person, rows, 2):
            seq, at, _, run_id, function, version, event_id, status, ended_at, rerun_of, replay = row
            run = UserRun(run_id, function, version, event_id, RunStatus(status), ended_at, rerun_of, replay)
            yield run_entry(at, seq, run)

    def _steps(self, person: Person, until: int) -> Iterator[Entry]:
        for row in self._own(person, self._rows(person, _STEPS, until, order=4), 4):
            at, seq, step, attempt, _, run_id, function, version, status, error = row
            if attempt:  # 0 is a result that a rerun has kept
                plan = self._plan(function, version)
                yield step_entry(seq, EndedAttempt(run_id, function, plan, step, attempt, status, at, error))

    def _accepted(self, person: Person, sql: str, *, ascending: bool = False) -> Iterator[int]:
        rows = self._rows(person, sql, LAST, ascending=ascending)
        return (at for _, at, *_ in self._own(person, rows, 2))

    def _end(self, table: str, column: str, until: int) -> int:
        """The number of the first row later than `until`; times grow with row numbers."""
        return LAST if until == LAST else first_row(self._connection, table, column, until + 1)

    def _rows(
        self, person: Person, sql: str, bound: int, *, order: int = 1, ascending: bool = False
    ) -> Iterator[tuple[Any, ...]]:
        names = [(text, bound) for text in sorted(id_texts(person.ids))]
        return merged(self._connection, sql, names, order=order, ascending=ascending)

    def _own(self, person: Person, rows: Iterable[tuple[Any, ...]], event: int) -> Iterator[tuple[Any, ...]]:
        """The rows whose event (its row number is column `event`) belongs to this person, by text and kind of id."""
        known: dict[int, bool] = {}
        for row in rows:
            seq = row[event]
            if seq not in known:
                (body,) = self._connection.execute("SELECT body FROM events WHERE seq = ?", (seq,)).fetchone()
                known[seq] = owner(orjson.loads(body)["user"]) in person.ids
            if known[seq]:
                yield row
