"""The objects of the engine in one Lambda: store, dispatcher, engine, and the processing of a batch.

QueueConsumer, Scheduler and Control share this object and nothing else. Runs are read through a batch and not kept
after it, because other processes may have changed them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.limits import Limits
from stepwell.aws.engine.message_facts import MessageFacts
from stepwell.aws.engine.store import DynamoStore
from stepwell.aws.engine.timers import Timers
from stepwell.aws.engine.wait_pages import WaitPages
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import Releases
from stepwell.aws.queues.messages import delay_s, stop_message
from stepwell.aws.queues.messages import entry as queued
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.steps.dispatch import LambdaDispatcher
from stepwell.aws.table.lists import Lists
from stepwell.core.events.events import Event, Invalid
from stepwell.core.run.messages import AttemptEnded, AttemptLost
from stepwell.engine.loop import Engine
from stepwell.event_types.registry import Policy
from stepwell.platform import Cause, RunFact

if TYPE_CHECKING:
    from stepwell.aws.functions.event_types import TypeStore
    from stepwell.core.run.approvals import Links

_LISTED_MS = 30_000  # after which ECS lists a container that started while the run was cancelled


class EngineSession:
    """The store, dispatcher and engine of this process."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.registry = Registry(resources)
        self.releases = Releases(resources, self.registry)
        self.timers = Timers(resources)
        self.tokens = Tokens(resources)
        self.wait_pages = WaitPages(resources, self.tokens)
        self.store = DynamoStore(resources, self.registry, self.timers, self.wait_pages, Lists(resources))
        self.dispatcher = LambdaDispatcher(resources, self.registry, self.tokens)
        self.limits = Limits(resources, self.registry)
        self.engine = Engine(self.dispatcher, resources.env, self.links, self._refuse)
        self._types: TypeStore | None = None

    def links(self) -> Links:
        """Creates the links of approvals."""
        from stepwell.core.run.approvals import Links  # few functions have approvals

        return Links(self.resources.api_url, self.tokens)

    def _refuse(self, event: Event) -> Sequence[Invalid]:
        """The errors of an event that a type refuses. `route` checks types that only warn."""
        if self._types is None:
            from stepwell.aws.functions.event_types import TypeStore  # few functions send events

            self._types = TypeStore(self.resources)
        return self._types.current().errors_if_refused(event, only=Policy.REJECT)

    def process(self, batch: DynamoBatch, messages: MessageFacts) -> set[str]:
        """Processes a batch and everything that follows from it. Returns the ids of the causes to redeliver.

        Raises NotSent, NotWritten.
        """
        batch.request_ids.update(messages.request_ids)
        self._note_ends(batch, messages)
        undone = self.engine.process(batch, messages.events, batch.store_outcomes(messages.facts))
        return undone.causes | self.finish(batch)

    def finish(self, batch: DynamoBatch) -> set[str]:
        """Sends and writes what a batch postpones to the end. Returns the ids of the causes to redeliver.

        Raises NotSent, NotWritten.
        """
        undone = set[str]()
        while facts := batch.missed_outcomes() or self._limited_starts(batch):
            undone |= self.engine.process(batch, [], facts).causes
        self.dispatcher.finish(batch.now)
        self._stop_containers(batch)
        batch.flush()
        return undone

    def _note_ends(self, batch: DynamoBatch, messages: MessageFacts) -> None:
        """Notes which limited attempts do not execute any more, whatever their runs make of it."""
        for run_id, fact, cause in messages.facts:
            if isinstance(fact, AttemptEnded | AttemptLost):
                record = batch.known(run_id)
                if record is not None and record.plan.steps[fact.step].is_limited:
                    self.limits.saw_end(run_id, fact.step, fact.attempt, cause)

    def _limited_starts(self, batch: DynamoBatch) -> list[RunFact]:
        """The starts that their limits allow after what this batch has done."""
        return self.limits.settle(batch, self.dispatcher.take_limited(), self.dispatcher.started)

    def _stop_containers(self, batch: DynamoBatch) -> None:
        """Sends messages that make `advance` stop containers, because not every Lambda may. Raises NotSent."""
        now, records = batch.now, batch.load(self.dispatcher.take_stopped())
        due = [
            (stop_message(run_id, at), at)
            for run_id, record in records.items()
            if any(step.runtime.type == "docker" for step in record.plan.steps)
            for at in (now, now + _LISTED_MS)
        ]
        send_messages(self.resources.outcomes_queue, [queued(body, delay_s(at, now)) for body, at in due])


@lru_cache(maxsize=1)
def engine_session() -> EngineSession:
    """The process-wide EngineSession."""
    return EngineSession(Resources.from_environment())


def cause_of(identity: str, *, redelivered: bool) -> Cause:
    """The cause for the message with this identity. Runs store the id of the cause, so it is a short hash."""
    return Cause(blake2b(identity.encode(), digest_size=8).hexdigest(), redelivered)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
