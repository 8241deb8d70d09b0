"""A test fixture: the engine with a store in memory, a recording dispatcher, and a clock that stands still."""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import Event, event_from
from stepwell.core.plan import Plan
from stepwell.core.run.approvals import Links
from stepwell.core.run.messages import AttemptEnded, AttemptStarted, Fact, Outcome
from stepwell.core.run.run import Run
from stepwell.core.signing import single_key
from stepwell.engine.loop import Engine
from stepwell.engine.work import Undone
from stepwell.platform import Attempt, Cause, IncomingEvent, RunFact, RunRecord
from stepwell.testing.memory import MemoryBatch, MemoryStore, RecordingDispatcher

NOW = 1_780_000_000_000
CODE = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.f"}}
LINKS = Links("https://stepwell.example/", single_key(b"secret"))
START = [{"step": "$trigger"}]


def step(*after: dict[str, Any] | str, **fields: Any) -> dict[str, Any]:
    """The definition of a step that runs a program. `after`: ids of steps, or edges."""
    edges = [{"step": edge} if isinstance(edge, str) else edge for edge in after]
    return {**CODE, "after": edges or START, **fields}


def plan_of(id: str = "f", on: str = "go", *, fields: dict[str, Any] | None = None, **steps: Any) -> Plan:
    raw = {"id": id, "triggers": [{"event": on}], "steps": steps or {"a": step()}, **(fields or {})}
    return compile_plan(parse_definition(raw).normalised(), 1)


def event_of(name: str = "go", id: str = "e", **fields: Any) -> Event:
    return event_from({"name": name, "id": id, "ts": NOW, **fields})


class Scene:
    def __init__(self, *plans: Plan, programs: int = 1000) -> None:
        self.store, self.dispatcher, self.now = MemoryStore(*plans), RecordingDispatcher(programs), NOW
        self.engine = Engine(self.dispatcher, "test", lambda: LINKS)

    def batch(self) -> MemoryBatch:
        return self.store.batch(self.now)

    def send(self, *events: Event, cause: Cause | None = None) -> Undone:
        return self.engine.process(self.batch(), [IncomingEvent(event, cause=cause) for event in events], [])

    def fold(self, run_id: str, *facts: Fact, cause: Cause | None = None) -> Undone:
        return self.engine.process(self.batch(), [], [RunFact(run_id, fact, cause) for fact in facts])

    def end(self, attempt: Attempt, output: Any = None, cause: Cause | None = None) -> Undone:
        """Ends an attempt with an output."""
        outcome = Outcome(orjson.dumps(output))
        return self.fold(attempt.record.run.id, AttemptEnded(attempt.step, attempt.attempt, outcome), cause=cause)

    def claim(self, run_id: str, index: int, attempt: int = 1) -> Undone:
        """Claims a queued attempt that has got a slot."""
        return self.fold(run_id, AttemptStarted(index, attempt))

    def started(self) -> list[str]:
        """The steps that were started since the last call."""
        starts = self.dispatcher.take().starts
        return [attempt.record.plan.steps[attempt.step].id for attempt in starts]

    @property
    def record(self) -> RunRecord:
        """The record of the only run."""
        (record,) = self.store.runs.values()
        return record

    @property
    def run(self) -> Run:
        return self.record.run
