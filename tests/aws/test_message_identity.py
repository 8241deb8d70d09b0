"""Message identities. Runs store them, so they must not change from one version of Stepwell to the next.

The expected identities are those that earlier versions have stored, which were found by the start of the text.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest

from stepwell.aws.engine.session import cause_of
from stepwell.aws.queues.message_identity import ended_identity, message_identity
from stepwell.aws.queues.messages import (
    cancel_message,
    ended_message,
    outcome_message,
    release_message,
    scan_message,
    send_event_message,
    start_again_message,
    stop_message,
    sweep_message,
    tick_message,
    timer_message,
    wake_message,
)
from stepwell.core.run.messages import Outcome, Timer, TimerKind
from stepwell.core.run.outcome import failure
from stepwell.testing.batches import destination

RUN = "abcdefghijklmnopqrstuvwxyz"
SQS_ID = "5c0f1b9e-6a0d-4d8c-9a2c-0f5f2f1f7a11"
EVENT_ID = "7bf73129-1428-4cd3-a780-95db273d1602"
DETAIL = {"name": "go", "data": {"version": "0", "id": "inner"}, "id": "e1", "user": {}, "ts": 1, "v": None}
# EventBridge sends the fields in this order and without spaces, for our own ingest and for other senders.
ENVELOPE = {
    "version": "0",
    "id": EVENT_ID,
    "detail-type": "go",
    "source": "stepwell.api",
    "account": "123456789012",
    "time": "2026-06-01T10:00:30Z",
    "region": "us-east-1",
    "resources": [],
    "detail": DETAIL,
}
STOPPED = {**ENVELOPE, "detail-type": "ECS Task State Change", "source": "aws.ecs", "detail": {"lastStatus": "STOPPED"}}
OURS: dict[str, bytes] = {
    "timer": timer_message(RUN, Timer(TimerKind.DEADLINE, 0), 1),
    "far timer": timer_message(RUN, Timer(TimerKind.DELAY, 0), 1, 3),
    "tick": tick_message("f", "* * * * *", "UTC", 1, "t"),
    "wake": wake_message("e1", "p", "a", "t"),
    "look": scan_message(RUN, 0, 1, "t"),
    "release": release_message("f", None),
    "sweep": sweep_message(RUN, [["AttemptLost", 0, 1]], "t"),
    "tell": send_event_message('{"version":"0","id":"inner"}', "t"),
    "cancel": cancel_message("f", None, "t"),
    "again": start_again_message(RUN, "s", 1, "t", 1),
    "stop": stop_message(RUN, 1),
    "outcome": outcome_message(RUN, "s", 1, "t", Outcome(error=failure("x", "y", retryable=True).error)),
}
OTHERS: dict[str, bytes] = {
    "destination": orjson.dumps(destination({"ctx": {"run_id": RUN}}, {"version": "0", "id": "inner"})),
    "ended of no run": b'{"stepwell":"ended","run":"no run"}',
    "no object": b"[]",
    "an id that is no text": b'{"version":"0","id":7}',
    "an empty id": b'{"version":"0","id":""}',
}


def as_before(text: str) -> tuple[str, bool]:
    """The identity as earlier versions found it, by searching the text of a message."""
    if ended := re.match(r'\{"stepwell":"ended","run":"([a-z2-7]{26})"\}', text):
        return f"ended/{ended[1]}", True
    envelope = re.match(r'\{"version": ?"0", ?"id": ?"([^"]+)"', text)
    return (SQS_ID if envelope is None else envelope[1]), False


def identity(text: str) -> tuple[str, bool]:
    return message_identity(json.loads(text), SQS_ID)


@pytest.mark.parametrize("envelope", [ENVELOPE, STOPPED], ids=["event", "stopped task"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["no space", "spaces"])
def test_an_event_is_known_by_the_id_of_its_envelope(envelope: Any, separators: tuple[str, str]) -> None:
    text = json.dumps(envelope, separators=separators)
    assert identity(text) == as_before(text) == (EVENT_ID, False)


@pytest.mark.parametrize("body", [*OURS.values(), *OTHERS.values()], ids=[*OURS, *OTHERS])
def test_every_other_message_is_known_by_the_id_that_sqs_gave_it(body: bytes) -> None:
    assert identity(body.decode()) == as_before(body.decode()) == (SQS_ID, False)


def test_the_message_of_a_runs_end_is_its_ender_and_counts_as_redelivered() -> None:
    text = ended_message(RUN).decode()
    assert identity(text) == as_before(text) == (ended_identity(RUN), True)


def test_a_body_that_cannot_be_read_is_known_by_the_id_that_sqs_gave_it() -> None:
    assert message_identity(None, SQS_ID) == (SQS_ID, False)


def test_the_causes_that_runs_have_stored_stay_the_same() -> None:
    assert cause_of(EVENT_ID, redelivered=False).id == "99a4bbdc78fb862c"
    assert cause_of(ended_identity(RUN), redelivered=True).id == "4dea8836450ff605"
