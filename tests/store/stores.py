"""The stores that the conformance suite runs on: in memory, in SQLite, in DynamoDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.session import EngineSession
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.resources import Resources
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import Plan
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.store import LocalStore
from stepwell.platform import Batch
from stepwell.testing.local import put_empty_database
from stepwell.testing.memory import MemoryStore

NOW = 1_780_000_000_000


class StoreUnderTest(Protocol):
    def deploy(self, definition: dict[str, Any]) -> Plan:
        """Makes a function live, and returns its plan."""

    def begin(self, now: int = NOW) -> Batch: ...

    def end(self, batch: Batch) -> None:
        """Ends the batch: what it has written is durable then."""

    def reopen(self) -> None:
        """Opens the store again, as after a restart: only durable data is left."""


class InMemory:
    def __init__(self) -> None:
        self._store = MemoryStore()

    def deploy(self, definition: dict[str, Any]) -> Plan:
        plan = compile_plan(parse_definition(definition).normalised(), 1)
        self._store.plans[plan.function_id] = plan
        return plan

    def begin(self, now: int = NOW) -> Batch:
        return self._store.batch(now)

    def end(self, batch: Batch) -> None: ...

    def reopen(self) -> None: ...


class InSqlite:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "db"
        put_empty_database(self._path)
        self._store = LocalStore(self._path)

    def deploy(self, definition: dict[str, Any]) -> Plan:
        normalised = parse_definition(definition).normalised()
        batch = self._store.batch(NOW)
        registered = self._store.functions.register(normalised, {}, {}, "f.json", NOW)
        batch.flush()
        return self._store.functions.plan(registered.function_id, registered.version)

    def begin(self, now: int = NOW) -> Batch:
        return self._store.batch(now)

    def end(self, batch: Batch) -> None:
        assert isinstance(batch, LocalBatch)
        batch.flush()

    def reopen(self) -> None:
        self._store.close()
        self._store = LocalStore(self._path)

    def close(self) -> None:
        self._store.close()


class InDynamoDb:
    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._session = EngineSession(resources)

    def deploy(self, definition: dict[str, Any]) -> Plan:
        normalised = parse_definition(definition).normalised()
        targets = {step: {"lambda": step} for step in normalised["steps"]}
        self._session.releases.stage(normalised)
        new = NewVersion(normalised, targets, {}, "", "", "stepwell.json")
        registered = self._session.releases.register(new, NOW)
        return self._session.registry.version(registered.function_id, registered.version).plan

    def begin(self, now: int = NOW) -> Batch:
        return self._session.store.batch(now)

    def end(self, batch: Batch) -> None:
        assert isinstance(batch, DynamoBatch)
        batch.flush()

    def reopen(self) -> None:
        self._session = EngineSession(self._resources)
