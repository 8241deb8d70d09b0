"""Lists of events and runs, newest first: how each list chooses an index, and the SQL statement.

The cost of a page is proportional to the rows that it shows. Rows are read by descending number along one index, and
nothing is sorted. If a list needs several ranges of an index (a user's ids, a function's versions), they are merged.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stepwell.core.run.run import RunStatus

_FEW = 200  # events; filtering so many takes no longer than to show a page
LAST = 2**63 - 1  # above the number of any row, and later than any time

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class AccessPath:
    """How the rows of a list are found. `condition` is served by the index, in the order of row numbers, once for each
    of `keys`; each row belongs to one key. It covers all filters on `columns`. Without an index, all rows are read."""

    index: str | None = None
    condition: str = ""
    keys: Sequence[Row] = ((),)
    columns: Sequence[str] = ()

    @property
    def source(self) -> str:
        """The SQL after the table's name. It names the index, because SQLite would choose by the average user or
        function, and the largest ones are far from the average. https://www.sqlite.org/lang_indexedby.html"""
        return f"INDEXED BY {self.index}" if self.index else "NOT INDEXED"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The statement of a list. `number` is the column of row numbers, and the first one in `select`. `filters` maps
    columns to their allowed values."""

    select: str
    join: str
    number: str
    filters: Mapping[str, Sequence[Any]]

    def read(
        self, connection: sqlite3.Connection, path: AccessPath, first: int | None, before: int | None, limit: int
    ) -> list[Row]:
        """At most `limit` rows with a number from `first` up to but not including `before`, newest first."""
        left = {column: values for column, values in self.filters.items() if column not in path.columns}
        conditions = [path.condition] if path.condition else []
        conditions += [f"{self.number} >= ?", f"{self.number} < ?"]
        conditions += [f"{column} IN ({placeholders(values)})" for column, values in left.items()]
        sql = (
            f"{self.select} {path.source}{self.join} WHERE {' AND '.join(conditions)}"
            f" ORDER BY {self.number} DESC LIMIT ?"
        )
        values = [value for values in left.values() for value in values]
        rest = (first or 0, LAST if before is None else before, *values, limit)
        return list(islice(merged(connection, sql, [(*key, *rest) for key in path.keys]), limit))


def merged(
    connection: sqlite3.Connection,
    sql: str,
    values: Iterable[Sequence[Any]],
    *,
    order: int = 1,
    ascending: bool = False,
) -> Iterator[Row]:
    """The rows of a statement for several parameter sets, merged by the first `order` columns. Each set's rows must be
    sorted by them. Rows are read lazily."""
    rows = [connection.execute(sql, value) for value in values]
    return heapq.merge(*rows, key=lambda row: row[:order], reverse=not ascending)


def placeholders(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


# --- choice of the index ---------------------------------------------------------------------------------------------

Filters = Mapping[str, Sequence[Any]]


def choose_events_path(connection: sqlite3.Connection, filters: Filters) -> AccessPath:
    """By user, usually the narrower index; by name if few events have the name, since a user may have very many."""
    users, names = filters.get("user"), filters.get("name")
    if names and (not users or _is_rare(connection, names[0])):
        return AccessPath("events_name", "name = ?", [tuple(names)], ["name"])
    if users:
        return AccessPath("events_user", "user = ?", [(user,) for user in users], ["user"])
    return AccessPath()


def _is_rare(connection: sqlite3.Connection, name: str) -> bool:
    sql = "SELECT count(*) FROM (SELECT 1 FROM events INDEXED BY events_name WHERE name = ? LIMIT ?)"
    (found,) = connection.execute(sql, (name, _FEW)).fetchone()
    return bool(found < _FEW)


def choose_runs_path(connection: sqlite3.Connection, filters: Filters) -> AccessPath:
    """The index that is usually the narrowest: by event, else by replay, user, function or status."""
    for column, index in (("runs.event", "runs_event"), ("runs.replay", "runs_replay"), ("runs.user", "runs_user")):
        if column in filters:
            return AccessPath(index, f"{column} = ?", [(item,) for item in filters[column]], [column])
    status = RunStatus(filters["status"][0]) if "status" in filters else None
    if "function" in filters:
        return _choose_function_path(connection, filters["function"][0], status)
    if status is None or status is RunStatus.COMPLETED:  # most runs have completed: no index is needed
        return AccessPath()
    return AccessPath("runs_status", f"status = {int(status)} AND status != 1", columns=["status"])


def _choose_function_path(connection: sqlite3.Connection, function: str, status: RunStatus | None) -> AccessPath:
    """The index for the runs of one function.

    Conditions repeat those of the partial indexes word for word. SQLite does not use a partial index for a `?`:
    https://www.sqlite.org/partialindex.html"""
    if status is RunStatus.RUNNING:
        condition = "function = ? AND version = ? AND status = 0"
        keys = [(function, version) for version in open_versions(connection, function)]
        return AccessPath("runs_open_version", condition, keys, ["function", "status"])
    if status is None or status is RunStatus.COMPLETED:
        keys = [(function, version) for version in used_versions(connection, function)]
        return AccessPath("runs_version", "function = ? AND version = ?", keys, ["function"])
    condition = f"function = ? AND status = {int(status)} AND status > 1"
    return AccessPath("runs_function_status", condition, [(function,)], ["function", "status"])


def used_versions(connection: sqlite3.Connection, function: str) -> list[int]:
    """The versions of a function that have runs."""
    sql = (
        "SELECT version FROM versions WHERE function = ? AND EXISTS (SELECT 1 FROM runs"
        " WHERE runs.function = versions.function AND runs.version = versions.version)"
    )
    return [version for (version,) in connection.execute(sql, (function,))]


def open_versions(connection: sqlite3.Connection, function: str) -> list[int]:
    """The versions of a function that have open runs."""
    sql = (
        "SELECT version FROM versions WHERE function = ? AND EXISTS (SELECT 1 FROM runs"
        " WHERE runs.function = versions.function AND runs.version = versions.version AND status = 0)"
    )
    return [version for (version,) in connection.execute(sql, (function,))]
