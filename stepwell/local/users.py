"""`/v1/users` on one machine: who they are, and what happened to them.

One rule: rows are found by the text of an id, and count only if their event belongs to the person by its kind as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from stepwell.api.users import Entry, Erased, Mark, Seen, event_entry, run_entry, step_entry
from stepwell.core.people import Person, alone, owner, unpack
from stepwell.core.run import RunStatus
from stepwell.local.people import read_person, texts
from stepwell.local.queries import Queries
from stepwell.platform import Page

_RUNS = (
    "SELECT runs.created_at, runs.seq, runs.event, runs.id, function, version, events.id, status, ended_at, rerun_of,"
    " runs.replay FROM runs JOIN events ON events.seq = runs.event"
)
_STEPS = (
    "SELECT attempts.ended_at, runs.seq, runs.event, runs.id, function, version, step, attempt, attempts.status, error"
    " FROM runs JOIN attempts ON attempts.run = runs.seq"
)


class LocalUsers(Queries):
    """Implements `api.users.Users`; `erase` is called for a person, and waits until it is done."""

    def __init__(self, path: Path, erase: Callable[[Person], Erased]) -> None:
        super().__init__(path)
        self._erase = erase

    def read_people(self, *, before: int | None, limit: int) -> Page[Person]:
        sql = "SELECT seq, record FROM people WHERE seq < ? ORDER BY seq DESC LIMIT ?"
        newest = 2**63 - 1 if before is None else before
        rows = self._connection.execute(sql, (newest, limit + 1)).fetchall()
        people = [unpack(record) for _, record in rows[:limit]]
        return Page(people, rows[limit - 1][0] if len(rows) > limit else None)

    def find(self, text: str) -> Person | None:
        person = read_person(self._connection, text)
        if person is not None:
            return person
        sql = "SELECT body, accepted_at FROM events WHERE user = ? ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(sql, (text,)).fetchone()
        its = None if row is None else owner(orjson.loads(row[0])["user"])
        return None if its is None else alone(its, row[1])

    def seen(self, person: Person) -> Seen:
        first, last = (next(self._accepted(person, order), person.since) for order in ("ASC", "DESC"))
        return Seen(person, first, last)

    def erase(self, person: Person) -> Erased:
        return self._erase(person)

    # --- what happened ---------------------------------------------------------------------------------------------

    def timeline(self, person: Person, *, before: Mark | None, limit: int) -> Sequence[Entry]:
        until = 2**62 if before is None else before[0]
        with self._snapshot():
            entries = heapq.merge(
                self._events(person, until),
                self._runs(person, until),
                self._steps(person, until),
                key=lambda entry: entry.mark,
                reverse=True,
            )
            return list(islice((entry for entry in entries if before is None or entry.mark < before), limit))

    def _events(self, person: Person, until: int) -> Iterator[Entry]:
        sql = "SELECT accepted_at, seq, seq, id, name FROM events"
        for at, seq, event_id, name in self._rows(person, sql, "events.user", "accepted_at", until, "seq"):
            yield event_entry(event_id, name, at, seq)

    def _runs(self, person: Person, until: int) -> Iterator[Entry]:
        for at, seq, run_id, function, version, event_id, status, ended_at, rerun_of, replay in self._rows(
            person, _RUNS, "runs.user", "runs.created_at", until, "runs.seq"
        ):
            yield run_entry(
                at, seq, run_id=run_id, function=function, version=version, event_id=event_id,
                status=RunStatus(status), ended_at=ended_at, rerun_of=rerun_of, replay=replay,
            )  # fmt: skip

    def _steps(self, person: Person, until: int) -> Iterator[Entry]:
        for at, seq, run_id, function, version, step, attempt, status, error in self._rows(
            person, _STEPS, "runs.user", "attempts.ended_at", until, "runs.seq", "step", "attempt"
        ):
            plan = self._plan(function, version)
            yield step_entry(
                seq, run_id=run_id, function=function, plan=plan, step=step, attempt=attempt, status=status,
                ended_at=at, error=error,
            )  # fmt: skip

    def _accepted(self, person: Person, order: str) -> Iterator[int]:
        marks, names = _in(person)
        sql = f"SELECT accepted_at, seq FROM events WHERE user IN ({marks}) ORDER BY seq {order}"
        return (at for at, seq in self._connection.execute(sql, names) if self._is_of(person, seq, {}))

    def _rows(self, person: Person, sql: str, user: str, at: str, until: int, *order: str) -> Iterator[tuple[Any, ...]]:
        """Time, position and the rest of each row whose third column is an event of this person; newest first."""
        marks, names = _in(person)
        ordered = ", ".join(f"{column} DESC" for column in (at, *order))
        found = self._connection.execute(
            f"{sql} WHERE {user} IN ({marks}) AND {at} <= ? ORDER BY {ordered}", (*names, until)
        )
        known: dict[int, bool] = {}
        return ((when, seq, *rest) for when, seq, event, *rest in found if self._is_of(person, event, known))

    def _is_of(self, person: Person, event: int, known: dict[int, bool]) -> bool:
        if event not in known:
            (body,) = self._connection.execute("SELECT body FROM events WHERE seq = ?", (event,)).fetchone()
            known[event] = owner(orjson.loads(body)["user"]) in person.ids
        return known[event]


def _in(person: Person) -> tuple[str, list[str]]:
    names = sorted(texts(person.ids))
    return ",".join("?" * len(names)), names
