"""One Lambda's engine: its store, dispatcher and engine, and the course of a batch.

The consumer of the queues, the scheduler and the API's control share this object, and nothing else. What is read of
runs is read through a batch, and forgotten with it: others may have changed them since.
"""

from __future__ import annotations

import time
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.message_facts import MessageFacts
from stepwell.aws.engine.store import DynamoStore
from stepwell.aws.engine.timers import Timers
from stepwell.aws.engine.wait_pages import Waking
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import Releases
from stepwell.aws.queues.messages import delay_s, stop_message
from stepwell.aws.queues.messages import entry as queued
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.steps.dispatch import LambdaDispatcher
from stepwell.aws.table.lists import Lists
from stepwell.engine.loop import Engine
from stepwell.platform import Cause

if TYPE_CHECKING:
    from stepwell.core.run.approvals import Links

_LISTED_MS = 30_000  # a container that starts while its run is cancelled is in no list of ECS yet; by then it is


class EngineSession:
    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.registry = Registry(resources)
        self.releases = Releases(resources, self.registry)
        self.timers = Timers(resources)
        self.tokens = Tokens(resources)
        self.waking = Waking(resources, self.tokens)
        self.store = DynamoStore(resources, self.registry, self.timers, self.waking, Lists(resources))
        self.dispatcher = LambdaDispatcher(resources, self.registry, self.tokens)
        self.engine = Engine(self.dispatcher, resources.env, self.links)

    def links(self) -> Links:
        """The links by which people decide on approvals."""
        from stepwell.core.run.approvals import Links  # most functions ask nobody

        return Links(self.resources.api_url, self.tokens)

    def process(self, batch: DynamoBatch, brought: MessageFacts) -> set[str]:
        """Do a batch with everything that follows from it. Answers the ids of the causes to redeliver. Raises NotSent,
        NotWritten."""
        batch.request_ids.update(brought.request_ids)
        undone = self.engine.process(batch, brought.arrivals, batch.keep_outcomes(brought.facts))
        return undone.causes | self.finish(batch)

    def finish(self, batch: DynamoBatch) -> set[str]:
        """Send and write what a batch leaves until its end. Answers the ids of the causes to redeliver. Raises NotSent,
        NotWritten."""
        late = batch.overtaken()
        undone = self.engine.process(batch, [], late).causes if late else set()
        self.dispatcher.finish(batch.now)
        self._stop_containers(batch)
        batch.flush()
        return undone

    def _stop_containers(self, batch: DynamoBatch) -> None:
        """Not every Lambda may stop containers, so `advance` is asked to. Raises NotSent."""
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
    """The process-wide session."""
    return EngineSession(Resources.from_environment())


def cause_of(identity: str, *, redelivered: bool) -> Cause:
    """The cause that a message with this identity is: runs store its id, so it is short."""
    return Cause(blake2b(identity.encode(), digest_size=8).hexdigest(), redelivered)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
