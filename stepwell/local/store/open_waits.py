"""Open waits in SQLite: found by their key, or by the event's name alone.

Many waits may have the same name and no key. Each stores the values of the run that `match` refers to, so that most
are ruled out without loading the run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from stepwell.core.events.events import Event
from stepwell.core.plan import Plan
from stepwell.core.routing.wait_conditions import OpenMatch, known_json
from stepwell.core.run.messages import OpenWait
from stepwell.platform import FoundWaits, OpenedWait, RunRecord, WaitPlace

FOUND_AT_ONCE = 50
_SCANNED = 500  # waits of one name in one call
_EVALUATED = 100  # of these, waits with one `match` whose expression must be evaluated
_COMPARED_PER_WAKE = 20  # waits that are compared in the time that it takes to wake one
_START = (b"", -1, -1)

_BY_NAME = (
    "SELECT run, pause, deadline, function, version, known FROM waits WHERE event = ? AND key = x''"
    " AND (run, pause) > (?, ?) ORDER BY run, pause LIMIT ?"
)


class OpenWaits:
    """Opens, closes and finds waits. `plan` returns the plan of a function's version."""

    def __init__(self, connection: sqlite3.Connection, plan: Callable[[str, int], Plan]) -> None:
        self._connection, self._plan = connection, plan

    def open(self, run: int, record: RunRecord, command: OpenWait) -> None:
        """Stores a wait. `run` is the row number of the run, `record` the run itself."""
        plan, pause, known = record.plan, command.pause, None
        if command.key is None:
            known = known_json(plan, pause, record.event.as_json(), record.outputs, record.errors)
        row = (plan.pauses[pause].event, command.key or b"", run, pause, command.deadline)
        self._connection.execute(
            "INSERT OR REPLACE INTO waits (event, key, run, pause, deadline, function, version, known)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, plan.function_id, plan.version, known),
        )

    def close(self, run: int, record: RunRecord, pause: int) -> None:
        key = record.run.pauses[pause].key or b""
        sql = "DELETE FROM waits WHERE event = ? AND key = ? AND run = ? AND pause = ?"
        self._connection.execute(sql, (record.plan.pauses[pause].event, key, run, pause))

    def find(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None) -> FoundWaits:
        """The next waits after `behind` that an event may satisfy."""
        key, run, pause = behind or _START
        found, effort = list[OpenedWait](), 1
        if key == b"":
            by_name = self._find_by_name(event, run, pause)
            if not by_name.is_all:
                return by_name
            found, effort = list(by_name.waits), by_name.effort
        else:
            found += self._find("key = ? AND (run, pause) > (?, ?)", event, [key, run, pause], FOUND_AT_ONCE)
        others = [content for content in keys if content > key]
        if others and len(found) < FOUND_AT_ONCE:
            where = f"key IN ({','.join('?' * len(others))})"
            found += self._find(where, event, others, FOUND_AT_ONCE - len(found))
        return FoundWaits(found, len(found) < FOUND_AT_ONCE, effort)

    def _find(self, where: str, event: Event, values: Sequence[Any], most: int) -> list[OpenedWait]:
        sql = (
            "SELECT runs.id, pause, deadline, key, run FROM waits JOIN runs ON runs.seq = waits.run"
            f" WHERE waits.event = ? AND {where} ORDER BY key, run, pause LIMIT ?"
        )
        rows = self._connection.execute(sql, (event.name, *values, most))
        return [OpenedWait(run_id, pause, due, (key, run, pause)) for run_id, pause, due, key, run in rows]

    def _find_by_name(self, event: Event, run: int, pause: int) -> FoundWaits:
        """The next waits that are found by name. The result is partial when it reaches a limit of waits found, scanned
        or evaluated. The last scanned wait is then always included, since the next call continues behind it."""
        rows = self._connection.execute(_BY_NAME, (event.name, run, pause, _SCANNED))
        found, looked_at, is_all = list[OpenedWait](), 0, True
        matches: dict[tuple[str, int, int], OpenMatch] = {}
        for looked_at, (run, pause, deadline, function, version, known) in enumerate(rows, 1):
            is_all = looked_at < _SCANNED
            if known is not None:
                match = matches.get((function, version, pause))
                if match is None:
                    source = self._plan(function, version).pauses[pause].match
                    match = matches[function, version, pause] = OpenMatch(source or "true", event.as_json())
                may_satisfy = match.may_satisfy(known)
                is_all = is_all and match.evaluated < _EVALUATED
                if is_all and not may_satisfy:
                    continue
            (run_id,) = self._connection.execute("SELECT id FROM runs WHERE seq = ?", (run,)).fetchone()
            found.append(OpenedWait(run_id, pause, deadline, (b"", run, pause)))
            is_all = is_all and len(found) < FOUND_AT_ONCE
            if not is_all:
                break
        rows.close()
        evaluated = sum(match.evaluated for match in matches.values())
        return FoundWaits(found, is_all, 1 + looked_at // _COMPARED_PER_WAKE + evaluated)
