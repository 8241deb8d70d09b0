"""From what Lambda hands over to the engine, a batch at a time: the events queue, the outcomes queue, the minute.

One rule: a message is done when everything that follows from it is written and sent. Whatever is not done answers as a
failed item of its batch, is delivered again, and finds what it had done already.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from stepwell.aws.engine.far_timers import FarTimers
from stepwell.aws.engine.outcome_messages import Facts
from stepwell.aws.engine.store import DynamoStore
from stepwell.aws.engine.sweeper import Sweeper
from stepwell.aws.engine.timers import Timers
from stepwell.aws.engine.wait_pages import Waking
from stepwell.aws.functions.event_types import TypeStore
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.schedules import Schedules
from stepwell.aws.observability import duration
from stepwell.aws.queues.event_messages import Refused, read_arrival
from stepwell.aws.queues.messages import (
    CANCEL,
    cancel_message,
    delay_s,
    ended_message,
    release_message,
    stop_message,
    tell_message,
    tell_name,
)
from stepwell.aws.queues.messages import entry as queued
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.steps.dispatch import LambdaDispatcher
from stepwell.aws.table.keys import STATUS_SHARDS, TIMER_SHARDS
from stepwell.aws.table.lists import Lists
from stepwell.aws.table.samples import read_samples
from stepwell.core.events.events import Event
from stepwell.core.routing.guard import judge, rollback_event
from stepwell.core.routing.versions import Routing, RoutingChange
from stepwell.core.run.messages import AttemptEnded, CancelRequested, Outcome
from stepwell.core.run.resume import Restart
from stepwell.core.signing import KeysUnreadable
from stepwell.engine import Engine, IncomingEvent, RunFact
from stepwell.platform import Cause, NotWritten, Replayed

if TYPE_CHECKING:
    from stepwell.core.run.approvals import Link, Links

log = logging.getLogger("stepwell.aws")

SqsEvent = dict[str, Any]
SqsAnswer = dict[str, list[dict[str, str]]]
_GUARDED_BY = 500  # of the newest runs
_TOLD_S = 10  # after which a cancel or a decision that nobody heard the end of is written, or never will be
_RELEASED_S = 10  # after which a resume that nobody heard the end of is written, or never will be
_TIMERS_MS, _SWEEP_MS = 40_000, 50_000  # of the 55 s that `tick` has, until which it sends timers, and sweeps
_LISTED_MS = 30_000  # a container that starts while its run is cancelled is in no list of ECS yet; by then it is
_ENDED = re.compile(r'\{"stepwell":"ended","run":"([a-z2-7]{26})"\}')
_ENVELOPE = re.compile(r'\{"version": ?"0", ?"id": ?"([^"]+)"')  # of EventBridge


class Entry:
    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.registry = Registry(resources)
        self.types = TypeStore(resources)
        self.timers = Timers(resources)
        self.tokens = Tokens(resources)
        waking = Waking(resources, self.tokens)
        self.store = DynamoStore(resources, self.registry, self.timers, waking, Lists(resources))
        self.dispatcher = LambdaDispatcher(resources, self.registry, self.tokens)
        self.engine = Engine(self.store, self.dispatcher, resources.env, self.links)
        self._facts = Facts(
            self.store, self.engine, self.tokens, waking, self.dispatcher, self.timers, resources.cache_s
        )
        self._schedules = Schedules(resources)
        self.far_timers = FarTimers(resources)
        self.sweeper = Sweeper(resources, self.registry, self.tokens)

    # --- queues ----------------------------------------------------------------------------------------------------

    def route(self, event: SqsEvent) -> SqsAnswer:
        """A batch of the queue `events`: accept them, with all that follows."""

        def read(record: Any, cause: Cause, now: int) -> tuple[list[IncomingEvent], list[RunFact]]:
            arrival = read_arrival(record["body"], cause, now)
            return ([] if arrival is None else self._judged(arrival, cause, now)), []

        return self._batch(event, read)

    def _judged(self, arrival: IncomingEvent | Refused, cause: Cause, now: int) -> list[IncomingEvent]:
        """What is left of an event when its type has spoken: itself, or what tells of it."""
        types, event = self.types.current(), arrival.event
        refused = types.refused([(0, event)]) if types.has_any else []
        if isinstance(arrival, IncomingEvent):
            # What was accepted when this message came first goes on, whatever its type says by now.
            if not refused or (cause.redelivered and self.store.events([event.id])):
                return [arrival]
        return [alert for _, _, errors in refused for alert in self.engine.refuse(event, errors, now, cause)]

    def advance(self, event: SqsEvent) -> SqsAnswer:
        """A batch of the queue `outcomes`: what came back from attempts, timers that are due."""
        return self._batch(event, self._facts.read, self._facts.load)

    def _batch(
        self,
        event: SqsEvent,
        read: Callable[[Any, Cause, int], tuple[list[IncomingEvent], list[RunFact]]],
        load: Callable[[Sequence[Any]], None] = lambda records: None,
    ) -> SqsAnswer:
        now = now_ms()
        self.store.begin()
        try:
            self.tokens.require()
        except KeysUnreadable as error:
            log.warning("a batch of %s messages comes again: %s", len(event["Records"]), error)
            return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in event["Records"]]}
        try:
            load(event["Records"])
        except Exception:  # each message then reads what it needs by itself, or fails alone
            log.warning("the runs of a batch cannot be read together", exc_info=True)
        failed: set[str] = set()
        messages: dict[str, list[str]] = {}  # by cause
        arrivals: list[IncomingEvent] = []
        facts: list[RunFact] = []
        for record in event["Records"]:
            cause = _cause(record)
            duration("MessageLag", now - int(record["attributes"].get("SentTimestamp", now)))
            messages.setdefault(cause.id, []).append(record["messageId"])
            try:
                new_arrivals, new_facts = read(record, cause, now)
            except Exception:
                log.exception("message %s cannot be read; it comes again, and in the end to the dead letters", cause.id)
                failed.add(cause.id)
                continue
            arrivals += new_arrivals
            facts += new_facts
        try:
            failed |= self._process(arrivals, facts, now)
        except Exception:
            log.exception("a batch of %s messages could not be done; all of it comes again", len(messages))
            failed |= set(messages)
        return {"batchItemFailures": [{"itemIdentifier": m} for name in failed for m in messages.get(name, ())]}

    def _process(self, arrivals: Sequence[IncomingEvent], facts: Sequence[RunFact], now: int) -> set[str]:
        """The causes of what could not be done."""
        undone = self.engine.process(arrivals, self.store.keep_outcomes(facts, now), now)
        return undone | self._finish(now)

    def _finish(self, now: int) -> set[str]:
        late = self.store.overtaken()
        undone = self.engine.process([], late, now) if late else set()
        self.dispatcher.finish(now)
        self._stop_containers(now)
        self.store.flush(now)
        return undone

    def _stop_containers(self, now: int) -> None:
        """Not every Lambda may stop containers, so that `advance` is asked to. Raises NotSent."""
        records = self.store.load(self.dispatcher.take_stopped())
        due = [
            (stop_message(run_id, at), at)
            for run_id, record in records.items()
            if any(step.runtime.type == "docker" for step in record.plan.steps)
            for at in (now, now + _LISTED_MS)
        ]
        send_messages(self.resources.outcomes_queue, [queued(body, delay_s(at, now)) for body, at in due])

    # --- the minute ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Cron triggers and far timers that are due soon become messages; runs that may stand still are looked at. What
        is wrong with one of these holds up none of the others. Raises the first error when all is done."""
        now = now_ms()
        minute = now // 60_000
        errors: list[Exception] = []
        for work in (
            lambda: self._ticks_and_guards(now),
            lambda: self.far_timers.move(now, now + _TIMERS_MS),
            lambda: self.far_timers.send_late(minute % TIMER_SHARDS, now, now + _TIMERS_MS),
            lambda: self.sweeper.sweep(minute % STATUS_SHARDS, now + _SWEEP_MS),
        ):
            try:
                work()
            except Exception as error:
                log.exception("a part of the minute's work failed")
                errors.append(error)
        if errors:
            raise errors[0]

    def _ticks_and_guards(self, now: int) -> None:
        for function_id in self._schedules.send(now, self.tokens):
            self._guard(function_id, now)

    def _guard(self, function_id: str, now: int) -> None:
        """Look at a guarded canary. The event that tells of its rollback is sent before: done again, it is the same."""
        routing = self.registry.routing(function_id)
        if routing is None:
            return
        verdict = judge(routing, read_samples(self.resources.table, self.store.lists, function_id, _GUARDED_BY), now)
        event = rollback_event(function_id, routing, verdict, now)
        if event is not None:
            log.warning("%s: version %s is rolled back: %s", function_id, event.data["version"], verdict.reason)
            text = event.body.decode()
            message = tell_message(text, self.tokens.of(*tell_name(event.id, text)))
            send_messages(self.resources.outcomes_queue, [queued(message)])
        if verdict.routing != routing:

            def change(old: Routing, versions: Collection[int], now: int) -> Routing:
                return verdict.routing if old == routing else old

            self.registry.change_routing(function_id, change, now)

    def sweep(self, shards: Sequence[int], silence_ms: int | None = None) -> None:
        """Go on with all open runs of these shards that stand still; `silence_ms` as for `overdue`."""
        self.sweeper.sweep_all(shards, silence_ms)

    # --- what the API asks for -------------------------------------------------------------------------------------

    def cancel(self, run_id: str) -> None:
        """Cancel a run; of one that is cancelled already, stop what may still run of it. Raises NotWritten."""
        now = now_ms()
        self.store.begin()
        record = self.store.load([run_id]).get(run_id)
        if record is not None and record.run.ended_at is None:
            self._tell_all_the_same(run_id)
        cause = _cause_of(f"ended/{run_id}", redelivered=True)  # the same when it is asked again, or by the message
        if self._process([], [RunFact(run_id, CancelRequested(), cause)], now):
            raise NotWritten(f"run {run_id} could not be cancelled")
        record = self.store.load([run_id]).get(run_id)
        if record is not None and any(step.runtime.type == "docker" for step in record.plan.steps):
            self.dispatcher.containers.stop(run_id)

    def _tell_all_the_same(self, run_id: str) -> None:
        """Of the end of a run that this process is about to change, should it die before it does."""
        send_messages(self.resources.outcomes_queue, [queued(ended_message(run_id), _TOLD_S)])

    def links(self) -> Links:
        """Those by which people decide on approvals."""
        from stepwell.core.run.approvals import Links  # most functions ask nobody

        return Links(self.resources.api_url, self.tokens)

    def decide(self, link: Link, outcome: Outcome) -> bool:
        """End an approval so; False if it was not open any more. Raises NotWritten, KeysUnreadable."""
        from stepwell.core.run.approvals import Standing, standing

        now = now_ms()
        self.tokens.require()
        self.store.begin()
        record = self.store.load([link.run_id]).get(link.run_id)
        if record is None or standing(record.run, link, now) is not Standing.OPEN:
            return False
        self._tell_all_the_same(link.run_id)
        fact = AttemptEnded(link.step, link.attempt, outcome)
        cause = _cause_of(f"ended/{link.run_id}", redelivered=False)  # that of the message, if it ends the run
        undone = self.engine.process([], [RunFact(link.run_id, fact, cause)], now)  # now: it does not wait for others
        if undone | self._finish(now):
            raise NotWritten(f"the decision on run {link.run_id} could not be written")
        # Somebody else may have been faster: the run took the first.
        return self.store.load([link.run_id])[link.run_id].outputs.get(link.step) == outcome.output

    def rerun(self, run_id: str, restart: Restart | None = None) -> str | None:
        """Run the same event again, from the start or from a step; the new run's id, None if the function is not live.
        Raises NotWritten, CannotResume, KeysUnreadable."""
        now = now_ms()
        self.tokens.require()
        self.store.begin()
        record = self.store.load([run_id])[run_id]
        token = uuid4().hex
        cause = Cause(token[:12], redelivered=False)
        self.engine.process([], [RunFact(run_id, fact, cause) for fact in self.store.waiting(record)], now)
        record = self.store.load([run_id])[run_id]
        new_id = self.engine.rerun(record, token, now, cause, restart)
        if new_id is not None:
            self.store.put_reruns([new_id])
        self._finish(now)
        return new_id

    def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> list[Replayed] | None:
        """Run events on a version; None if there is no such version. Raises NotWritten and
        KeysUnreadable: ask again."""
        now = now_ms()
        self.tokens.require()
        self.store.begin()
        try:
            plan = self.registry.version(function_id, version).plan
        except KeyError:
            return None
        cause = blake2b(f"{function_id}/{replay}".encode(), digest_size=8).hexdigest()  # its events are its own again
        done = self.engine.replay(plan, events, replay, now, Cause(cause, redelivered=False))
        self.store.put_reruns(list(dict.fromkeys(replayed.run_id for replayed in done if replayed.run_id is not None)))
        self._finish(now)
        return done

    def change_routing(self, function_id: str, change: RoutingChange) -> Routing:
        """Change how new runs choose their version. Raises KeyError, NotPossible."""
        queue, message = self.resources.outcomes_queue, release_message(function_id, None)

        def told(old: Routing, versions: Collection[int], now: int) -> Routing:
            new = change(old, versions, now)
            if old.is_paused and not new.is_paused:  # should this process die, what is kept is routed all the same
                send_messages(queue, [queued(message, _RELEASED_S)])
            return new

        routing = self.registry.change_routing(function_id, told, now_ms())
        if not routing.is_paused:
            send_messages(queue, [queued(message)])
        return routing

    def cancel_runs(self, function_id: str) -> None:
        """Cancel the open runs of a function, soon."""
        message = cancel_message(function_id, None, self.tokens.of(function_id, CANCEL, 0))
        send_messages(self.resources.outcomes_queue, [queued(message)])


@lru_cache(maxsize=1)
def entry() -> Entry:
    """The one of this process."""
    return Entry(Resources.from_environment())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _cause(record: Any) -> Cause:
    """EventBridge may deliver an event in two messages, so an event's identity is the id that EventBridge gave it."""
    body: str = record["body"]
    if ended := _ENDED.match(body):  # the cause is who ended the run
        return _cause_of(f"ended/{ended[1]}", redelivered=True)
    envelope = _ENVELOPE.match(body)
    identity: str = record["messageId"] if envelope is None else envelope[1]
    return _cause_of(identity, redelivered=int(record["attributes"]["ApproximateReceiveCount"]) > 1)


def _cause_of(identity: str, *, redelivered: bool) -> Cause:
    return Cause(blake2b(identity.encode(), digest_size=8).hexdigest(), redelivered)
