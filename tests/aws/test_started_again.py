"""When an attempt that could not be started is tried again: the later, the longer it has been waiting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.engine.session import now_ms
from stepwell.aws.queues.messages import sweep_message, sweep_name
from stepwell.testing.batches import LOST, Batches, Json, handler_step, sqs_event
from tests.aws.test_sweep import expired, failing


@contextmanager
def again_messages() -> Iterator[list[int]]:
    """In how many ms the messages that are sent start an attempt again."""
    found: list[int] = []

    def note(params: Json, **_: Any) -> None:
        bodies = [json.loads(entry["MessageBody"]) for entry in json.loads(params["body"])["Entries"]]
        found.extend(body["due"] - now_ms() for body in bodies if body["stepwell"] == "again")

    events = clients.client("sqs").meta.events
    events.register("before-call.sqs.SendMessageBatch", note, unique_id="again")
    try:
        yield found
    finally:
        events.unregister("before-call.sqs.SendMessageBatch", unique_id="again")


def start(batches: Batches) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()


@pytest.mark.parametrize(
    ("waited_s", "least", "most"), [(0, 500, 1000), (1, 500, 1000), (20, 10_000, 20_000), (3000, 30_000, 60_000)]
)
def test_a_start_that_is_throttled_is_tried_again_after_half_to_all_of_what_it_has_waited(
    batches: Batches, clock: Any, waited_s: int, least: int, most: int
) -> None:
    """After a second at the earliest, after a minute at the latest, and at no time that others have too."""
    with failing("lambda", "Invoke", "TooManyRequestsException"):
        with again_messages() as again:
            start(batches)
        if waited_s:
            clock.shift(waited_s)
            with again_messages() as again:
                batches.drain()
    (due,) = again
    assert least <= due <= most


@pytest.mark.parametrize(("age_s", "pause_ms"), [(5, 1000), (10, 1000), (1000, 100_000), (50_000, 840_000)])
def test_an_invocation_that_expired_is_tried_again_after_a_tenth_of_its_age(
    batches: Batches, clock: Any, age_s: int, pause_ms: int
) -> None:
    """At most as late as SQS can delay a message."""
    start(batches)
    clock.shift(age_s)
    with again_messages() as again:
        assert batches.consumer.advance(sqs_event([expired(batches.invoked[0])])) == {"batchItemFailures": []}
    assert again == [pause_ms]


def test_an_invocation_that_expired_after_its_attempt_was_over_starts_nothing(batches: Batches, clock: Any) -> None:
    retried = {"attempts": 1, "backoff": {"initial": "1s", "jitter": 0}}
    batches.answer = lambda ctx: {"status": 503} if ctx["attempt"] == 1 else LOST
    batches.deploy({"a": handler_step(retries=retried)})
    batches.send()
    batches.drain()
    first = batches.invoked[0]
    with again_messages() as again:
        batches.consumer.advance(sqs_event([expired(first)]))  # its step waits to be tried again
        clock.shift(1)
        batches.drain()
        assert len(batches.invoked) == 2
        batches.consumer.advance(sqs_event([expired(first)]))  # another attempt runs
    assert again == []


def test_what_the_sweeper_takes_to_be_late_waits_until_it_is_late_by_the_clock_of_who_folds(
    batches: Batches, clock: Any
) -> None:
    """The sweeper's clock may be ahead. A timer's own message is on its way for a while."""
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "10m"})})
    batches.send()
    batches.drain()
    ((stored, _),) = batches.runs()
    rows: list[list[str | int]] = [["DelayEnded", 0]]
    token = batches.session.tokens.of(*sweep_name(stored.run.id, rows))
    message = json.loads(sweep_message(stored.run.id, rows, token))
    clock.shift(600 + 119)
    batches.consumer.advance(sqs_event([message]))
    assert batches.invoked == []
    clock.shift(1)
    batches.consumer.advance(sqs_event([message]))
    assert len(batches.invoked) == 1
