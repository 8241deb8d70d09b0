"""When an attempt that could not be started is tried again: the longer it has waited, the later."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.aws.engine.session import now_ms
from stepwell.aws.queues.messages import sweep_message, sweep_name
from stepwell.testing.batches import LOST, Batches, handler_step, sqs_event
from tests.aws.sent_messages import Sent, sent_messages
from tests.aws.test_sweep import expired, failing


def pauses_ms(sent: list[Sent]) -> list[int]:
    """The delays (ms) until an attempt is started again, according to the messages sent just now."""
    return [message.body["due"] - now_ms() for message in sent if message.kind == "again"]


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
    """After a second at the earliest, after a minute at the latest, and at different times for different attempts."""
    with failing("lambda", "Invoke", "TooManyRequestsException"):
        with sent_messages() as sent:
            start(batches)
        if waited_s:
            clock.shift(waited_s)
            with sent_messages() as sent:
                batches.drain()
    (due,) = pauses_ms(sent)
    assert least <= due <= most


@pytest.mark.parametrize(("age_s", "pause_ms"), [(5, 1000), (10, 1000), (1000, 100_000), (50_000, 840_000)])
def test_an_invocation_that_expired_is_tried_again_after_a_tenth_of_its_age(
    batches: Batches, clock: Any, age_s: int, pause_ms: int
) -> None:
    """At most as late as SQS can delay a message."""
    start(batches)
    clock.shift(age_s)
    with sent_messages() as sent:
        assert batches.consumer.advance(sqs_event([expired(batches.invoked[0])])) == {"batchItemFailures": []}
    assert pauses_ms(sent) == [pause_ms]


def test_an_invocation_that_expired_after_its_attempt_was_over_starts_nothing(batches: Batches, clock: Any) -> None:
    retried = {"attempts": 1, "backoff": {"initial": "1s", "jitter": 0}}
    batches.answer = lambda ctx: {"status": 503} if ctx["attempt"] == 1 else LOST
    batches.deploy({"a": handler_step(retries=retried)})
    batches.send()
    batches.drain()
    first = batches.invoked[0]
    with sent_messages() as sent:
        batches.consumer.advance(sqs_event([expired(first)]))  # the step waits for a retry
        clock.shift(1)
        batches.drain()
        assert len(batches.invoked) == 2
        batches.consumer.advance(sqs_event([expired(first)]))  # another attempt runs
    assert pauses_ms(sent) == []


def test_what_the_sweeper_takes_to_be_late_waits_until_it_is_late_by_the_clock_of_who_folds(
    batches: Batches, clock: Any
) -> None:
    """The clock of the sweeper may be ahead. The timer's own message may be on the way for a while."""
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
