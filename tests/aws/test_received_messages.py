"""Messages of the queue `outcomes` as values: each message is parsed as it was written, and each kind has a handler."""

from __future__ import annotations

from typing import get_args

import orjson
import pytest

from stepwell.aws.engine.outcome_messages import OutcomeMessageHandlers
from stepwell.aws.queues import received_messages as received
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
from stepwell.aws.queues.received_messages import AttemptName, parse_message, run_of
from stepwell.aws.table.keys import timer_key
from stepwell.core.run.messages import Timer, TimerKind
from stepwell.core.run.outcome import failure
from stepwell.testing.batches import Batches, destination

RUN = "abcdefghijklmnopqrstuvwxyz"
ATTEMPT = AttemptName(RUN, "s", 2, "token")
DELAY = Timer(TimerKind.DELAY, 1)
LOST = failure("gone", "it is gone", retryable=True)
WRITTEN = [
    (timer_message(RUN, DELAY, 5), received.TimerDue(RUN, DELAY, 5, None), RUN),
    (timer_message(RUN, DELAY, 5, 3), received.TimerDue(RUN, DELAY, 5, timer_key(RUN, DELAY, 5, 3)), RUN),
    (tick_message("f", "* * * * *", "UTC", 5, "t"), received.TickDue("f", "* * * * *", "UTC", 5, 5, "t"), None),
    (tick_message("f", "* * * * *", "UTC", 5, "t", 9), received.TickDue("f", "* * * * *", "UTC", 5, 9, "t"), None),
    (wake_message("e", "p", "a", "t"), received.WakeMore("e", "p", "a", "t"), None),
    (scan_message(RUN, 1, 7, "t"), received.ContinueScan(RUN, 1, 7, "t"), RUN),
    (release_message("f", "a"), received.ReleaseEvents("f", "a"), None),
    (sweep_message(RUN, [["RunStarted"]], "t"), received.FactsOverdue(RUN, [["RunStarted"]], "t"), RUN),
    (send_event_message("{}", "t"), received.SendEvent("{}", "t"), None),
    (ended_message(RUN), received.RunEnded(RUN), RUN),
    (cancel_message("f", 8, "t"), received.CancelRuns("f", 8, "t"), None),
    (start_again_message(RUN, "s", 2, "token", 5), received.StartAgain(ATTEMPT), RUN),
    (stop_message(RUN, 5), received.StopContainers(RUN), RUN),
    (outcome_message(RUN, "s", 2, "token", LOST), received.OutcomeReported(ATTEMPT, LOST), RUN),
]


@pytest.mark.parametrize(("body", "message", "run"), WRITTEN)
def test_what_the_engine_writes_to_itself_is_read_as_it_was(body: bytes, message: object, run: str | None) -> None:
    parsed = parse_message(orjson.loads(body))
    assert parsed == message
    assert run_of(parsed) == run


@pytest.mark.parametrize("is_http", [False, True])
@pytest.mark.parametrize(("condition", "is_expired"), [("Success", False), ("EventAgeExceeded", True)])
def test_a_record_of_lambda_names_its_attempt(is_http: bool, condition: str, is_expired: bool) -> None:
    payload = {"ctx": {"run_id": RUN, "step_id": "s", "attempt": 2, "token": "token"}}
    record = destination({"stepwell": "http", "input": payload} if is_http else payload, {}, condition)
    request_id = record["requestContext"]["requestId"]
    assert parse_message(record) == received.Destination(ATTEMPT, request_id, is_expired, record)
    assert run_of(parse_message(record)) == RUN


def test_an_event_of_ecs_is_a_stopped_task() -> None:
    event = {"version": "0", "id": "e", "detail-type": "ECS Task State Change", "detail": {}}
    assert parse_message(event) == received.TaskStopped(event)


def test_a_message_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind of message: 'joke'"):
        parse_message({"stepwell": "joke"})


def test_every_kind_of_message_has_a_handler(batches: Batches) -> None:
    assert OutcomeMessageHandlers(batches.session).kinds == set(get_args(received.Message))
