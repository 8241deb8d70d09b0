"""A platform with a scripted runner: no processes, no HTTP, a database in a file."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from stepwell.api.ingest.event_ids import new_event_id
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import Event
from stepwell.core.events.request import parse_events
from stepwell.core.run.messages import Outcome
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.engine.settings import Settings
from stepwell.local.queries.queries import Queries
from stepwell.local.runners.job import End, Job, Log, Running
from stepwell.local.store.store import LocalStore
from stepwell.reader import RunDetail
from stepwell.testing.local import put_empty_database

DONE = Outcome(output=b'"done"')
DEADLINE_S = 20.0


class Held:
    """An attempt that runs until the test or the server ends it."""

    def __init__(self, job: Job, log: Log, end: End) -> None:
        self.job, self.log, self.end = job, log, end
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


class ScriptedRunner:
    """Ends every attempt at once, or holds it. `started` lists (function id, step id) in order; `on_start` is called
    before an attempt is added."""

    def __init__(self, *, hold: bool = False) -> None:
        self.hold = hold
        self.held: list[Held] = []
        self.started: list[tuple[str, str]] = []
        self.on_start: Callable[[Job], object] = lambda job: None

    def start(self, job: Job, log: Log, end: End) -> Running:
        self.on_start(job)
        attempt = Held(job, log, end)
        self.started.append((job.function_id, job.step.id))
        if self.hold:
            self.held.append(attempt)
        else:
            asyncio.get_running_loop().call_soon(end, DONE)
        return attempt

    def release(self, outcome: Outcome = DONE) -> None:
        """Ends all held attempts."""
        held, self.held = self.held, []
        for attempt in held:
            attempt.end(outcome)

    def start_remote(self, job: Job, log: Log, end: End, accepted: Callable[[], None]) -> Running:
        raise AssertionError

    def resume(self, job: Job, log: Log, end: End) -> Running:
        raise AssertionError

    async def close(self) -> None:
        self.held.clear()


class Scripted:
    def __init__(self, platform: LocalPlatform, queries: Queries, runner: ScriptedRunner) -> None:
        self.platform, self.queries, self.runner = platform, queries, runner
        self._ids = itertools.count(1)

    async def deploy(
        self,
        id: str = "f",
        on: str | dict[str, Any] = "go",
        idempotency: str | None = None,
        timeouts: dict[str, str] | None = None,
        control: dict[str, Any] | None = None,
        **steps: dict[str, Any],
    ) -> None:
        """Deploys a function with these steps, or with one step `a`. `on` is an event's name or a trigger; `control`
        are fields of flow control."""
        fields = {step_id: {"runtime": {"type": "docker", "image": "x"}, **step} for step_id, step in steps.items()}
        fields = fields or {"a": {"runtime": {"type": "docker", "image": "x"}}}
        trigger = {"event": on} if isinstance(on, str) else on
        raw = {"id": id, "triggers": [trigger], "steps": fields, "idempotency": idempotency, "timeouts": timeouts}
        raw |= control or {}
        definition = parse_definition(raw)
        await self.platform.registration.register(definition.normalised(), {}, {}, f"{id}.json")

    def events(self, count: int = 1, name: str = "go", **fields: Any) -> list[Event]:
        body = orjson.dumps({"name": name, **fields})
        return [event for _ in range(count) for event in parse_events(body, self.platform.clock.now(), new_event_id)]

    async def send(self, name: str = "go", **fields: Any) -> str:
        (event,) = self.events(1, name, **fields)
        await self.platform.send([event])
        return event.id

    def runs(self, event_id: str | None = None) -> list[RunDetail]:
        return list(self.queries.read_runs(event=event_id, limit=100_000).items)

    def count(self, sql: str) -> int:
        number: int = self.platform.store.connection.execute(f"SELECT count(*) FROM {sql}").fetchone()[0]
        return number


@asynccontextmanager
async def scripted(
    folder: Path,
    *,
    hold: bool = False,
    parallelism: int = 4,
    clock: Clock | None = None,
    batch_facts: int = 500,
    batch_s: float = 60,  # so that tests do not depend on the machine's speed
    runner: ScriptedRunner | None = None,
) -> AsyncIterator[Scripted]:
    runner = runner or ScriptedRunner(hold=hold)
    put_empty_database(folder / "db")
    store = LocalStore(folder / "db")
    settings = Settings(parallelism, retry_s=0.05, look_again_s=0.05, batch_facts=batch_facts, batch_s=batch_s)
    platform = LocalPlatform(store, runner, folder / "code", clock or Clock(), settings)
    await platform.start()
    queries = Queries(folder / "db")
    try:
        yield Scripted(platform, queries, runner)
    finally:
        await platform.close()


async def until(holds: Callable[[], Any], within: float = DEADLINE_S) -> None:
    """Returns as soon as the condition holds."""
    deadline = asyncio.get_running_loop().time() + within
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not become true"
        await asyncio.sleep(0.002)
