"""Functions and their immutable versions in SQLite, and how new runs choose a version."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import orjson

from stepwell.core.compile import compile_plan, version_hash
from stepwell.core.events.events import Event
from stepwell.core.plan import Plan
from stepwell.core.routing.guard import RunSample, judge, rollback_event
from stepwell.core.routing.heads import head_json
from stepwell.core.routing.triggers import Catalog
from stepwell.core.routing.versions import Release, Routing, RoutingChange, State, retired, to_json
from stepwell.core.run.run import RunStatus
from stepwell.local.database.lists import merged, used_versions
from stepwell.local.store.live_functions import LiveFunctions, read_routing
from stepwell.local.store.schedules import Schedules

PUSHED = ""  # `file` of a function that was pushed: it is not expected on disk
GUARD_EVERY_MS = 5_000
_GUARDED_BY = 2_000  # newest runs that a canary is judged by

_CHANGES = count()

log = logging.getLogger("stepwell.functions")


@dataclass(frozen=True, slots=True)
class Registered:
    function_id: str
    version: int
    is_new: bool  # False: this version existed already
    is_live: bool = True  # whether new runs use the version, all or some of them


class Functions:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.schedules = Schedules(connection)
        self._plans: dict[tuple[str, int], Plan] = {}
        self._code: dict[tuple[str, int], dict[str, str]] = {}
        self._dotenv: dict[str, dict[str, dict[str, str]]] = {}
        self._live = LiveFunctions(connection, self.plan)
        self.changes = next(_CHANGES)  # another number after each change of a live function

    # --- changes ---------------------------------------------------------------------------------------------------

    def register(
        self,
        definition: dict[str, Any],
        code: Mapping[str, str],
        dotenv: Mapping[str, Mapping[str, str]],
        file: str,
        now: int,
        release: Release | None = None,
    ) -> Registered:
        """Stores a version, unless it equals the newest one, and releases it. Raises NotPossible.

        `definition` is normalised; `code` and `dotenv` are by step id. Without `release`, the function was found in
        `file` and goes live. A file that has not changed since then changes nothing, so that a rollback or a canary
        survives a restart.
        """
        function_id = definition["id"]
        digest = version_hash(definition, code)
        before, newest, disk = self._known(function_id)
        values = orjson.dumps(dotenv)
        self._dotenv.pop(function_id, None)
        if release is None and before is not None and digest in (disk, newest[1]):
            if before.live is not None or before.state is State.DELETED:
                self._record_files(function_id, file, values, digest)
                return Registered(function_id, before.live or newest[0], False, before.live is not None)
        if release is not None and before is not None and before.live is not None:
            if digest == self._hash(function_id, before.live):  # the live version is not released again, as on AWS
                self._connection.execute("UPDATE functions SET dotenv = ? WHERE id = ?", (values, function_id))
                return Registered(function_id, before.live, False)
        is_new = newest[1] != digest
        version = newest[0] + is_new
        after = (release or Release()).of(before, version, now)
        if is_new:
            self._add_version(function_id, version, digest, definition, code, release or Release(), now)
        self._connection.execute(
            "INSERT INTO functions (id, live, file, dotenv, disk) VALUES (?, NULL, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET file = excluded.file, dotenv = excluded.dotenv, disk = coalesce(excluded.disk, disk)",
            (function_id, file, values, digest if release is None else None),
        )
        self._route(function_id, after, now)
        return Registered(function_id, version, is_new)

    def _record_files(self, function_id: str, file: str, dotenv: bytes, digest: str) -> None:
        """Records where a function was found, values of `.env`, and the hash of the files. Adds no version."""
        sql = "UPDATE functions SET file = ?, dotenv = ? WHERE id = ? AND file != ? AND (file, dotenv) != (?, ?)"
        self._connection.execute(sql, (file, dotenv, function_id, PUSHED, file, dotenv))
        sql = "UPDATE functions SET disk = ? WHERE id = ? AND disk IS NOT ?"
        self._connection.execute(sql, (digest, function_id, digest))

    def _known(self, function_id: str) -> tuple[Routing | None, tuple[int, str], str | None]:
        """The function's routing, newest version as (number, hash), and hash of the files when last found."""
        sql = "SELECT version, hash FROM versions WHERE function = ? ORDER BY version DESC LIMIT 1"
        newest = self._connection.execute(sql, (function_id,)).fetchone() or (0, "")
        row = self._connection.execute("SELECT disk FROM functions WHERE id = ?", (function_id,)).fetchone()
        return self.routing(function_id), newest, row[0] if row else None

    def _hash(self, function_id: str, version: int) -> str:
        sql = "SELECT hash FROM versions WHERE function = ? AND version = ?"
        (digest,) = self._connection.execute(sql, (function_id, version)).fetchone()
        return str(digest)

    def _add_version(
        self,
        function_id: str,
        version: int,
        digest: str,
        definition: dict[str, Any],
        code: Mapping[str, str],
        release: Release,
        now: int,
    ) -> None:
        row = (function_id, version, digest, now, orjson.dumps(definition), orjson.dumps(code), head_json(definition))
        sql = (
            "INSERT INTO versions (function, version, hash, created_at, definition, code, head, author, message)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self._connection.execute(sql, (*row, release.author, release.message))

    def routing(self, function_id: str) -> Routing | None:
        """How new runs of the function choose a version; None for an unknown function."""
        return read_routing(self._connection, function_id)

    def change(self, function_id: str, change: RoutingChange, now: int) -> Routing:
        """Applies a change of routing. Raises KeyError for an unknown function, or NotPossible."""
        before = self.routing(function_id)
        if before is None:
            raise KeyError(function_id)
        sql = "SELECT version FROM versions WHERE function = ?"
        versions = [version for (version,) in self._connection.execute(sql, (function_id,))]
        after = change(before, versions, now)
        self._route(function_id, after, now)
        return after

    def retire(self, function_ids: Iterable[str], now: int) -> None:
        """Stops starting new runs of these functions; open runs continue."""
        for function_id in function_ids:
            routing = self.routing(function_id)
            if routing is not None:
                self._route(function_id, retired(routing), now)

    def _route(self, function_id: str, routing: Routing, now: int) -> None:
        execute = self._connection.execute
        sql = "UPDATE functions SET live = ?, routing = ? WHERE id = ?"
        execute(sql, (routing.live, to_json(routing).decode(), function_id))
        triggers = () if routing.live is None else self._live.head(function_id, routing.live)[0].triggers
        self.schedules.set(function_id, triggers, routing.is_paused, now)
        if routing.is_guarded:
            execute("INSERT OR IGNORE INTO guards VALUES (?, ?)", (function_id, now + GUARD_EVERY_MS))
        else:
            execute("DELETE FROM guards WHERE function = ?", (function_id,))
        if routing.live is None:
            execute("DELETE FROM kept WHERE function = ?", (function_id,))
        self._live.mark(function_id)
        self.changes = next(_CHANGES)

    # --- events of paused functions --------------------------------------------------------------------------------

    def hold(self, function_id: str, event_seq: int) -> None:
        self._connection.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (function_id, event_seq))

    def take_held_events(self, function_id: str, limit: int) -> list[str]:
        """Removes the earliest held events and returns their ids. Empty while the function is paused."""
        routing = self.routing(function_id)
        if routing is None or routing.state is not State.ON:
            return []
        sql = (
            "SELECT event, events.id FROM kept JOIN events ON events.seq = kept.event WHERE function = ?"
            " ORDER BY event LIMIT ?"
        )
        rows = self._connection.execute(sql, (function_id, limit)).fetchall()
        sql = "DELETE FROM kept WHERE function = ? AND event = ?"
        self._connection.executemany(sql, [(function_id, seq) for seq, _ in rows])
        return [event_id for _, event_id in rows]

    def with_held_events(self) -> list[str]:
        """Ids of the functions that have held events."""
        found, sql = [""], "SELECT min(function) FROM kept WHERE function > ?"
        while (following := self._connection.execute(sql, (found[-1],)).fetchone()[0]) is not None:
            found.append(following)
        return found[1:]

    # --- guards ----------------------------------------------------------------------------------------------------

    def guard(self, now: int) -> list[Event]:
        """Judges the canaries that are due. Returns an event for each one that was rolled back."""
        due = self._connection.execute("SELECT function FROM guards WHERE next_at <= ?", (now,)).fetchall()
        events = []
        for (function_id,) in due:
            sql = "UPDATE guards SET next_at = ? WHERE function = ?"
            self._connection.execute(sql, (now + GUARD_EVERY_MS, function_id))
            routing = self.routing(function_id)
            assert routing is not None
            verdict = judge(routing, read_samples(self._connection, function_id, _GUARDED_BY), now)
            if verdict.routing != routing:
                self._route(function_id, verdict.routing, now)
            if (event := rollback_event(function_id, routing, verdict, now)) is not None:
                log.warning("%s: version %s is rolled back: %s", function_id, event.data["version"], verdict.reason)
                events.append(event)
        return events

    # --- what there is ---------------------------------------------------------------------------------------------

    def live(self) -> dict[str, str]:
        """The definition files of live functions that were found on disk, by function id."""
        return dict(self._connection.execute("SELECT id, file FROM functions WHERE live IS NOT NULL AND file != ''"))

    def plan(self, function_id: str, version: int) -> Plan:
        plan = self._plans.get((function_id, version))
        if plan is None:
            sql = "SELECT definition FROM versions WHERE function = ? AND version = ?"
            (definition,) = self._connection.execute(sql, (function_id, version)).fetchone()
            plan = compile_plan(orjson.loads(definition), version)
            self._plans[function_id, version] = plan
        return plan

    def use(self, function_id: str, version: int) -> Plan | None:
        """The plan of a version that is about to run again, live or not; None if it does not exist."""
        sql = "SELECT 1 FROM versions WHERE function = ? AND version = ?"
        if self._connection.execute(sql, (function_id, version)).fetchone() is None:
            return None
        self._live.mark(function_id)  # the next catalog includes the version's waits
        return self.plan(function_id, version)

    def code(self, function_id: str, version: int) -> dict[str, str]:
        """The hash of each step's code, by step id."""
        code = self._code.get((function_id, version))
        if code is None:
            sql = "SELECT code FROM versions WHERE function = ? AND version = ?"
            (text,) = self._connection.execute(sql, (function_id, version)).fetchone()
            code = self._code[function_id, version] = orjson.loads(text)
        return code

    def dotenv(self, function_id: str, step_id: str) -> dict[str, str]:
        """The current values of the `.env` file beside a step."""
        if function_id not in self._dotenv:
            row = self._connection.execute("SELECT dotenv FROM functions WHERE id = ?", (function_id,)).fetchone()
            self._dotenv[function_id] = orjson.loads(row[0]) if row else {}
        return self._dotenv[function_id].get(step_id, {})

    @property
    def current_catalog(self) -> Catalog | None:
        """The catalog; None if it must be rebuilt from the database first."""
        return self._live.current

    def catalog(self) -> Catalog:
        return self._live.catalog()

    def prepare(self) -> Iterator[None]:
        """Does in pieces the work that the first events would otherwise wait for."""
        return self._live.prepare()

    def forget(self, versions: Iterable[tuple[str, int]]) -> None:
        """Drops versions from memory after retention deleted them."""
        for key in versions:
            self._plans.pop(key, None)
            self._code.pop(key, None)


def read_samples(connection: sqlite3.Connection, function_id: str, limit: int) -> list[RunSample]:
    """The newest runs that events started, newest first."""
    sql = (
        "SELECT seq, version, status, created_at, ended_at FROM runs INDEXED BY runs_version WHERE function = ?"
        " AND version = ? AND rerun_of IS NULL AND replay IS NULL ORDER BY seq DESC LIMIT ?"
    )
    versions = [(function_id, version, limit) for version in used_versions(connection, function_id)]
    rows = islice(merged(connection, sql, versions), limit)
    return [RunSample(version, RunStatus(status), created, ended) for _, version, status, created, ended in rows]
