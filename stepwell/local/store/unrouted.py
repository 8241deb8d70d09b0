"""Accepted events whose routing is not finished: they have yet to start some runs or wake some waits.

They are rows of the batch's transaction, so a crash between two batches loses nothing. Events of one name are routed in
the order of acceptance. Names take turns.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable

import orjson

from stepwell.core.events.events import Event
from stepwell.core.routing.triggers import Catalog
from stepwell.platform import Route

_TAKE = (
    "SELECT unrouted.event, starts, is_awaited, key, run, pause, body FROM unrouted"
    " JOIN events ON events.seq = unrouted.event WHERE unrouted.name = ? ORDER BY unrouted.event LIMIT ?"
)
_LEAVE = "INSERT OR REPLACE INTO unrouted VALUES (?, ?, ?, ?, ?, ?, ?)"


class Unrouted:
    def __init__(self, connection: sqlite3.Connection, catalog: Callable[[], Catalog]) -> None:
        self._connection, self._catalog = connection, catalog
        self._names: OrderedDict[str, None] = OrderedDict()  # names of unrouted events, the next one first
        self.reset()

    def __bool__(self) -> bool:
        return bool(self._names)

    def __contains__(self, name: str) -> bool:
        """Whether there is an unrouted event with this name."""
        return name in self._names

    def reset(self) -> None:
        """Reads the names again from the file, after the transaction was rolled back."""
        self._names.clear()
        sql = "SELECT name FROM unrouted WHERE name > ? ORDER BY name LIMIT 1"
        row = self._connection.execute(sql, ("",)).fetchone()
        while row is not None:
            self._names[row[0]] = None
            row = self._connection.execute(sql, row).fetchone()

    def leave(self, routes: Iterable[Route]) -> None:
        """Stores the rest of these events' routing for later batches."""
        rows = []
        for route in routes:
            self._names.setdefault(route.event.name)
            key, run, pause = route.behind or (None, None, None)
            starts = orjson.dumps(route.starts) if route.starts else None
            is_awaited = route.is_awaited or bool(route.found)
            rows.append((route.event.name, route.event.position, starts, is_awaited, key, run, pause))
        self._connection.executemany(_LEAVE, rows)

    def take(self, most: int) -> list[Route]:
        """Removes and returns the unfinished routes of the next name's earliest events. Erased events are dropped."""
        if not self._names:
            return []
        name, _ = self._names.popitem(last=False)
        rows = self._connection.execute(_TAKE, (name, most)).fetchall()
        taken = [(name, row[0]) for row in rows]
        self._connection.executemany("DELETE FROM unrouted WHERE name = ? AND event = ?", taken)
        if len(rows) == most:
            self._names[name] = None  # the last in turn
        routes = [self._route(*row) for row in rows]
        return [route for route in routes if not route.event.erased]

    def _route(
        self, seq: int, starts: bytes | None, is_awaited: int, key: bytes | None, run: int, pause: int, body: bytes
    ) -> Route:
        event = Event.stored(seq, body)
        return Route(
            event,
            starts=orjson.loads(starts) if starts else (),
            is_awaited=bool(is_awaited),
            keys=self._catalog().keys(event) if is_awaited else (),
            behind=None if key is None else (key, run, pause),
            is_first=True,
        )
