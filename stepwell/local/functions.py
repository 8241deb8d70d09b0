"""Functions and their versions in SQLite: immutable versions, one of them live, and what is derived from them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.core.catalog import Catalog
from stepwell.core.cron import latest_tick, next_tick, tick_event
from stepwell.core.plan import Plan, compile_plan


@dataclass(frozen=True, slots=True)
class Registered:
    function_id: str
    version: int
    is_new: bool  # False: equal to the newest version, which stays


class Functions:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._plans: dict[tuple[str, int], Plan] = {}
        self._code: dict[tuple[str, int], dict[str, str]] = {}
        self._dotenv: dict[str, dict[str, dict[str, str]]] = {}
        self._catalog: Catalog | None = None

    def register(
        self,
        definition: dict[str, Any],
        code: Mapping[str, str],
        dotenv: Mapping[str, Mapping[str, str]],
        file: str,
        now: int,
    ) -> Registered:
        """Make this the live version. `definition` is normalised; `code` and `dotenv` are by step id."""
        function_id = definition["id"]
        content = orjson.dumps({"definition": definition, "code": code}, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(content).hexdigest()
        execute = self._connection.execute
        newest = execute(
            "SELECT version, hash FROM versions WHERE function = ? ORDER BY version DESC LIMIT 1", (function_id,)
        ).fetchone()
        is_new = newest is None or newest[1] != digest
        version: int = (newest[0] + 1 if newest else 1) if is_new else newest[0]
        if is_new:
            row = (function_id, version, digest, now, orjson.dumps(definition), orjson.dumps(code))
            execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)", row)
        execute(
            "INSERT OR REPLACE INTO functions VALUES (?, ?, ?, ?)", (function_id, version, file, orjson.dumps(dotenv))
        )
        self._schedule(self.plan(function_id, version), now)
        self._dotenv.pop(function_id, None)
        self._catalog = None
        return Registered(function_id, version, is_new)

    def retire(self, function_ids: Iterable[str]) -> None:
        """Start no new runs of these functions; their open runs go on."""
        for function_id in function_ids:
            self._connection.execute("UPDATE functions SET live = NULL WHERE id = ?", (function_id,))
            self._connection.execute("DELETE FROM schedules WHERE function = ?", (function_id,))
        self._catalog = None

    def live(self) -> dict[str, str]:
        """The files of the live functions, by function id."""
        return dict(self._connection.execute("SELECT id, file FROM functions WHERE live IS NOT NULL"))

    def plan(self, function_id: str, version: int) -> Plan:
        plan = self._plans.get((function_id, version))
        if plan is None:
            definition, _ = self._version(function_id, version)
            plan = self._plans[function_id, version] = compile_plan(orjson.loads(definition), version)
        return plan

    def use(self, function_id: str, version: int) -> Plan | None:
        """The plan of a version that is about to run again, live or not; None if it is not there."""
        sql = "SELECT 1 FROM versions WHERE function = ? AND version = ?"
        if self._connection.execute(sql, (function_id, version)).fetchone() is None:
            return None
        plan = self.plan(function_id, version)
        if self._catalog is not None and self._catalog.live.get(function_id) is not plan:
            self._catalog = None  # the next one knows its waits
        return plan

    def code(self, function_id: str, version: int) -> dict[str, str]:
        """The hash of each step's code."""
        code = self._code.get((function_id, version))
        if code is None:
            code = self._code[function_id, version] = orjson.loads(self._version(function_id, version)[1])
        return code

    def dotenv(self, function_id: str, step_id: str) -> dict[str, str]:
        """What the `.env` beside a step says now."""
        if function_id not in self._dotenv:
            row = self._connection.execute("SELECT dotenv FROM functions WHERE id = ?", (function_id,)).fetchone()
            self._dotenv[function_id] = orjson.loads(row[0]) if row else {}
        return self._dotenv[function_id].get(step_id, {})

    @property
    def has_catalog(self) -> bool:
        """False if the next one is made from what the database says then."""
        return self._catalog is not None

    def catalog(self) -> Catalog:
        if self._catalog is None:
            live = self._connection.execute("SELECT id, live FROM functions WHERE live IS NOT NULL").fetchall()
            open_runs = self._connection.execute("SELECT DISTINCT function, version FROM runs WHERE status = 0")
            plans = {key: self.plan(*key) for key in {*live, *open_runs}}
            self._catalog = Catalog([plans[key] for key in live], plans.values())
        return self._catalog

    def forget(self, versions: Iterable[tuple[str, int]]) -> None:
        """Versions that retention removed."""
        for key in versions:
            self._plans.pop(key, None)
            self._code.pop(key, None)

    # --- cron ------------------------------------------------------------------------------------------------------

    def _schedule(self, plan: Plan, now: int) -> None:
        """A cron trigger that stays keeps its next tick, so that one missed while the server was down is seen."""
        wanted = {(t.cron, t.timezone) for t in plan.triggers if t.cron is not None}
        kept = set(
            self._connection.execute("SELECT cron, timezone FROM schedules WHERE function = ?", (plan.function_id,))
        )
        for cron, timezone in kept - wanted:
            sql = "DELETE FROM schedules WHERE function = ? AND cron = ? AND timezone = ?"
            self._connection.execute(sql, (plan.function_id, cron, timezone))
        for cron, timezone in wanted - kept:
            row = (plan.function_id, cron, timezone, next_tick(str(cron), timezone, now))
            self._connection.execute("INSERT INTO schedules VALUES (?, ?, ?, ?)", row)

    def take_ticks(self, now: int) -> list[tuple[str, dict[str, Any]]]:
        """Ticks that are due, as (function id, event): after a downtime only the latest that was missed."""
        rows = self._connection.execute("SELECT * FROM schedules WHERE next_at <= ?", (now,)).fetchall()
        ticks = []
        for function_id, cron, timezone, due in rows:
            at = latest_tick(cron, timezone, due - 1, now) or due
            ticks.append((function_id, tick_event(function_id, cron, at)))
            sql = "UPDATE schedules SET next_at = ? WHERE function = ? AND cron = ? AND timezone = ?"
            self._connection.execute(sql, (next_tick(cron, timezone, now), function_id, cron, timezone))
        return ticks

    def _version(self, function_id: str, version: int) -> tuple[bytes, bytes]:
        sql = "SELECT definition, code FROM versions WHERE function = ? AND version = ?"
        row: tuple[bytes, bytes] = self._connection.execute(sql, (function_id, version)).fetchone()
        return row
