"""Webhook rules in SQLite, with a cache in memory for answering requests.

A rule from a file is removed when it disappears from the file. A rule put by the API stays until the API removes it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.api.v1.webhook_rules import KeptRule
from stepwell.api.webhooks.certificates import Certificates
from stepwell.core.webhooks.webhooks import Rule
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.queries.queries import Queries

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Synchronised:
    """Names of the webhooks that were changed or removed to match the files."""

    changed: list[str]
    removed: list[str]


class LocalWebhooks:
    """Implements `api.webhooks.webhooks.Hooks`, and changes rules. Call it on the event loop's thread."""

    def __init__(self, platform: LocalPlatform, secret: Callable[[str], str | None], public_url: str) -> None:
        self._platform, self._secret, self.public_url = platform, secret, public_url
        self.certificates = Certificates()
        self._rules: dict[str, Rule] = {}  # cache, by name

    def rule(self, name: str) -> Rule | None:
        if name not in self._rules:
            sql = "SELECT rule FROM webhooks WHERE name = ?"
            row = self._platform.store.connection.execute(sql, (name,)).fetchone()
            if row is None:
                return None
            self._rules[name] = Rule.of(orjson.loads(row[0]))
        return self._rules[name]

    def secret(self, name: str, *, again: bool = False) -> str | None:
        return self._secret(name)

    async def put(self, rule: Json, file: str | None = None) -> bool:
        """Stores a rule. Returns whether it differs from the one stored before."""
        row = self._platform.store.connection.execute(
            "SELECT rule, file FROM webhooks WHERE name = ?", (rule["name"],)
        ).fetchone()
        if row is not None and (orjson.loads(row[0]), row[1]) == (rule, file):
            return False
        values = (rule["name"], orjson.dumps(rule), file, self._platform.clock.now())
        await self._write("INSERT OR REPLACE INTO webhooks VALUES (?, ?, ?, ?)", values)
        return row is None or orjson.loads(row[0]) != rule

    async def remove(self, name: str) -> None:
        await self._write("DELETE FROM webhooks WHERE name = ?", (name,))

    async def synchronise(self, rules: Iterable[tuple[Json, str]], broken: Collection[str]) -> Synchronised:
        """Stores these rules and their files. Removes other rules that came from files, except from the `broken`
        files, which cannot be read now."""
        changed, names = [], set()
        for rule, file in rules:
            names.add(rule["name"])
            if await self.put(rule, file):
                changed.append(rule["name"])
        rows = self._platform.store.connection.execute("SELECT name, file FROM webhooks WHERE file IS NOT NULL")
        removed = sorted(name for name, file in rows.fetchall() if name not in names and file not in broken)
        for name in removed:
            await self.remove(name)
        return Synchronised(changed, removed)

    async def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        def write(connection: sqlite3.Connection, now: int) -> None:
            connection.execute(sql, values)

        await self._platform.in_transaction(write)
        self._rules.clear()


class WebhookControl:
    """Implements `api.v1.webhook_rules.Webhooks`. `call` runs a coroutine on the platform's event loop and waits."""

    def __init__(
        self, webhooks: LocalWebhooks, queries: Queries, call: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        self._webhooks, self._queries, self._call = webhooks, queries, call

    def read_webhooks(self) -> list[KeptRule]:
        rows = self._queries.connection.execute("SELECT rule, changed_at FROM webhooks ORDER BY name")
        return [KeptRule(orjson.loads(rule), at) for rule, at in rows]

    def read_webhook(self, name: str) -> KeptRule | None:
        sql = "SELECT rule, changed_at FROM webhooks WHERE name = ?"
        row = self._queries.connection.execute(sql, (name,)).fetchone()
        return None if row is None else KeptRule(orjson.loads(row[0]), row[1])

    def put_webhook(self, rule: Json) -> bool:
        changed: bool = self._call(self._webhooks.put(rule))
        return changed

    def remove_webhook(self, name: str) -> bool:
        if self.read_webhook(name) is None:
            return False
        self._call(self._webhooks.remove(name))
        return True
