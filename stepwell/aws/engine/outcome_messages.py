"""Messages of the queue `outcomes` become facts: a table from each kind of message to its handler.

Every step's role may send such messages, since Lambda sends outcomes with it. One rule for all handlers: what nobody
but the engine can know, such as an outcome, a tick or what was lost, is believed only with its token, and anything else
only if it is due by what is stored: so a timer by its run.
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
            received.ContinueScan: runs.look_further,
            received.RunEnded: runs.run_ended,
            received.WakeMore: runs.wake_more,
            received.TickDue: functions.tick_due,
            received.SendEvent: functions.tell_event,
            received.ReleaseEvents: functions.release_events,
            received.CancelRuns: functions.cancel_runs,
        }

    @property
    def kinds(self) -> set[type[received.Message]]:
        return set(self._handlers)

    def load(self, batch: DynamoBatch, messages: Iterable[received.Message]) -> None:
        """Read the runs that a batch is about with one request."""
        runs = set(map(received.run_of, messages))
        batch.load(sorted(run for run in runs if isinstance(run, str) and _RUN_ID.fullmatch(run)))

    def facts(self, batch: DynamoBatch, message: received.Message, cause: Cause) -> MessageFacts:
        """What a message brings. Raises whatever keeps it from being read: it must come again."""
        return self._handlers[type(message)](batch, message, cause)
