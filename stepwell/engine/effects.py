"""The effects of committed transitions, as data: attempts to start, queue and stop, events, and further facts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stepwell.core.events.events import Event, Invalid
from stepwell.core.run.inputs import MAX_INPUT_BYTES, InputTexts, async_event_ids, step_input
from stepwell.core.run.messages import AttemptEnded, EmitEnd, Error, Outcome, RecordAttempt, RunStep, StopStep
from stepwell.core.run.permits import RUN
from stepwell.core.run.run import StepStatus, has_begun
from stepwell.core.run.run_events import end_event
from stepwell.core.run.stored_links import whole_body
from stepwell.platform import (
    Attempt,
    Cause,
    Claim,
    Effects,
    Ended,
    IncomingEvent,
    QueuedAttempt,
    RunFact,
    RunRecord,
    Transition,
)

if TYPE_CHECKING:
    from stepwell.core.run.approvals import Links

_QUEUED, _RUNNING = StepStatus.QUEUED, StepStatus.RUNNING  # until Python 3.11, an enum is slow to look one up

Judge = Callable[[Event], Sequence[Invalid]]

log = logging.getLogger("stepwell.engine")


@dataclass(slots=True)
class Consequences:
    """The consequences of transitions: `effects` for the dispatcher, and facts to fold at once."""

    effects: Effects = field(default_factory=Effects)
    facts: list[RunFact] = field(default_factory=list)


def events_for_inputs(transition: Transition) -> list[str]:
    """The ids of the events in the inputs of claimed attempts, except the run's own event."""
    record = transition.record
    return [event for claim in transition.claims for event in async_event_ids(record.plan, record.run, claim.step)]


class Follower:
    """Derives the consequences of transitions. `links` signs approval links; it is called for the first approval.
    `judge` returns the errors for which an event of a step is refused."""

    def __init__(self, env: str, links: Callable[[], Links], judge: Judge) -> None:
        self._env, self._links, self._judge = env, links, judge
        self._link_keys = lambda: links().keys

    def follow(self, transition: Transition, events: Mapping[str, Event], now: int, found: Consequences) -> None:
        """Adds the consequences of a transition to `found`. `events` are those of `events_for_inputs` that are
        stored."""
        record, effects = transition.record, found.effects
        cause = transition.causes[-1] if transition.causes else None
        for command in transition.commands:
            if isinstance(command, RunStep):
                state = record.run.steps[command.step]
                if state.status is _QUEUED and state.attempt == command.attempt:
                    effects.queued.append(QueuedAttempt(record, command.step, command.attempt, cause))
            elif isinstance(command, StopStep):
                effects.stops.append((record.run.id, command.step, command.attempt))
            elif isinstance(command, EmitEnd):
                event = end_event(record.plan, record.run, record.event, record.errors, now, record.replay)
                if event is not None:
                    effects.events.append(IncomingEvent(event, cause=cause))
            elif isinstance(command, RecordAttempt) and record.plan.steps[command.step].is_limited:
                effects.ended.append(Ended(record.run.id, command.step, command.attempt, cause))
        if record.plan.start_limits:
            self._hold(transition, cause, effects)
        if transition.unclaimed:
            effects.released += [(record.run.id, fact.step, fact.attempt) for fact in transition.unclaimed]
        for claim in transition.claims:
            if record.run.steps[claim.step].status is not _RUNNING:  # cancelled by another fact of the transition
                self._release(record, claim, effects)
            elif record.plan.steps[claim.step].is_approval:
                self._ask(record, claim, now, found)
            elif record.plan.steps[claim.step].is_emit:
                self._emit(record, claim, events, now, found)
            else:
                self._start(record, claim, events, found)

    @staticmethod
    def _hold(transition: Transition, cause: Cause | None, effects: Effects) -> None:
        """Holds a run that was just created, or reports the end of one, for the limits of its function's starts."""
        run = transition.record.run
        if run.ended_at is not None:
            effects.ended.append(Ended(run.id, RUN, 0, cause))
        elif not has_begun(run):
            effects.held.append(QueuedAttempt(transition.record, RUN, 0, cause))

    @staticmethod
    def _release(record: RunRecord, claim: Claim, effects: Effects) -> None:
        if claim.holds_slot:
            effects.released.append((record.run.id, claim.step, claim.attempt))

    def _start(self, record: RunRecord, claim: Claim, events: Mapping[str, Event], found: Consequences) -> None:
        """Adds the start of a claimed attempt. If the input is too large, the attempt fails without being started."""
        document = self._input_or_error(record, claim.step, events)
        if isinstance(document, bytes):
            attempt = Attempt(record, claim.step, claim.attempt, document, claim.cause)
            found.effects.starts.append(attempt)
            return
        self._release(record, claim, found.effects)
        found.facts.append(_failed(record, claim, document))

    def _ask(self, record: RunRecord, claim: Claim, now: int, found: Consequences) -> None:
        """Adds the event that requests an approval; the decision comes back as the end of the attempt. If the message
        cannot be evaluated, the attempt fails."""
        from stepwell.core.run.approvals import approval_message, requested_event  # imported late: seldom used

        run, plan, trigger = record.run, record.plan, record.event
        message = approval_message(plan, run, claim.step, trigger.as_json(), record.outputs, record.errors)
        if message.error is not None:
            found.facts.append(_failed(record, claim, message.error))
            return
        event = requested_event(plan, run, claim.step, trigger, message.text, self._links(), now, record.replay)
        if event is not None:
            found.effects.events.append(IncomingEvent(event, cause=claim.cause))

    def _emit(
        self, record: RunRecord, claim: Claim, events: Mapping[str, Event], now: int, found: Consequences
    ) -> None:
        """Adds the event that a step sends, and the end of the attempt, which is folded when the event is durable."""
        from stepwell.core.run.emit import NotEmitted, emitted_event, refused, sent  # imported late: seldom used

        self._release(record, claim, found.effects)
        document = self._input_or_error(record, claim.step, events)
        if not isinstance(document, bytes):
            found.facts.append(_failed(record, claim, document))
            return
        try:
            event = emitted_event(record.plan.steps[claim.step], record.run.id, document, now)
        except NotEmitted as reason:
            found.facts.append(_failed(record, claim, reason.error))
            return
        if errors := self._judge(event):
            found.facts.append(_failed(record, claim, refused(event, errors)))
            return
        found.effects.emitted.append(IncomingEvent(event, cause=claim.cause))
        ended = AttemptEnded(claim.step, claim.attempt, sent(event))
        found.facts.append(RunFact(record.run.id, ended, claim.cause))

    def _input_or_error(self, record: RunRecord, step: int, events: Mapping[str, Event]) -> bytes | Error:
        """The step's input, or the error why it cannot be built."""
        try:
            document = self._input(record, step, events)
        except KeyError:  # for example, after rows were deleted by hand
            log.exception("an output of run %s is missing", record.run.id)
            return Error("input_lost", "an output that the step's input needs is no longer stored")
        if len(document) <= MAX_INPUT_BYTES:
            return document
        return Error(
            "input_too_large",
            f"the step's input is {len(document):,} bytes, more than {MAX_INPUT_BYTES:,}; "
            "store large data elsewhere in earlier steps, and pass a reference",
        )

    def _input(self, record: RunRecord, step: int, events: Mapping[str, Event]) -> bytes:
        ids = async_event_ids(record.plan, record.run, step) if record.plan.pauses else ()
        # Some stores keep approval links without signatures; `whole_body` restores them.
        async_events = [events[event_id] for event_id in ids if event_id in events] if ids else ()
        async_bodies = [whole_body(event, self._link_keys) for event in async_events] if async_events else ()
        body = whole_body(record.event, self._link_keys)
        texts = InputTexts(body, async_bodies, record.outputs, record.errors, record.joined)
        return step_input(record.plan, record.run, step, texts, env=self._env, replay=record.replay)


def _failed(record: RunRecord, claim: Claim, error: Error) -> RunFact:
    outcome = Outcome(error=error, retryable=False)
    return RunFact(record.run.id, AttemptEnded(claim.step, claim.attempt, outcome), claim.cause)
