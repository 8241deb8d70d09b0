"""Event types in SQLite. They are held in memory, since every event is validated against them."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from stepwell.core.events.events import Event, Invalid
from stepwell.event_types.changes import choose_default, plan_registrations, remove_version
from stepwell.event_types.registry import KeptSchema, KnownType, Policy, TypeChange, Types, TypeVersion
from stepwell.event_types.validation import Check, Checked

UNKNOWN = "unknown_types"  # the setting: the policy for events whose name has no type


class TypeStore:
    """The server's view of the types, for the event loop's thread. Changes belong to the batch's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._types = read_types(connection)

    def current(self) -> Types:
        return self._types

    def errors_if_refused(self, event: Event) -> Sequence[Invalid]:
        """The errors of an event that a type refuses."""
        return self._types.errors_if_refused(event)

    def unchanged(self, version: TypeVersion) -> TypeChange | None:
        """The result of registering this version if that changes nothing, as is usual; otherwise None."""
        known = self._types.known.get(version.name)
        if known is None or version.policy not in (None, known.policy) or version.version not in known.versions:
            return None
        kept = read_schema(self._connection, version.name, version.version)
        if kept is None or kept.schema != version.schema:
            return None
        return TypeChange(
            version.name, version.version, known.policy, "unchanged", kept.schema, version.version, known.default
        )

    def register(
        self, types: Sequence[tuple[TypeVersion, Checked]], now: int, *, dry_run: bool = False
    ) -> list[TypeChange]:
        """Registers all of the versions or none. Raises TypeRefused; then nothing was written."""
        read = functools.partial(read_schema, self._connection)
        changes = plan_registrations([version for version, _ in types], self._types.known, read)
        if not dry_run:
            for (version, checked), change in zip(types, changes, strict=True):
                self._write(version, checked, change, now)
            self._types = read_types(self._connection)
        return changes

    def _write(self, version: TypeVersion, checked: Checked, change: TypeChange, now: int) -> None:
        execute = self._connection.execute
        sql = "INSERT INTO types (name, policy) VALUES (?, ?) ON CONFLICT DO UPDATE SET policy = excluded.policy"
        execute(sql, (version.name, change.policy))
        values = (orjson.dumps(version.schema), checked.deepest, checked.is_whole, version.name, version.version)
        if change.what == "created":
            sql = (
                "INSERT INTO type_versions (schema, deepest, is_whole, name, version, number, created_at)"
                " SELECT ?, ?, ?, ?, ?, 1 + coalesce(max(number), 0), ? FROM type_versions WHERE name = ?"
            )
            execute(sql, (*values, now, version.name))
        elif change.what == "updated":
            sql = "UPDATE type_versions SET schema = ?, deepest = ?, is_whole = ? WHERE name = ? AND version = ?"
            execute(sql, values)

    def choose_default(self, name: str, version: str | None) -> None:
        """Chooses the version for events without `v`. Raises KeyError for an unknown type, or UnknownVersion."""
        after = choose_default(name, self._types.known[name], version)
        self._connection.execute("UPDATE types SET chosen = ? WHERE name = ?", (after.chosen, name))
        self._types = read_types(self._connection)

    def remove(self, name: str, version: str, carried_by: Iterable[str]) -> None:
        """Removes a version. Raises KeyError for an unknown type, UnknownVersion or TypeRefused."""
        after = remove_version(name, self._types.known[name], version, carried_by)
        self._connection.execute("DELETE FROM type_versions WHERE name = ? AND version = ?", (name, version))
        if after is None:
            self._connection.execute("DELETE FROM types WHERE name = ?", (name,))
        self._types = read_types(self._connection)

    def set_policy(self, name: str, policy: Policy) -> bool:
        """Sets the policy of a type. Returns False if the type does not exist."""
        found = self._connection.execute("UPDATE types SET policy = ? WHERE name = ?", (policy, name)).rowcount == 1
        self._types = read_types(self._connection)
        return found

    def set_unknown(self, policy: Policy) -> None:
        self._connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (UNKNOWN, policy))
        self._types = read_types(self._connection)


# --- reads, also for the API -----------------------------------------------------------------------------------------


def read_types(connection: sqlite3.Connection) -> Types:
    """All types without their schemas. A schema is read when it is first needed."""
    versions: dict[str, list[str]] = {}
    for name, version in connection.execute("SELECT name, version FROM type_versions ORDER BY name, number"):
        versions.setdefault(name, []).append(version)
    rows = connection.execute("SELECT name, policy, chosen FROM types")
    known = {name: KnownType(Policy(policy), tuple(versions[name]), chosen) for name, policy, chosen in rows}
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
