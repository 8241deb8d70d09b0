"""What people ask the engine for through the API: cancel, decide, rerun, replay, and how a function's runs begin.

HTTP requests are not redelivered. One rule: whatever a request must not leave half done is sent as a message first,
which comes when the request must be over; NotWritten and NotSent mean that the client asks again.
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

_ENDED_S = 10  # after which a cancel or a decision whose request died is written, or never will be
_RELEASED_S = 10  # after which a resume whose request died is written, or never will be


class Control:
    def __init__(self, session: EngineSession) -> None:
        self._session, self._store, self._engine = session, session.store, session.engine
        self._queue = session.resources.outcomes_queue

    def cancel(self, run_id: str) -> None:
        """Cancel a run; of a run that is cancelled already, stop what may still run. Raises NotWritten."""
        batch = self._store.batch(now_ms())
        record = batch.load([run_id]).get(run_id)
        if record is not None and record.run.ended_at is None:
            self._send_ended(run_id)
        cause = cause_of(ended_identity(run_id), redelivered=True)  # the same when it is asked again, or by the message
        if self._session.process(batch, MessageFacts(facts=[RunFact(run_id, CancelRequested(), cause)])):
            raise NotWritten(f"run {run_id} could not be cancelled")
        record = batch.load([run_id]).get(run_id)
        if record is not None and any(step.runtime.type == "docker" for step in record.plan.steps):
            self._session.dispatcher.containers.stop(run_id)

    def _send_ended(self, run_id: str) -> None:
        """Have the end of a run told, should this process die between writing it and telling of it."""
        send_messages(self._queue, [queued(ended_message(run_id), _ENDED_S)])

    def decide(self, link: Link, outcome: Outcome) -> bool:
        """End an approval with this outcome; False if it was not open any more. Raises NotWritten, KeysUnreadable."""
        from stepwell.core.run.approvals import Standing, standing  # most functions ask nobody

        self._session.tokens.require()
        batch = self._store.batch(now_ms())
        record = batch.load([link.run_id]).get(link.run_id)
        if record is None or standing(record.run, link, batch.now) is not Standing.OPEN:
            return False
        self._send_ended(link.run_id)
        fact = AttemptEnded(link.step, link.attempt, outcome)
        cause = cause_of(ended_identity(link.run_id), redelivered=False)  # that of the message, if it ends the run
        undone = self._engine.process(batch, [], [RunFact(link.run_id, fact, cause)])  # it does not wait for others
        if undone or self._session.finish(batch):
            raise NotWritten(f"the decision on run {link.run_id} could not be written")
        # Somebody else may have been faster: the run took the first.
        return batch.load([link.run_id])[link.run_id].outputs.get(link.step) == outcome.output

    def rerun(self, run_id: str, restart: Restart | None = None) -> str | None:
        """Run the same event again, from the start or from a step. Answers the new run's id, or None if the function is
        not live. Raises NotWritten, CannotResume, KeysUnreadable."""
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
        """Run events on a version; None if there is no such version. Raises NotWritten, KeysUnreadable: ask again."""
        self._session.tokens.require()
        batch = self._store.batch(now_ms())
        try:
            plan = self._session.registry.version(function_id, version).plan
        except KeyError:
            return None
        cause = cause_of(f"{function_id}/{replay}", redelivered=False)  # its events are its own again
        done = replay_events(self._engine, batch, plan, events, replay, cause)
        batch.put_reruns(list(dict.fromkeys(replayed.run_id for replayed in done if replayed.run_id is not None)))
        self._session.finish(batch)
        return done

    def change_routing(self, function_id: str, change: RoutingChange) -> Routing:
        """Change how new runs choose their version. Raises KeyError, NotPossible."""
        message = release_message(function_id, None)

        def change_and_release(old: Routing, versions: Collection[int], now: int) -> Routing:
            new = change(old, versions, now)
            if old.is_paused and not new.is_paused:  # should this process die, what was kept is routed all the same
                send_messages(self._queue, [queued(message, _RELEASED_S)])
            return new

        routing = self._session.releases.change_routing(function_id, change_and_release, now_ms())
        if not routing.is_paused:
            send_messages(self._queue, [queued(message)])
        return routing

    def cancel_runs(self, function_id: str) -> None:
        """Cancel the open runs of a function, soon."""
        message = cancel_message(function_id, None, self._session.tokens.of(function_id, CANCEL, 0))
        send_messages(self._queue, [queued(message)])


@lru_cache(maxsize=1)
def control() -> Control:
    """The process-wide control."""
    return Control(engine_session())
