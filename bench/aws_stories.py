"""Counts what the engine's handlers use, from the request with an event until the end of the run.

All counts are per event. They are the same each time, except for the CPU times and the sequential requests.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aws_harness import Harness, Invocation, account, request

from stepwell.testing.account.meter import chunks
from stepwell.testing.batches import Json, destination, handler_step, sqs_event

Counts = dict[str, Any]
ROUNDS = 4  # timed rounds
RESPONSE_BYTES = 250  # headers of an HTTP response, as an HTTP API sends them
SMALL = 0  # bytes added to the data of an event and to the output of a step
_numbers = itertools.count()
_text = random.Random(1)


@dataclass(slots=True)
class Story:
    """What follows from a batch of events, until nothing more follows.

    `queues`: the sizes in bytes of the messages that came to each queue.
    """

    events: int
    invocations: list[tuple[str, Invocation]] = field(default_factory=list)
    queues: dict[str, list[int]] = field(default_factory=lambda: {"events": [], "outcomes": []})
    by_service: int = 0  # requests with which EventBridge and Lambda's destinations sent messages
    steps: list[int] = field(default_factory=list)  # bytes of the steps' inputs

    def of(self, handler: str) -> list[Invocation]:
        return [invocation for name, invocation in self.invocations if name == handler]

    def counts(self) -> Counts:
        """The counts per event, as JSON."""
        handlers = {name: self._handler(self.of(name)) for name in dict.fromkeys(name for name, _ in self.invocations)}
        queues = {
            name: {"messages": len(sizes) / self.events, "bytes": round(statistics.mean(sizes)) if sizes else 0}
            for name, sizes in self.queues.items()
        }
        out = sum(RESPONSE_BYTES + len(request.answer.get("body", "")) for request in self.of("ingest")) / self.events
        return {
            "handlers": handlers,
            "queues": queues,
            "sent_by_services": self.by_service / self.events,
            "out_bytes": round(out),
            "steps": len(self.steps) / self.events,
            "input_bytes": round(statistics.mean(self.steps)) if self.steps else 0,
        }

    def _handler(self, invocations: list[Invocation]) -> Counts:
        meters = [invocation.meter for invocation in invocations]
        each = {
            "invocations": len(invocations),
            "bus_events": sum(meter.billed("events") for meter in meters),
            "queue_requests": sum(meter.billed("sqs") for meter in meters),
            "write_units": sum(meter.write_units for meter in meters),
            "read_units": sum(meter.read_units for meter in meters),
            "log_bytes": sum(invocation.log_bytes for invocation in invocations),
        }
        return {
            **{name: round(number / self.events, 4) for name, number in each.items()},
            "sequential": round(statistics.mean(meter.sequential() for meter in meters), 2),
            "cpu_ms": round(statistics.mean(invocation.cpu_ms for invocation in invocations), 2),
            "engine_ms": round(max(invocation.engine_ms for invocation in invocations), 2),
        }


class Teller:
    """Sends events, one per request, and delivers everything that follows from them in batches. `extra`: bytes that are
    added to each event and output."""

    def __init__(self, harness: Harness, batch: int, extra: int = SMALL) -> None:
        self._harness, self._batch, self._extra = harness, batch, extra

    def tell(self, events: list[Json]) -> Story:
        story, harness = Story(len(events)), self._harness
        harness.sent.clear()
        harness.timers.clear()
        harness.batches.invoked.clear()
        for event in events:
            story.invocations.append(("ingest", harness.invoke("ingest", request(harness.key, event))))
        messages = list(harness.sent)
        if harness.resources.ingest == "bus":
            story.by_service += sum(chunks(_size(message)) for message in messages)  # EventBridge sends to the queue
        self.deliver(story, "route", messages)
        self.finish_steps(story)
        return story

    def finish_steps(self, story: Story) -> None:
        """Lets all started steps return, and the steps that follow."""
        invoked = self._harness.batches.invoked
        while invoked:
            story.steps += map(_size, invoked)
            ended = [destination(payload, self._output(payload)) for payload in invoked]
            invoked.clear()
            story.by_service += sum(chunks(_size(record)) for record in ended)  # Lambda's destinations
            self.deliver(story, "advance", ended)

    def deliver(self, story: Story, handler: str, messages: list[Json]) -> None:
        story.queues["events" if handler == "route" else "outcomes"] += map(_size, messages)
        for first in range(0, len(messages), self._batch):
            event = sqs_event(messages[first : first + self._batch])
            story.invocations.append((handler, self._harness.invoke(handler, event)))

    def new_events(self, name: str = "go", **data: Any) -> list[Json]:
        """The events of a batch: orders of a shop, each by a different user."""
        numbers = itertools.islice(_numbers, self._batch)
        return [_event(name, n, {"order": n, "amount": 1999, **padding(self._extra), **data}) for n in numbers]

    def _output(self, payload: Json) -> Json:
        return {"ok": payload["ctx"]["step_id"], **padding(self._extra)}


def padding(extra: int) -> Json:
    """A field with this many bytes, which compression hardly shortens."""
    return {"text": base64.b64encode(_text.randbytes(extra * 3 // 4)).decode()} if extra else {}


def _event(name: str, number: int, data: Json) -> Json:
    return {"name": name, "data": data, "user": {"id": f"user-{number:08}"}}


def _size(message: Json) -> int:
    return len(json.dumps(message, separators=(",", ":")).encode())


def measure(harness: Harness, batch: int, name: str = "go", rounds: int = 0, extra: int = SMALL) -> Story:
    """One story, counted in a warm process. CPU times are the minimum of several timed rounds, because other work of
    the machine can only add to them."""
    teller = Teller(harness, batch, extra)
    harness.counting = False
    timed = [teller.tell(teller.new_events(name)) for _ in range(rounds + 1)][1:]
    harness.counting = True
    story = teller.tell(teller.new_events(name))
    for i, (_, invocation) in enumerate(story.invocations):
        invocation.cpu_ms = min((timing.invocations[i][1].cpu_ms for timing in timed), default=0)
        invocation.engine_ms = min((timing.invocations[i][1].engine_ms for timing in timed), default=0)
    return story


def chain(count: int) -> Json:
    return {f"s{n}": handler_step(*([f"s{n - 1}"] if n else [])) for n in range(count)}


def fan(count: int) -> Json:
    parallel = {f"s{n}": handler_step() for n in range(count)}
    return {**parallel, "join": handler_step(*parallel, join="all")}


@contextmanager
def deployed(steps: Json, ingest: str = "bus") -> Iterator[Harness]:
    """An account with one function that starts on `go`."""
    with account():
        harness = Harness(ingest)
        harness.deploy(steps)
        yield harness
