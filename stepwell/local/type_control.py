"""Event types on the local server, as the API reads and changes them from any thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from stepwell.event_types.changes import UnknownVersion
from stepwell.event_types.registry import Policy, TypeChange, TypeDetail, TypeRefused, TypeVersion
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.queries.queries import Queries
from stepwell.local.store.event_types import TypeStore, read_schema, read_types

T = TypeVar("T")


class TypeControl:
    """Implements `api.v1.event_types.TypeRegistry`. `call` runs a coroutine on the platform's event loop and waits."""

    def __init__(
        self, platform: LocalPlatform, queries: Queries, call: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        self._platform, self._queries, self._call = platform, queries, call

    def read_types(self) -> list[TypeDetail]:
        connection = self._queries.connection
        rows = connection.execute("SELECT name, policy, chosen FROM types ORDER BY name").fetchall()
        return [TypeDetail(name, Policy(policy), _versions(connection, name), chosen) for name, policy, chosen in rows]

    def read_type(self, name: str) -> TypeDetail | None:
        connection = self._queries.connection
        row = connection.execute("SELECT policy, chosen FROM types WHERE name = ?", (name,)).fetchone()
        return None if row is None else TypeDetail(name, Policy(row[0]), _versions(connection, name), row[1])

    def read_schema(self, name: str, version: str) -> Any:
        kept = read_schema(self._queries.connection, name, version)
        return None if kept is None else kept.schema

    def register_types(self, types: Sequence[TypeVersion], *, dry_run: bool = False) -> list[TypeChange]:
        changes: list[TypeChange] = self._call(self._platform.registration.register_types(types, dry_run=dry_run))
        return changes

    def choose_default(self, name: str, version: str | None) -> None:
        self._change(lambda types: types.choose_default(name, version))

    def remove_version(self, name: str, version: str, carried_by: Iterable[str]) -> None:
        self._change(lambda types: types.remove(name, version, carried_by))

    def set_policy(self, name: str, policy: Policy) -> bool:
        result: list[bool] = []
        types = self._platform.store.types
        self._call(self._platform.in_transaction(lambda _, now: result.append(types.set_policy(name, policy))))
        return result[-1]

    def _change(self, change: Callable[[TypeStore], None]) -> None:
        """Changes types as part of a batch. A refused change raises here, and the batch continues without it."""
        reasons: list[Exception] = []

        def call(_: sqlite3.Connection, now: int) -> None:
            try:
                change(self._platform.store.types)
            except (KeyError, UnknownVersion, TypeRefused) as reason:  # raised before anything is written
                reasons.append(reason)

        self._call(self._platform.in_transaction(call))
        if reasons:
            raise reasons[-1]

    def unknown_types(self) -> Policy:
        return read_types(self._queries.connection).unknown

    def set_unknown_types(self, policy: Policy) -> None:
        types = self._platform.store.types
        self._call(self._platform.in_transaction(lambda _, now: types.set_unknown(policy)))


def _versions(connection: sqlite3.Connection, name: str) -> list[tuple[str, int]]:
    sql = "SELECT version, created_at FROM type_versions WHERE name = ? ORDER BY number"
    return connection.execute(sql, (name,)).fetchall()
