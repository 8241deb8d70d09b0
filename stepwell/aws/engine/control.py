"""Operations of the API on the engine: cancel, decide, rerun, replay, and changes of a function's routing.

HTTP requests are not redelivered. So a request that must not stay half done first sends a delayed message, which
completes the work if the process dies. NotWritten and NotSent mean that the client must send the request again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import uuid4

from stepwell.aws.engine.message_facts import MessageFacts
from stepwell.aws.engine.session import EngineSession, cause_of, engine_session, now_ms
from stepwell.aws.queues.message_identity import ended_identity
from stepwell.aws.queues.messages import CANCEL, cancel_message, ended_message, release_message
from stepwell.aws.queues.messages import entry as queued
from stepwell.aws.queues.outbox import send_messages
from stepwell.core.events.events import Event
from stepwell.core.routing.versions import Routing, RoutingChange
from stepwell.core.run.messages import AttemptEnded, CancelRequested, Outcome
from stepwell.core.run.resume import Restart
from stepwell.engine.replay import replay_events
from stepwell.engine.rerun import rerun
from stepwell.platform import Cause, NotWritten, Replayed, RunFact

if TYPE_CHECKING:
    from stepwell.core.run.approvals import Link

_ENDED_S = 10  # delay of the message: a cancel or a decision is written by then, or never
_RELEASED_S = 10  # delay of the message: a resume is written by then, or never


class Control:
    """The operations, each in a batch of the engine."""

    def __init__(self, session: EngineSession) -> None:
        self._session, self._store, self._engine = session, session.store, session.engine
        self._queue = session.resources.outcomes_queue

    def cancel(self, run_id: str) -> None:
        """Cancels a run and stops the containers of it, also if it was cancelled before. Raises NotWritten."""
        batch = self._store.batch(now_ms())
        record = batch.load([run_id]).get(run_id)
        if record is not None and record.run.ended_at is None:
            self._send_ended(run_id)
        cause = cause_of(ended_identity(run_id), redelivered=True)  # the same for a repeated request and the message
        if self._session.process(batch, MessageFacts(facts=[RunFact(run_id, CancelRequested(), cause)])):
            raise NotWritten(f"run {run_id} could not be cancelled")
        record = batch.load([run_id]).get(run_id)
        if record is not None and any(step.runtime.type == "docker" for step in record.plan.steps):
            self._session.dispatcher.containers.stop(run_id)

    def _send_ended(self, run_id: str) -> None:
        """Sends a delayed message that completes the end of a run, in case this process dies after writing it."""
        send_messages(self._queue, [queued(ended_message(run_id), _ENDED_S)])

    def decide(self, link: Link, outcome: Outcome) -> bool:
        """Ends an approval with this outcome. False if it is no longer open. Raises NotWritten, KeysUnreadable."""
        from stepwell.core.run.approvals import Standing, standing  # few functions have approvals

        self._session.tokens.require()
        batch = self._store.batch(now_ms())
        record = batch.load([link.run_id]).get(link.run_id)
        if record is None or standing(record.run, link, batch.now) is not Standing.OPEN:
            return False
        self._send_ended(link.run_id)
        fact = AttemptEnded(link.step, link.attempt, outcome)
        cause = cause_of(ended_identity(link.run_id), redelivered=False)  # the same as the message's
        undone = self._engine.process(batch, [], [RunFact(link.run_id, fact, cause)])  # never left pending
        if undone or self._session.finish(batch):
            raise NotWritten(f"the decision on run {link.run_id} could not be written")
        # The run takes the first of two concurrent decisions.
        return batch.load([link.run_id])[link.run_id].outputs.get(link.step) == outcome.output

    def rerun(self, run_id: str, restart: Restart | None = None) -> str | None:
        """Runs the same event again, from the start or from a step. Returns the id of the new run, or None if the
        function is not live. Raises NotWritten, CannotResume, KeysUnreadable."""
        self._session.tokens.require()
        batch = self._store.batch(now_ms())
        record = batch.load([run_id])[run_id]
        token = uuid4().hex
        cause = Cause(token[:12], redelivered=False)
        self._engine.process(batch, [], [RunFact(run_id, fact, cause) for fact in batch.pending_outcomes(record)])
        record = batch.load([run_id])[run_id]
        new_id = rerun(self._engine, batch, record, token, cause, restart)
        if new_id is not None:
            batch.put_reruns([new_id])
        self._session.finish(batch)
        return new_id

    def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> list[Replayed] | None:
        """Runs events on a version. None if the version does not exist. Raises NotWritten, KeysUnreadable."""
        self._session.tokens.require()
        batch = self._store.batch(now_ms())
        try:
            plan = self._session.registry.version(function_id, version).plan
        except KeyError:
            return None
        # a repeated request has the same cause, so it finds the runs of the first request
        cause = cause_of(f"{function_id}/{replay}", redelivered=False)
        done = replay_events(self._engine, batch, plan, events, replay, cause)
        batch.put_reruns(list(dict.fromkeys(replayed.run_id for replayed in done if replayed.run_id is not None)))
        self._session.finish(batch)
        return done

    def change_routing(self, function_id: str, change: RoutingChange) -> Routing:
        """Changes how new runs choose a version. Raises KeyError, NotPossible, NotSent."""
        message = release_message(function_id, None)

        def change_and_release(old: Routing, versions: Collection[int], now: int) -> Routing:
            new = change(old, versions, now)
            if old.is_paused and not new.is_paused:  # releases the kept events even if this process dies
                send_messages(self._queue, [queued(message, _RELEASED_S)])
            return new

        routing = self._session.releases.change_routing(function_id, change_and_release, now_ms())
        if not routing.is_paused:
            send_messages(self._queue, [queued(message)])
        return routing

    def cancel_runs(self, function_id: str) -> None:
        """Requests that all open runs of a function be cancelled; `advance` does it. Raises NotSent."""
        message = cancel_message(function_id, None, self._session.tokens.of(function_id, CANCEL, 0))
        send_messages(self._queue, [queued(message)])


@lru_cache(maxsize=1)
def control() -> Control:
    """The process-wide Control."""
    return Control(engine_session())
