"""The types of events in SQLite; what is known of them is kept in memory, since every event is held against it."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from stepwell.event_types.types import (
    Change,
    KeptSchema,
    KnownType,
    Policy,
    Types,
    TypeVersion,
    check_change,
)
from stepwell.event_types.validation import Check, Checked

UNKNOWN = "unknown_types"  # the setting: what becomes of events whose names have no type


class TypeStore:
    """The server's own view: for the event loop's thread. What changes it is a part of the batch's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._types = read_types(connection)

    def current(self) -> Types:
        return self._types

    def unchanged(self, its: TypeVersion) -> Change | None:
        """What its registration would say, if that changed nothing: most do not."""
        known = self._types.known.get(its.name)
        if known is None or its.policy not in (None, known.policy) or its.version not in known.versions:
            return None
        kept = read_schema(self._connection, its.name, its.version)
        if kept is None or kept.schema != its.schema:
            return None
        return Change(its.name, its.version, known.policy, "unchanged", kept.schema, its.version)

    def register(self, its: TypeVersion, checked: Checked, now: int) -> Change:
        """Raises event_types.types.Refused."""
        execute, known = self._connection.execute, self._types.known.get(its.name)
        kept = read_schema(self._connection, its.name, its.version)
        what = check_change(its, kept, known, len(self._types.known))
        newest = None if known is None else known.versions[-1]
        before_version = newest if kept is None else its.version
        before = kept if kept or newest is None else read_schema(self._connection, its.name, newest)
        policy = its.policy or (known.policy if known else Policy.WARN)
        execute("INSERT OR REPLACE INTO types VALUES (?, ?)", (its.name, policy))
        values = (orjson.dumps(its.schema), checked.deepest, checked.is_whole, its.name, its.version)
        if what == "created":
            number = 1 + (len(known.versions) if known else 0)
            sql = (
                "INSERT INTO type_versions (schema, deepest, is_whole, name, version, number, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
            execute(sql, (*values, number, now))
        elif what == "updated":
            sql = "UPDATE type_versions SET schema = ?, deepest = ?, is_whole = ? WHERE name = ? AND version = ?"
            execute(sql, values)
        if what != "unchanged" or policy != (known and known.policy):
            self._types = read_types(self._connection)
        schema = None if before is None else before.schema
        return Change(its.name, its.version, policy, what, schema, before_version)

    def set_policy(self, name: str, policy: Policy) -> bool:
        """False if there is no such type."""
        found = self._connection.execute("UPDATE types SET policy = ? WHERE name = ?", (policy, name)).rowcount == 1
        self._types = read_types(self._connection)
        return found

    def set_unknown(self, policy: Policy) -> None:
        self._connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (UNKNOWN, policy))
        self._types = read_types(self._connection)


# --- reads, also for the API -----------------------------------------------------------------------------------------


def read_types(connection: sqlite3.Connection) -> Types:
    """All that is known now, but for the schemas: each is read when it is first needed."""
    versions: dict[str, list[str]] = {}
    for name, version in connection.execute("SELECT name, version FROM type_versions ORDER BY name, number"):
        versions.setdefault(name, []).append(version)
    policies = connection.execute("SELECT name, policy FROM types")
    known = {name: KnownType(Policy(policy), tuple(versions[name])) for name, policy in policies}
    setting = connection.execute("SELECT value FROM settings WHERE name = ?", (UNKNOWN,)).fetchone()

    def check(name: str, version: str) -> Check | None:
        kept = read_schema(connection, name, version)
        return None if kept is None else Check(kept.schema, kept.checked)

    return Types(known, Policy(setting[0]) if setting else Policy.OFF, check)


def read_schema(connection: sqlite3.Connection, name: str, version: str) -> KeptSchema | None:
    sql = "SELECT schema, deepest, is_whole FROM type_versions WHERE name = ? AND version = ?"
    row: tuple[Any, ...] | None = connection.execute(sql, (name, version)).fetchone()
    if row is None:
        return None
    schema, deepest, is_whole = row
    return KeptSchema(orjson.loads(schema), Checked(deepest, bool(is_whole)))
