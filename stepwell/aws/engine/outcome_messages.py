"""Turns messages of the queue `outcomes` into facts: a table from each kind of message to a handler.

The role of every step may send such messages, because Lambda sends outcomes with that role. So no handler trusts a
message. Outcomes, ticks and overdue facts must contain a valid token. Other messages have an effect only if it agrees
with the stored state: a timer, for example, must be due according to the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from stepwell.aws.engine.attempt_messages import AttemptMessages
from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.function_messages import FunctionMessages
from stepwell.aws.engine.message_facts import MessageFacts
from stepwell.aws.engine.run_messages import RunMessages
from stepwell.aws.engine.session import EngineSession
from stepwell.aws.queues import received_messages as received
from stepwell.platform import Cause

_RUN_ID = re.compile(r"[a-z2-7]{26}")

Handler = Callable[[DynamoBatch, Any, Cause], MessageFacts]


class OutcomeMessageHandlers:
    """The handler of each kind of message."""

    def __init__(self, session: EngineSession) -> None:
        attempts, runs, functions = AttemptMessages(session), RunMessages(session), FunctionMessages(session)
        self._handlers: dict[type[received.Message], Handler] = {
            received.Destination: attempts.destination,
            received.TaskStopped: attempts.task_stopped,
            received.OutcomeReported: attempts.outcome_reported,
            received.StartAgain: attempts.start_again,
            received.StopContainers: attempts.stop_containers,
            received.FactsOverdue: runs.facts_overdue,
            received.TimerDue: runs.timer_due,
            received.ContinueScan: runs.continue_scan,
            received.RunEnded: runs.run_ended,
            received.WakeMore: runs.wake_more,
            received.TickDue: functions.tick_due,
            received.SendEvent: functions.send_event,
            received.ReleaseEvents: functions.release_events,
            received.CancelRuns: functions.cancel_runs,
            received.LimitsChanged: functions.limits_changed,
            received.LimitDue: functions.limit_due,
        }

    @property
    def kinds(self) -> set[type[received.Message]]:
        return set(self._handlers)

    def load(self, batch: DynamoBatch, messages: Iterable[received.Message]) -> None:
        """Loads all runs that a batch of messages is about, with one request."""
        runs = set(map(received.run_of, messages))
        batch.load(sorted(run for run in runs if isinstance(run, str) and _RUN_ID.fullmatch(run)))

    def facts(self, batch: DynamoBatch, message: received.Message, cause: Cause) -> MessageFacts:
        """The events and facts of a message. Any exception means that the message must be delivered again."""
        return self._handlers[type(message)](batch, message, cause)
