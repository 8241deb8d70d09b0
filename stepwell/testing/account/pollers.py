"""Lambda's pollers in tests: they receive batches of the two queues and call the real handlers, one after the other.

With injected faults, batches are small and out of order, messages come twice, and two Lambdas may get the same ones.
Messages that wait only to be retried are then retried at once, because the clock moves only when the test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stepwell.aws.engine.queue_consumer import QueueConsumer
from stepwell.aws.engine.session import EngineSession
from stepwell.aws.queues.redelivery import redelivered_soon
from stepwell.aws.resources import Resources
from stepwell.aws.topology import EVENTS, OUTCOMES, QUEUES, Queue, reader
from stepwell.testing.account.emulator import Emulator
from stepwell.testing.account.lambda_events import Json, LambdaContext
from stepwell.testing.account.unkindness import ENGINE, Unkindness

Handler = Callable[[Any, Any], Any]
_SIZES = (1, 1, 2, 3, 5, 7)
_LATE_MS = 600_000


class Pollers:
    """`handler` returns the current handler of the Lambda with this name."""

    def __init__(
        self,
        emulator: Emulator,
        resources: Resources,
        handler: Callable[[str], Handler],
        unkindness: Unkindness | None,
    ) -> None:
        self._queues, self._resources, self._handler = emulator.queues, resources, handler
        self._unkindness = unkindness
        self._twins: set[str] = set()  # ids of messages that have a copy, or are a copy
        self._second: QueueConsumer | None = None

    def deliver(self) -> bool:
        """Delivers one batch of each queue. Returns False if both queues had nothing to receive."""
        delivered = [self.batch(queue) for queue in QUEUES]
        if any(delivered):
            return True
        hurried = [self._hurry(queue) for queue in QUEUES]
        return any(hurried)

    def drain(self, queue: str) -> None:
        while self.batch(queue) or self._hurry(queue):
            pass

    def batch(self, queue: str) -> bool:
        """Delivers the next batch of a queue. Returns False if there is nothing to receive now."""
        function, url = reader(queue), self._url(queue)
        assert isinstance(function.trigger, Queue)
        event = self._queues.receive(url, self._most(url, function.trigger.most_messages))
        if not event["Records"]:
            return False
        with self._with_faults(queue, event):
            answer = self._handler(function.name)(event, LambdaContext(function.name))
        failed = self._queues.finish(url, event, answer)
        self._repeat(url, [record for record in event["Records"] if record not in failed])
        return True

    def _url(self, queue: str) -> str:
        return {EVENTS: self._resources.events_queue, OUTCOMES: self._resources.outcomes_queue}[queue]

    # --- faults -----------------------------------------------------------------------------------------------------

    def _hurry(self, queue: str) -> bool:
        return self._unkindness is not None and self._queues.hurry(self._url(queue)) > 0

    def _most(self, url: str, most: int) -> int:
        """How many messages to receive. Copies and reorders the messages in the queue first, if there are faults."""
        unkindness = self._unkindness
        if unkindness is None:
            return most
        for message_id, body in self._queues.unread(url):
            if message_id not in self._twins and unkindness.happens("twin", unkindness.twins):
                unkindness.note("sent a message in two")
                self._twins |= {message_id, self._queues.send_again(url, body)}
        if unkindness.happens("reordering", unkindness.reordering):
            unkindness.note("received out of order")
            self._queues.reorder(url, lambda: unkindness.fraction("order"))
        if unkindness.happens("small batch", unkindness.small_batches):
            return min(most, _SIZES[unkindness.below("size", len(_SIZES))])
        return most

    @contextmanager
    def _with_faults(self, queue: str, event: Json) -> Iterator[None]:
        unkindness = self._unkindness
        if unkindness is None:
            yield
        else:
            with unkindness.acting(ENGINE), unkindness.overlapping(lambda: self._overlap(queue, event)):
                yield

    def _overlap(self, queue: str, event: Json) -> None:
        """Delivers the same messages to a second Lambda, as after the visibility timeout."""
        if self._second is None:
            self._second = QueueConsumer(EngineSession(self._resources))
        name, url = reader(queue).name, self._url(queue)
        self._queues.release(url, event["Records"])
        again = self._queues.receive(url, len(event["Records"]))
        if again["Records"]:
            consume = getattr(self._second, name)
            handler = redelivered_soon(lambda batch, context: consume(batch))
            self._queues.finish(url, again, handler(again, LambdaContext(name)))

    def _repeat(self, url: str, records: list[Json]) -> None:
        unkindness = self._unkindness
        for record in records if unkindness is not None else ():
            assert unkindness is not None
            if unkindness.happens("duplicate", unkindness.duplicates):
                unkindness.note("delivered a message again")
                late = unkindness.below("late", 2) * unkindness.below("how late", _LATE_MS)
                self._queues.put_back(url, record, late, forgets_receives=unkindness.happens("forgets", 0.5))
