"""Folds facts into the record of a run. Pure: the given record is not changed, and nothing is read or started.

`loop` has already read what a fact needs, such as an event that arrived before a deadline. A claim needs a free slot;
the number of free slots is a parameter.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepwell.core.cel.expressions import Bindings, Expression, Scope, compile_expression, compile_moment
from stepwell.core.duration import LONGEST_MS
from stepwell.core.plan import Plan
from stepwell.core.routing.waits import wait_index
from stepwell.core.run.advance import advance
from stepwell.core.run.answers import NO_ANSWERS, Answers, Moment, Questions, WaitKey
from stepwell.core.run.inputs import JoinedOutputs, edge_variables, error_json
from stepwell.core.run.messages import (
    AttemptPostponed,
    AttemptStarted,
    CancelRequested,
    Command,
    EmitEnd,
    Fact,
    RecordAttempt,
    RunHeld,
    RunStep,
    StopStep,
)
from stepwell.core.run.permits import problem_of_step
from stepwell.core.run.questions import questions
from stepwell.core.run.run import STATUS_NAMES, RunStatus, StepStatus
from stepwell.core.run.timeouts import has_timeouts, without_cleared
from stepwell.core.times import moment_text
from stepwell.platform import Cause, Claim, FreeSlots, RunFact, RunRecord, Transition

_QUEUED, _RUNNING = StepStatus.QUEUED, StepStatus.RUNNING  # until Python 3.11, an enum is slow to look one up
_MANY = 16  # runs with more steps cache the joined outputs of ancestors for the next input


def fold(record: RunRecord, facts: Iterable[RunFact], now: int, slots: FreeSlots) -> Transition:
    """Folds facts into a run, in order, and claims queued attempts as long as there are free slots.

    For a `DeadlinePassed`, the caller must have checked that no event arrived in time.
    """
    folding = Folding(record, now)
    for fact in facts:
        folding.take(fact.fact, fact.cause)
    return folding.transition(slots)


def slots_left(slots: FreeSlots, transition: Transition) -> FreeSlots:
    """The slots that stay free after the claims of a transition."""
    steps, (programs, calls) = transition.record.plan.steps, slots
    for claim in transition.claims:
        step = steps[claim.step]
        if claim.holds_slot or not step.needs_slot:
            continue
        if step.calls:
            calls -= 1
        else:
            programs -= 1
    return FreeSlots(programs, calls)


class Folding:
    """Folds facts one by one: call `take` for each, then `transition`."""

    def __init__(self, record: RunRecord, now: int) -> None:
        self._before, self._now = record, now
        self._run = record.run
        self._outputs, self._errors, self._causes = record.outputs, record.errors, record.causes
        self._commands: list[Command] = []
        self._claims: list[Claim] = []
        self._queued: list[tuple[RunStep, Cause | None]] = []
        self._unclaimed: list[AttemptStarted] = []
        self._all_causes: list[Cause] = []

    @property
    def record(self) -> RunRecord:
        """The record after the facts so far."""
        before = self._before
        if self._run is before.run and self._causes is before.causes:
            return before
        joined = before.joined
        if joined is None and len(before.plan.steps) > _MANY:
            joined = JoinedOutputs()
        return before.changed(self._run, self._outputs, self._errors, self._causes, joined)

    def take(self, fact: Fact, cause: Cause | None) -> None:
        """Folds a fact. An `AttemptStarted` comes from the dispatcher's queue, and holds a slot."""
        before = self._run
        commands = self._advance(fact)
        if cause is not None:
            self._all_causes.append(cause)
            if self._run is before:
                if cause.redelivered:
                    commands = [*commands, *self._end_again()]
                elif not isinstance(fact, RunHeld):  # it needs its timers, although it changes nothing
                    commands = ()
                self._claims += self._claims_again(fact, cause)
        if commands:
            self._commands += commands
            for command in commands:
                if isinstance(command, RunStep):
                    self._queued.append((command, cause))
                    if self._before.plan.steps[command.step].is_limited and self._run is not before:
                        self._note_problem(command.step)
        if isinstance(fact, AttemptStarted):
            if self._run is before:
                self._unclaimed.append(fact)
            else:
                self._claim(Claim(fact.step, fact.attempt, cause, holds_slot=True))
        elif isinstance(fact, AttemptPostponed) and cause is not None:
            state = self._run.steps[fact.step]
            if state.status is StepStatus.RUNNING and state.attempt == fact.attempt:
                self._causes = {**self._causes, fact.step: (cause.id, fact.until)}

    def transition(self, slots: FreeSlots) -> Transition:
        """The result of all facts, with claims for queued attempts as long as there are free slots."""
        programs, calls = slots
        for command, cause in self._queued:
            state, step = self._run.steps[command.step], self._before.plan.steps[command.step]
            if state.status is not _QUEUED or state.attempt != command.attempt:
                continue
            if step.is_limited:  # claimed when the limits allow it
                continue
            if step.needs_slot:
                if (calls if step.calls else programs) <= 0:
                    continue
                calls, programs = (calls - 1, programs) if step.calls else (calls, programs - 1)
            elif step.is_fetched:  # claimed when a worker asks for it
                continue
            if commands := self._advance(AttemptStarted(command.step, command.attempt)):
                self._commands += commands
            self._claim(Claim(command.step, command.attempt, cause))
        self._queued.clear()
        if has_timeouts(self._before.plan):
            self._commands = without_cleared(self._commands)
        return Transition(
            self._before, self.record, self._commands, self._claims, self._all_causes, self._unclaimed
        )  # fmt: skip

    def _note_problem(self, step: int) -> None:
        """Notes with the run if a key of the step's limits has no value."""
        before, run = self._before, self._run
        problem = problem_of_step(before.plan, run, step, before.event, self._outputs, self._errors)
        if problem is not None and problem not in run.problems:
            self._run = run._replace(problems=(*run.problems, problem))

    def _claim(self, claim: Claim) -> None:
        self._claims.append(claim)
        if claim.cause is not None:
            self._causes = {**self._causes, claim.step: (claim.cause.id, self._now)}

    def _advance(self, fact: Fact) -> Sequence[Command]:
        plan, run = self._before.plan, self._run
        answers = NO_ANSWERS
        if not isinstance(fact, AttemptStarted):  # the most frequent fact, which never has questions
            needed = questions(plan, run, fact)
            if needed.edges or needed.pauses or needed.moments:
                answers = self._answers(needed)
        decision = advance(plan, run, fact, answers, self._now)
        self._run = decision.run
        for command in decision.commands:
            if isinstance(command, RecordAttempt):
                self._keep_result(command)
        return decision.commands

    def _answers(self, needed: Questions) -> Answers:
        plan, outputs, errors = self._before.plan, self._outputs, self._errors
        if needed.outcome is not None:  # the parent's result is not in the record yet
            if needed.outcome.error is not None:
                errors = ChainMap({needed.parent: error_json(needed.outcome.error)}, errors)  # type: ignore[arg-type]
            elif needed.outcome.output is not None:
                outputs = ChainMap({needed.parent: needed.outcome.output}, outputs)  # type: ignore[arg-type]
        conditions = {e: compile_expression(plan.edges[e].condition or "true", Scope.CONDITION) for e in needed.edges}
        matches = [compile_expression(plan.pauses[p].match or "true", Scope.MATCH) for p in needed.pauses]
        moments = {e: compile_moment(_until(plan, e), Scope.CONDITION) for e in needed.moments}
        read_by = [*conditions.values(), *matches, *moments.values()]
        variables = edge_variables(plan, needed.parent, self._before.event.as_json(), outputs, errors, read_by)
        bindings = Bindings(**variables)
        return Answers(
            {e: condition.evaluate(bindings) for e, condition in conditions.items()},
            {p: _wait_key(plan, p, variables) for p in needed.pauses},
            {e: _moment(moment, bindings, self._now) for e, moment in moments.items()},
        )

    def _keep_result(self, command: RecordAttempt) -> None:
        step = command.step
        if step in self._causes:
            self._causes = {other: cause for other, cause in self._causes.items() if other != step}
        if command.output is not None and command.status in ("completed", "kept"):
            self._outputs = _with(self._outputs, step, command.output)
        if command.error is not None and self._run.steps[step].status is StepStatus.FAILED:
            self._errors = _with(self._errors, step, error_json(command.error))

    def _claims_again(self, fact: Fact, cause: Cause) -> list[Claim]:
        """Claims of attempts that the same message claimed before it was redelivered; they may not have been started.

        A redelivered `AttemptStarted` is for an attempt that was certainly not started.
        """
        steps = self._run.steps
        if not cause.redelivered or isinstance(fact, CancelRequested):  # a cancellation claims nothing
            return []
        if isinstance(fact, AttemptStarted):
            claimed = [fact.step] if steps[fact.step].attempt == fact.attempt else []
        else:
            claimed = [step for step, (message, _) in self._causes.items() if message == cause.id]
        found = [Claim(i, steps[i].attempt, cause) for i in claimed if steps[i].status is StepStatus.RUNNING]
        if isinstance(fact, AttemptStarted) and found:
            self._causes = {**self._causes, **{claim.step: (cause.id, self._now) for claim in found}}
        return found

    def _end_again(self) -> list[Command]:
        """Commands to repeat when the message that ended a run is redelivered: the end event, which is de-duplicated by
        id, and the stops of a cancelled run."""
        run = self._run
        if run.ended_at is None:
            return []
        stops = [StopStep(i, step.attempt) for i, step in enumerate(run.steps) if step.status is StepStatus.CANCELLED]
        return [EmitEnd(STATUS_NAMES[run.status]), *(stops if run.status is RunStatus.CANCELLED else ())]


def _with(results: Mapping[int, bytes], step: int, result: bytes) -> Mapping[int, bytes]:
    """A copy with this result. Platforms may use lazy mappings, so `|` is used instead of a dict display."""
    copy: Mapping[int, bytes] = results | {step: result}  # type: ignore[operator]
    return copy


def _until(plan: Plan, e: int) -> str:
    pause = plan.edges[e].pause
    return "" if pause is None else plan.pauses[pause].until or ""


def _moment(expression: Expression, bindings: Bindings, now: int) -> Moment:
    found = expression.moment(bindings)
    if found.problem is not None:
        return Moment(problem=found.problem)
    if found.value > now + LONGEST_MS:
        return Moment(problem=f"the time {moment_text(found.value)} is more than 366 days ahead")
    return Moment(found.value)


def _wait_key(plan: Plan, pause: int, variables: dict[str, Any]) -> WaitKey:
    name, index = plan.pauses[pause].event, wait_index(plan.pauses[pause].match)
    if index is None or name is None:
        return WaitKey(None)
    known = {**variables, "user": variables["event"]["user"], "data": variables["event"]["data"]}
    return index.key(name, known)
