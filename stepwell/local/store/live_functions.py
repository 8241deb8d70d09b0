"""The catalog of the functions in a database.

The cost of a change does not depend on the number of functions: only changed functions are read again, and a function
is compiled when it first runs.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator

import orjson

from stepwell.core.plan import Plan, Starts
from stepwell.core.routing.heads import Head, head_from, head_json
from stepwell.core.routing.triggers import Catalog, Paths
from stepwell.core.routing.versions import Route, Routing, from_json

_WaitPaths = dict[str, set[Paths | None]]


class LiveFunctions:
    """Keeps the catalog up to date. `plan` compiles a version."""

    def __init__(self, connection: sqlite3.Connection, plan: Callable[[str, int], Plan]) -> None:
        self._connection = connection

        def plan_of(starts: Starts) -> Plan:
            assert isinstance(starts, Head)
            return plan(starts.function_id, starts.version)

        self._catalog = Catalog((), plan=plan_of)
        self._changed: set[str] = set()
        self._is_read = False
        self._awaited: dict[str, _WaitPaths] = {}  # by function; only functions that wait for events

    def mark(self, function_id: str) -> None:
        """The function was changed, or a version without runs got one: read it again before the next event."""
        self._changed.add(function_id)

    @property
    def current(self) -> Catalog | None:
        """The catalog; None if it is not up to date."""
        return self._catalog if self._is_read and not self._changed else None

    def catalog(self) -> Catalog:
        for _ in self.read():
            pass
        return self._catalog

    def read(self) -> Iterator[None]:
        """Brings the catalog up to date, one function per step. Functions may be changed and read between steps."""
        if not self._is_read:
            self._changed |= self._all()
            self._is_read = True
        while self._changed:
            self._read_again(self._changed.pop())
            yield

    def prepare(self) -> Iterator[None]:
        """Like `read`, and does the work that the first events would otherwise wait for."""
        yield from self.read()
        yield from self._catalog.prepare()

    def _all(self) -> set[str]:
        """Functions that are live or have open runs."""
        live = self._connection.execute("SELECT id FROM functions WHERE live IS NOT NULL")
        open_runs = self._connection.execute(
            "SELECT function FROM versions WHERE EXISTS (SELECT 1 FROM runs WHERE status = 0"
            " AND runs.function = versions.function AND runs.version = versions.version)"
        )
        return {function_id for rows in (live, open_runs) for (function_id,) in rows}

    def _read_again(self, function_id: str) -> None:
        routing = read_routing(self._connection, function_id) or Routing(None)
        canary = routing.canary
        versions = set(self._open_versions(function_id))
        if routing.live is not None:
            versions |= {routing.live} if canary is None else {routing.live, canary.version}
        heads: dict[int, Head] = {}
        awaited: _WaitPaths = defaultdict(set)
        for version in versions:
            heads[version], paths = self.head(function_id, version)
            for name, some in paths.items():
                awaited[name] |= some
        self._catalog.change(function_id, _route_of(routing, heads))
        self._await_by(function_id, awaited)

    def _await_by(self, function_id: str, awaited: _WaitPaths) -> None:
        if self._awaited.get(function_id, {}) == awaited:
            return
        self._awaited.pop(function_id, None)
        if awaited:
            self._awaited[function_id] = awaited
        paths: _WaitPaths = defaultdict(set)
        for some in self._awaited.values():
            for name, items in some.items():
                paths[name] |= items
        self._catalog.await_by(dict(paths))

    def _open_versions(self, function_id: str) -> Iterator[int]:
        """The versions that have open runs."""
        sql = "SELECT min(version) FROM runs WHERE status = 0 AND function = ? AND version > ?"
        version = 0
        while (version := self._connection.execute(sql, (function_id, version)).fetchone()[0]) is not None:
            yield version

    def head(self, function_id: str, version: int) -> tuple[Head, _WaitPaths]:
        """What starts a version, and the paths by which the version's waits are found."""
        sql = "SELECT head FROM versions WHERE function = ? AND version = ?"
        (text,) = self._connection.execute(sql, (function_id, version)).fetchone()
        if text is None:  # stored by an earlier release of Stepwell
            sql = "SELECT definition FROM versions WHERE function = ? AND version = ?"
            (definition,) = self._connection.execute(sql, (function_id, version)).fetchone()
            text = head_json(orjson.loads(definition))
            sql = "UPDATE versions SET head = ? WHERE function = ? AND version = ?"
            self._connection.execute(sql, (text, function_id, version))
        return head_from(function_id, version, text)


def _route_of(routing: Routing, heads: dict[int, Head]) -> Route | None:
    if routing.live is None:
        return None
    live, canary = heads[routing.live], routing.canary
    if canary is None:
        return Route(live, state=routing.state)
    return Route(live, heads[canary.version], canary.weight, canary.sticky, routing.state)


def read_routing(connection: sqlite3.Connection, function_id: str) -> Routing | None:
    """How new runs of a function choose a version; None for an unknown function."""
    row = connection.execute("SELECT live, routing FROM functions WHERE id = ?", (function_id,)).fetchone()
    return None if row is None else from_json(*row)
