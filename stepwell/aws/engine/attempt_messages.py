"""Handlers of messages about attempts: outcomes, failed starts, and containers that must be stopped."""

from __future__ import annotations

import logging
import re

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.message_facts import NOTHING, MessageFacts
from stepwell.aws.engine.session import EngineSession
from stepwell.aws.observability import count
from stepwell.aws.queues.messages import MAX_DELAY_MS, delay_s, entry, start_again_message
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.queues.received_messages import (
    AttemptName,
    Destination,
    OutcomeReported,
    StartAgain,
    StopContainers,
    TaskStopped,
)
from stepwell.aws.steps.outcomes import outcome_of_destination
from stepwell.core.plan import Step
from stepwell.core.run.messages import AttemptEnded, AttemptLost, AttemptPostponed, AttemptStarted, Outcome
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.platform import Cause, RunFact, RunRecord

log = logging.getLogger("stepwell.aws")
_REQUEST_ID = re.compile(r"[0-9a-f-]{32,36}")
_AGE_SHARE = 10  # an expired invocation is started again after a tenth of the time for which it waited


class AttemptMessages:
    """One method for each kind of message about attempts."""

    def __init__(self, session: EngineSession) -> None:
        self._store, self._tokens, self._dispatcher = session.store, session.tokens, session.dispatcher

    def destination(self, batch: DynamoBatch, message: Destination, cause: Cause) -> MessageFacts:
        attempt = message.attempt
        found = self._find(batch, attempt)
        if found is None:
            return NOTHING
        record, step = found
        request_ids = {}
        request_id = message.request_id
        if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id):  # stored in a format for ids only
            request_ids[attempt.run_id, step, attempt.number] = request_id
        if message.is_expired:
            facts = self._try_again(batch, record, step, attempt, cause)
        else:
            outcome = outcome_of_destination(message.record, record.plan.steps[step], batch.now)
            facts = [RunFact(attempt.run_id, AttemptEnded(step, attempt.number, outcome), cause)]
        return MessageFacts(facts=facts, request_ids=request_ids)

    def task_stopped(self, batch: DynamoBatch, message: TaskStopped, cause: Cause) -> MessageFacts:
        stopped = self._dispatcher.containers.outcome_of_stopped_task(message.event, batch.now)
        if stopped is None:
            return NOTHING
        found = self._find(batch, AttemptName(stopped.run_id, stopped.step, stopped.attempt, stopped.token))
        if found is None:
            return NOTHING
        fact = _ended(found[1], stopped.attempt, stopped.outcome)
        request_ids = {(stopped.run_id, found[1], stopped.attempt): stopped.task}
        return MessageFacts(facts=[RunFact(stopped.run_id, fact, cause)], request_ids=request_ids)

    def outcome_reported(self, batch: DynamoBatch, message: OutcomeReported, cause: Cause) -> MessageFacts:
        found = self._find(batch, message.attempt)
        if found is None:
            return NOTHING
        fact = _ended(found[1], message.attempt.number, message.outcome)
        return MessageFacts(facts=[RunFact(message.attempt.run_id, fact, cause)])

    def start_again(self, batch: DynamoBatch, message: StartAgain, cause: Cause) -> MessageFacts:
        found = self._find(batch, message.attempt)
        if found is None:
            return NOTHING
        fact = AttemptStarted(found[1], message.attempt.number)
        return MessageFacts(facts=[RunFact(message.attempt.run_id, fact, Cause(cause.id, redelivered=True))])

    def stop_containers(self, batch: DynamoBatch, message: StopContainers, cause: Cause) -> MessageFacts:
        record = batch.load([message.run_id]).get(message.run_id)
        if record is not None and record.run.status is RunStatus.CANCELLED:  # a forged message must not stop containers
            self._dispatcher.containers.stop(message.run_id)
        return NOTHING

    def _find(self, batch: DynamoBatch, attempt: AttemptName) -> tuple[RunRecord, int] | None:
        """The run of an attempt and the index of the step; None if the token is not valid or the run is deleted."""
        if not self._tokens.is_valid(attempt.token, attempt.run_id, attempt.step_id, attempt.number):
            count("OutcomesRefused")
            log.error("outcome refused, token not valid: run %r, step %r", attempt.run_id, attempt.step_id)
            return None
        record = batch.load([attempt.run_id]).get(attempt.run_id)
        if record is None:
            log.warning("outcome dropped, run deleted: run %s", attempt.run_id)
            return None
        return record, _index(record.plan.steps, attempt.step_id)

    def _try_again(
        self, batch: DynamoBatch, record: RunRecord, step: int, attempt: AttemptName, cause: Cause
    ) -> list[RunFact]:
        """Schedules a new start of an attempt whose invocation expired in Lambda's queue and was never executed.

        This is not counted as a loss or as a failure. The fact records when the attempt will be claimed again, and the
        sweeper measures silence from that time on.
        """
        state = record.run.steps[step]
        if state.status is not StepStatus.RUNNING or state.attempt != attempt.number:
            return []
        log.warning("attempt not started: run %s, step %s, attempt %s", attempt.run_id, attempt.step_id, attempt.number)
        due = batch.now + min(MAX_DELAY_MS, max(1000, (batch.now - state.at) // _AGE_SHARE))
        message = start_again_message(attempt.run_id, attempt.step_id, attempt.number, str(attempt.token), due)
        send_messages(self._dispatcher.outcomes_queue, [entry(message, delay_s(due, batch.now))])
        postponed = AttemptPostponed(step, attempt.number, due)
        return [RunFact(attempt.run_id, postponed, Cause(cause.id, redelivered=False))]


def _ended(step: int, attempt: int, outcome: Outcome | None) -> AttemptEnded | AttemptLost:
    return AttemptLost(step, attempt) if outcome is None else AttemptEnded(step, attempt, outcome)


def _index(steps: tuple[Step, ...], step_id: str) -> int:
    return next(i for i, step in enumerate(steps) if step.id == step_id)
