"""Runs of any shape end as the core alone computes, with shared outcomes or without.

Many handlers run at a time, batches have any size, and processes die.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.engine import shared_outcomes
from stepwell.aws.resources import Resources
from stepwell.aws.table import run_records, runs
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import Plan
from stepwell.core.run.advance import advance
from stepwell.core.run.answers import NO_ANSWERS
from stepwell.core.run.messages import AttemptEnded, AttemptStarted, Error, Fact, Outcome, RunStarted, RunStep
from stepwell.core.run.questions import questions
from stepwell.core.run.run import Run, RunStatus, new_run
from stepwell.testing.batches import SERVICES, Batches, Crash, Json, Process, handler_step

_DEEPEST = 3  # concurrent handlers, each between two requests of another


def any_steps(chance: Random) -> Json:
    """1 to 60 steps: chains, fans and mixtures, with joins of all kinds."""
    count, width = chance.randint(1, 60), chance.choice([1, 3, 20, 60])
    steps: Json = {}
    for number in range(count):
        before = [f"s{n}" for n in range(max(0, number - width), number)]
        parents = chance.sample(before, min(len(before), chance.choice([0, 1, 1, 2, 3, 60])))
        after = [{"step": parent, "on": chance.choice(["success", "success", "always"])} for parent in parents]
        steps[f"s{number}"] = handler_step(*after, join=chance.choice(["merge", "all", "first"]))
    return steps


def as_the_core_says(steps: Json, failing: set[str]) -> Run:
    """The run after folding one fact after the other."""
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": steps}
    plan: Plan = compile_plan(parse_definition(raw).normalised(), 1)
    run, todo = new_run("run", plan, 1), list[Fact]([RunStarted()])
    while todo:
        fact = todo.pop(0)
        assert not questions(plan, run, fact).edges
        decision = advance(plan, run, fact, NO_ANSWERS, 2)
        run = decision.run
        if isinstance(fact, AttemptStarted):
            outcome = Outcome(b"{}")
            if plan.steps[fact.step].id in failing:
                outcome = Outcome(error=Error("status", "400", 400, None), retryable=False)
            todo.append(AttemptEnded(fact.step, fact.attempt, outcome))
        todo += [
            AttemptStarted(command.step, command.attempt)
            for command in decision.commands
            if isinstance(command, RunStep)
        ]
    return run


class Crowd:
    """Handlers of the queue of outcomes. Any of them may run, or die, between two requests of another."""

    def __init__(self, batches: Batches, chance: Random) -> None:
        self.batches, self.chance, self.depth, self.crashes = batches, chance, 0, 6
        self.others = [Process(batches.resources) for _ in range(_DEEPEST)]
        for service in SERVICES:
            clients.client(service).meta.events.register("before-call", self._before, unique_id="crowd")

    def leave(self) -> None:
        for service in SERVICES:
            clients.client(service).meta.events.unregister("before-call", unique_id="crowd")

    def _before(self, **_: Any) -> None:
        if self.depth and self.crashes and self.chance.random() < 0.02:
            self.crashes -= 1
            raise Crash
        if 0 < self.depth < _DEEPEST and self.chance.random() < 0.15:
            self.advance()

    def advance(self) -> bool:
        other = self.others[self.depth]
        self.depth += 1
        try:
            queue, most = self.batches.resources.outcomes_queue, self.chance.randint(1, 10)
            return self.batches.deliver(queue, lambda event: other.consumer.advance(event), most)
        finally:
            self.depth -= 1


@pytest.mark.parametrize("at_once", [0, 4, 32], ids=["wide", "wide at times", "narrow"])
@pytest.mark.parametrize("seed", range(6))
def test_a_run_of_any_shape_ends_as_the_core_says(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, seed: int, at_once: int
) -> None:
    monkeypatch.setattr(runs, "AT_ONCE", at_once)
    monkeypatch.setattr(run_records, "AT_ONCE", at_once)
    monkeypatch.setattr(shared_outcomes, "_FOLDED_AT_ONCE", 7)
    monkeypatch.setattr("stepwell.aws.engine.run_writer.time.sleep", lambda s: None)
    chance = Random(f"{seed} {at_once}")
    steps = any_steps(chance)
    failing = {name for name in steps if chance.random() < chance.choice([0, 0.05])}
    expected = as_the_core_says(steps, failing)
    batches = Batches(resources, lambda ctx: {"status": 400} if ctx["step_id"] in failing else {})
    batches.deploy(steps)
    batches.send()
    assert batches.route()
    crowd = Crowd(batches, chance)
    while crowd.advance():
        pass
    crowd.leave()
    batches.drain()
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is expected.status
    if expected.status is RunStatus.COMPLETED:  # in a failed run, the order decides which steps had ended by then
        assert [step.status for step in stored.run.steps] == [step.status for step in expected.steps]
        assert len({(attempt.step, attempt.attempt) for attempt in attempts}) == len(attempts)
