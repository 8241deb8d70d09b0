"""The values of limits that apply now: a setting, else the live definition's, else those of the version that runs.

So what is queued obeys a new setting or version at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from stepwell.core.flow.limits import groups_of, limits_of
from stepwell.core.plan import Limit


class LimitValues:
    """`changes` returns a number that changes with the live functions."""

    def __init__(self, connection: sqlite3.Connection, changes: Callable[[], int]) -> None:
        self._connection, self._changes = connection, changes
        self._seen = -1
        self._functions: dict[str, dict[str, Limit]] = {}  # limits of live definitions, by function
        self._groups: dict[str, Limit] | None = None
        self._settings = self._read_settings()
        self._times_set = 0
        self._taken = (-1, 0)

    # --- settings --------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """The values that are set, by limit: `limit`, and for throttles `period_ms` and `burst`."""
        return self._settings

    def set(self, limit_id: str, values: Mapping[str, int] | None) -> None:
        """Sets values of a limit; None: those of the definition apply again. Must be part of a batch."""
        if values is None:
            self._connection.execute("DELETE FROM limits WHERE id = ?", (limit_id,))
        else:
            row = (limit_id, orjson.dumps(values))
            self._connection.execute("INSERT OR REPLACE INTO limits VALUES (?, ?)", row)
        self._settings = self._read_settings()
        self._times_set += 1

    def _read_settings(self) -> dict[str, Any]:
        rows = self._connection.execute("SELECT id, value FROM limits").fetchall()
        return {limit_id: orjson.loads(text) for limit_id, text in rows}

    def reset(self) -> None:
        """A batch was rolled back."""
        self._settings = self._read_settings()
        self._forget()

    # --- values ----------------------------------------------------------------------------------------------------

    def take_change(self) -> bool:
        """Whether values may have changed since this was last called."""
        before, self._taken = self._taken, (self._changes(), self._times_set)
        return before != self._taken

    def current(self, limit: Limit) -> Limit:
        """A limit with the values that apply now."""
        if self._changes() != self._seen:
            self._forget()
        found = self._of_definition(limit)
        values = self._settings.get(limit.id)
        return found if values is None else replace(found, **values)

    def of_function(self, function_id: str) -> Mapping[str, Limit]:
        """The limits in the live definition of a function, by id."""
        if self._changes() != self._seen:
            self._forget()
        if function_id not in self._functions:
            sql = "SELECT definition FROM functions JOIN versions ON function = id AND version = live WHERE id = ?"
            row = self._connection.execute(sql, (function_id,)).fetchone()
            limits = () if row is None else limits_of(orjson.loads(row[0]))
            self._functions[function_id] = {limit.id: limit for limit in limits}
        return self._functions[function_id]

    def of_live_functions(self) -> Iterator[Limit]:
        """The limits in the definitions of live functions. Limits of a group may come more than once."""
        sql = (
            "SELECT definition FROM functions JOIN versions ON function = id AND version = live"
            " WHERE instr(definition, ?) > 0 OR instr(definition, ?) > 0"
        )
        for (text,) in self._connection.execute(sql, (b'"concurrency":', b'"throttle":')).fetchall():
            yield from limits_of(orjson.loads(text))

    def _of_definition(self, limit: Limit) -> Limit:
        function_id = limit.id.partition("/")[0]
        if function_id != "groups":
            return self.of_function(function_id).get(limit.id, limit)
        if self._groups is None:
            self._groups = self._read_groups()
        return self._groups.get(limit.id, limit)

    def _read_groups(self) -> dict[str, Limit]:
        """The limits of groups."""
        sql = (
            "SELECT definition FROM functions JOIN versions ON function = id AND version = live"
            " WHERE instr(definition, ?) > 0"
        )
        rows = self._connection.execute(sql, (b'"group":',)).fetchall()
        return groups_of(limit for (text,) in rows for limit in limits_of(orjson.loads(text)))

    def _forget(self) -> None:
        self._functions.clear()
        self._groups = None
        self._seen = self._changes()
