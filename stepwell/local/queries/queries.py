"""Lists and details for the API. Only reads, on connections of its own."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import orjson

from stepwell.api.approvals.approvals import messages_of
from stepwell.core.events.events import Event
from stepwell.core.plan import Plan
from stepwell.core.routing.guard import RunSample
from stepwell.core.routing.not_started import whole_misses, with_keepers
from stepwell.core.run.messages import TimerKind
from stepwell.core.run.run import RunStatus
from stepwell.local.database.lists import LAST, Filters, ListQuery, choose_events_path, choose_runs_path
from stepwell.local.database.log_files import log_folder, read_logs
from stepwell.local.database.not_started_tables import table_entries
from stepwell.local.database.row_ranges import row_range
from stepwell.local.database.schema import connect
from stepwell.local.queries.run_details import RunDetails, mismatches_of
from stepwell.local.queries.run_texts import RunRow, RunTexts
from stepwell.local.store.functions import read_samples
from stepwell.local.store.limit_rows import waiting_for
from stepwell.local.store.live_functions import read_routing
from stepwell.local.store.users import ids_of_user
from stepwell.reader import EventDetail, FunctionDetail, Page, RunDetail, RunQuery, VersionDetail

_COLUMNS = "runs.seq, runs.id, function, version, events.id, runs.user, rerun_of, runs.replay, state, active, ended_at"
_RUN = f"SELECT {_COLUMNS} FROM runs"
_JOIN_EVENT = " CROSS JOIN events ON events.seq = runs.event"
_WHOLE_RUN = f'SELECT {_COLUMNS}, body, runs."after" FROM runs{_JOIN_EVENT}'
ERASURES = "SELECT value FROM counters WHERE name = 'erasures'"
_MOST_MISSES = 21  # of an event in `dev`: one more than are shown by name
_EVENT = "SELECT seq, body, accepted_at, misses, replay, invalid FROM events"
_SHOWN_WHOLE = 16 * 1024  # bytes; of a longer event, `dev` shows id and name only
_TAIL = (
    f"SELECT seq, replay, id, name, CASE WHEN length(body) > {_SHOWN_WHOLE} AND name NOT GLOB 'stepwell/*' THEN NULL"
    " ELSE body END, accepted_at, misses, replay, invalid FROM events WHERE seq > ? ORDER BY seq DESC LIMIT ?"
)


class Queries:
    """Implements `platform.Reader`. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._details = RunDetails()
        self._texts = RunTexts()

    @property
    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection = connect(self._path, read_only=True)
        connection: sqlite3.Connection = self._local.connection
        return connection

    @property
    def connection(self) -> sqlite3.Connection:
        """The calling thread's connection, for queries in other modules."""
        return self._connection

    def _user_filter(self, user: str | None) -> list[str] | None:
        """All values that a column `user` may have for this user; None for no filter."""
        return None if user is None else ids_of_user(self._connection, user)

    def _event_filter(self, event_id: str | None) -> list[int] | None:
        """The event's row number in a list; an empty list if it does not exist, None for no filter."""
        if event_id is None:
            return None
        rows = self._connection.execute("SELECT seq FROM events WHERE id = ?", (event_id,))
        return [seq for (seq,) in rows]

    # --- events ----------------------------------------------------------------------------------------------------

    def read_events(
        self,
        *,
        name: str | None = None,
        user: str | None = None,
        since: int | None = None,
        until: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page[EventDetail]:
        first, before = row_range(self._connection, "events", "accepted_at", (since, until), before)
        filters = _filters({"name": _one_value(name), "user": self._user_filter(user)})
        query = ListQuery(_EVENT, "", "seq", filters)
        rows = query.read(self._connection, choose_events_path(self._connection, filters), first, before, limit + 1)
        return Page([self._event(row) for row in rows[:limit]], rows[limit - 1][0] if len(rows) > limit else None)

    def _event(self, row: tuple[Any, ...], most_misses: int | None = None) -> EventDetail:
        seq, body, accepted_at, misses, replay, invalid = row
        misses = whole_misses(misses, lambda number: table_entries(self._connection, number), most_misses)
        return EventDetail(Event.stored(seq, body), accepted_at, misses, replay, invalid)

    def read_event(self, event_id: str) -> EventDetail | None:
        row = self._connection.execute(f"{_EVENT} WHERE id = ?", (event_id,)).fetchone()
        if row is None:
            return None
        detail = self._event(row)
        return replace(detail, misses=with_keepers(detail.misses, self.functions_holding(row[0])))

    def read_tail(self, after: int, limit: int) -> list[tuple[EventDetail, dict[str, str]]]:
        """The newest events after a position, oldest first, each with the runs that it started, by function.

        At most `_MOST_MISSES` functions that an event did not start are included. Long events have no data and user."""
        rows = self._connection.execute(_TAIL, (after, limit)).fetchall()
        sql = "SELECT function, id FROM runs WHERE event = ? AND rerun_of IS NULL AND (replay IS NULL OR replay = ?)"
        starts = [dict(self._connection.execute(sql, row[:2])) for row in rows]
        details = [
            self._event((seq, body or _brief(event_id, name), *rest), _MOST_MISSES)
            for seq, _, event_id, name, body, *rest in rows
        ]
        return list(zip(details[::-1], starts[::-1], strict=True))

    def functions_holding(self, event: int) -> list[str]:
        """The paused functions for which an event is held, by the event's row number."""
        rows = self._connection.execute("SELECT function FROM kept WHERE event = ? ORDER BY function", (event,))
        return [function for (function,) in rows]

    def is_unrouted(self, name: str, event: int) -> bool:
        """Whether an event has yet to start runs or wake waits, by the event's row number."""
        sql = "SELECT 1 FROM unrouted WHERE name = ? AND event = ?"
        return self._connection.execute(sql, (name, event)).fetchone() is not None

    # --- runs ------------------------------------------------------------------------------------------------------

    def read_runs(self, **query: Unpack[RunQuery]) -> Page[RunDetail]:
        with self._snapshot() as connection:
            page = self._run_rows(query)
            return Page(self._details.of(connection, page.items), page.next)

    def read_run_texts(self, view: Callable[[RunDetail], bytes], **query: Unpack[RunQuery]) -> Page[bytes]:
        with self._snapshot() as connection:
            page = self._run_rows(query)
            (erasures,) = connection.execute(ERASURES).fetchone() or (0,)
            texts: dict[int, bytes] = {}
            for row in page.items:
                if (text := self._texts.get(row.key, erasures)) is not None:
                    texts[row.seq] = text
            unknown = [row for row in page.items if row.seq not in texts]
            for row, detail in zip(unknown, self._details.of(connection, unknown), strict=True):
                texts[row.seq] = view(detail)
                if row.is_over:
                    self._texts.put(row.key, texts[row.seq], erasures)
        return Page([texts[row.seq] for row in page.items], page.next)

    def _run_rows(self, query: RunQuery) -> Page[RunRow]:
        status, limit = query.get("status"), query.get("limit", 50)
        times = query.get("since"), query.get("until")
        first, before = row_range(self._connection, "runs", "created_at", times, query.get("before"))
        filters = _filters(
            {
                "function": _one_value(query.get("function")),
                "status": _one_value(None if status is None else int(status)),
                "runs.user": self._user_filter(query.get("user")),
                "runs.event": self._event_filter(query.get("event")),
                "runs.replay": _one_value(query.get("replay")),
            }
        )
        path = choose_runs_path(self._connection, filters)
        rows = ListQuery(_RUN, _JOIN_EVENT, "runs.seq", filters).read(self._connection, path, first, before, limit + 1)
        return Page([RunRow(*row) for row in rows[:limit]], rows[limit - 1][0] if len(rows) > limit else None)

    def read_run(self, run_id: str) -> RunDetail | None:
        return self._read_run(run_id, with_logs=True)

    def read_asked(self, run_id: str) -> RunDetail | None:
        """A run with the messages of approvals, without logs."""
        return self._read_run(run_id, with_logs=False)

    def _read_run(self, run_id: str, *, with_logs: bool) -> RunDetail | None:
        with self._snapshot() as connection:
            found = connection.execute(f"{_WHOLE_RUN} WHERE runs.id = ?", (run_id,)).fetchone()
            if found is None:
                return None
            *columns, body, after = found
            row = RunRow(*columns)
            (detail,) = self._details.of(connection, [row])
            asked = messages_of(detail.plan, detail.run, detail.attempts, lambda: orjson.loads(body))
            if not with_logs:
                return replace(detail, asked=asked)
            mismatches = mismatches_of(connection, detail, orjson.loads(body), after)
            logs = read_logs(connection, log_folder(self._path), row.seq)
            may_wait = detail.run.status is RunStatus.RUNNING and detail.plan.has_limits
            waiting = waiting_for(connection, run_id) if may_wait else {}
            return replace(detail, asked=asked, logs=logs, mismatches=mismatches, waiting=waiting)

    def read_asking(self, before: int | None, limit: int) -> Page[RunDetail]:
        """Runs with open approvals, newest first. Each open approval has a timer, which is found here."""
        sql = (
            f"{_WHOLE_RUN} WHERE runs.seq IN (SELECT DISTINCT run FROM timers WHERE kind = {int(TimerKind.DECISION)}"
            " AND run < ? ORDER BY run DESC LIMIT ?) ORDER BY runs.seq DESC"
        )
        with self._snapshot() as connection:
            rows = connection.execute(sql, (LAST if before is None else before, limit + 1)).fetchall()
            runs = []
            details = self._details.of(connection, [RunRow(*columns) for *columns, _, _ in rows[:limit]])
            for run_detail, (*_, body, _) in zip(details, rows, strict=False):
                asked = messages_of(run_detail.plan, run_detail.run, run_detail.attempts, partial(orjson.loads, body))
                runs.append(replace(run_detail, asked=asked))
        return Page(runs, rows[limit - 1][0] if len(rows) > limit else None)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: a run's state and attempts must be read at the same moment."""
        connection = self._connection
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    def _plan(self, function: str, version: int) -> Plan:
        return self._details.plan(self._connection, function, version)

    # --- functions -------------------------------------------------------------------------------------------------

    def read_functions(self) -> list[FunctionDetail]:
        ids = self._connection.execute("SELECT id FROM functions WHERE live IS NOT NULL ORDER BY id").fetchall()
        return [detail for (i,) in ids if (detail := self.read_function(i)) is not None]

    def read_function(self, function_id: str) -> FunctionDetail | None:
        execute = self._connection.execute
        routing = read_routing(self._connection, function_id)
        if routing is None:
            return None
        sql = "SELECT version, created_at, hash, author, message FROM versions WHERE function = ? ORDER BY version"
        versions = [VersionDetail(*row) for row in execute(sql, (function_id,))]
        shown = next((version for version in versions if version.number == routing.live), versions[-1])
        sql = "SELECT definition FROM versions WHERE function = ? AND version = ?"
        (definition,) = execute(sql, (function_id, shown.number)).fetchone()
        sql = "SELECT count(*) FROM waits WHERE function = ? AND key = x''"
        (by_name,) = execute(sql, (function_id,)).fetchone()
        return FunctionDetail(function_id, shown.created_at, definition, versions, routing, by_name)

    def read_samples(self, function_id: str, limit: int) -> list[RunSample]:
        return read_samples(self._connection, function_id, limit)


def _brief(event_id: str, name: str) -> bytes:
    """A minimal body, for an event whose data and user are not read."""
    return orjson.dumps({"name": name, "id": event_id, "ts": 0})


def _one_value(value: Any) -> list[Any] | None:
    return None if value is None else [value]


def _filters(values: Mapping[str, Sequence[Any] | None]) -> Filters:
    return {column: items for column, items in values.items() if items is not None}
