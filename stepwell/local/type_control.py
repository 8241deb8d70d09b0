"""The types of events as the API of one machine reads and changes them, from any thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from stepwell.event_types.types import Change, Policy, TypeDetail, TypeVersion
from stepwell.local.platform import LocalPlatform
from stepwell.local.queries import Queries
from stepwell.local.types import read_schema, read_types

T = TypeVar("T")


class TypeControl:
    """Implements `api.types.TypeRegistry`. `call` does work on the platform's event loop, and waits for it."""

    def __init__(
        self, platform: LocalPlatform, queries: Queries, call: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        self._platform, self._queries, self._call = platform, queries, call

    def read_types(self) -> list[TypeDetail]:
        connection = self._queries.connection
        policies = connection.execute("SELECT name, policy FROM types ORDER BY name").fetchall()
        return [TypeDetail(name, Policy(policy), _versions(connection, name)) for name, policy in policies]

    def read_type(self, name: str) -> TypeDetail | None:
        connection = self._queries.connection
        row = connection.execute("SELECT policy FROM types WHERE name = ?", (name,)).fetchone()
        return None if row is None else TypeDetail(name, Policy(row[0]), _versions(connection, name))

    def read_schema(self, name: str, version: str) -> Any:
        kept = read_schema(self._queries.connection, name, version)
        return None if kept is None else kept.schema

    def register_type(self, its: TypeVersion) -> Change:
        change: Change = self._call(self._platform.register_type(its))
        return change

    def set_policy(self, name: str, policy: Policy) -> bool:
        result: list[bool] = []
        types = self._platform.store.types
        self._call(self._platform.in_transaction(lambda _, now: result.append(types.set_policy(name, policy))))
        return result[-1]

    def unknown_types(self) -> Policy:
        return read_types(self._queries.connection).unknown

    def set_unknown_types(self, policy: Policy) -> None:
        types = self._platform.store.types
        self._call(self._platform.in_transaction(lambda _, now: types.set_unknown(policy)))


def _versions(connection: sqlite3.Connection, name: str) -> list[tuple[str, int]]:
    sql = "SELECT version, created_at FROM type_versions WHERE name = ? ORDER BY number"
    return connection.execute(sql, (name,)).fetchall()
