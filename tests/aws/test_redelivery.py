"""Failed messages are delivered again after a second, and later each time, for hours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from stepwell.aws.clients import client
from stepwell.aws.queues.redelivery import (
    LATEST_S,
    MAX_RECEIVES,
    STUCK,
    STUCK_AFTER,
    redelivered_soon,
    redelivery_delay_s,
)
from stepwell.aws.topology import QUEUES, reader
from stepwell.testing.account.emulator import answer
from stepwell.testing.account.lambda_events import LambdaContext
from stepwell.testing.ecs.containers import ContainerStepwell
from tests.behaviour.words import function, write_function

HOUR = 3600
THROTTLED = b'{"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "too many"}'


def attributes(url: str, *names: str) -> dict[str, str]:
    found: dict[str, str] = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
    return found


def waiting(stepwell: ContainerStepwell, url: str) -> int:
    """All messages of a queue, including those that are invisible."""
    kinds = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    return sum(int(attribute) for attribute in attributes(url, *kinds).values())


def outage(stepwell: ContainerStepwell, operation: str, content: bytes = THROTTLED) -> list[int]:
    """Makes this operation fail until `end`. Returns the times of the requests (ms)."""
    asked: list[int] = []

    def refuse(request: AWSPreparedRequest) -> AWSResponse:
        asked.append(stepwell.emulator.now)
        return answer(request, 400, content)

    stepwell.emulator.intercept(operation, refuse)
    return asked


def end(stepwell: ContainerStepwell, operation: str) -> None:
    stepwell.emulator.intercept(operation, lambda request: None)


# --- how long --------------------------------------------------------------------------------------------------------


def test_a_message_comes_again_after_a_second_then_later_each_time_up_to_the_queues_timeout() -> None:
    for receives in range(1, MAX_RECEIVES + 1):
        longest = min(LATEST_S, 2 ** (receives - 1))
        delays = {redelivery_delay_s(f"message {n}", receives) for n in range(200)}
        assert min(delays) >= math.ceil(longest / 2)
        assert max(delays) <= longest
        assert len(delays) > min(longest // 4, 20)  # messages that failed together are not delivered together


def test_a_delivery_has_one_delay() -> None:
    assert redelivery_delay_s("a", 9) == redelivery_delay_s("a", 9)
    assert redelivery_delay_s("a", 9) != redelivery_delay_s("a", 10)


def test_the_longest_delay_is_the_queues_own_timeout() -> None:
    assert {6 * reader(queue).timeout_s for queue in QUEUES} == {LATEST_S}


def test_an_outage_of_two_hours_sends_nothing_to_the_dead_letters() -> None:
    shortest = [math.ceil(min(LATEST_S, 2 ** (receives - 1)) / 2) for receives in range(1, MAX_RECEIVES)]
    assert 2 * HOUR <= sum(shortest) < 2.5 * HOUR  # so that the sender of unreadable messages is informed the same day


def test_a_message_counts_as_stuck_after_some_minutes() -> None:
    longest = [min(LATEST_S, 2 ** (receives - 1)) for receives in range(1, STUCK_AFTER)]
    assert 4 * 60 < sum(longest) / 2 < sum(longest) < 9 * 60


# --- metrics and logs ------------------------------------------------------------------------------------------------


def test_an_event_that_could_not_be_written_starts_its_run_two_seconds_later(
    stepwell_aws: ContainerStepwell, tmp_path: Path
) -> None:
    stepwell_aws.deploy(write_function(tmp_path, function(), None))
    outage(stepwell_aws, "dynamodb.PutItem")
    event = stepwell_aws.send("go")
    assert stepwell_aws.runs() == []
    end(stepwell_aws, "dynamodb.PutItem")
    stepwell_aws.settle()
    assert stepwell_aws.runs() == []  # nothing is delivered before the time
    stepwell_aws.travel("2s")
    (run,) = stepwell_aws.runs(event)
    assert run["status"] == "completed"


def test_an_outage_of_an_hour_costs_an_hour_and_no_message(stepwell_aws: ContainerStepwell, tmp_path: Path) -> None:
    stepwell_aws.deploy(write_function(tmp_path, function(), None))
    asked = outage(stepwell_aws, "dynamodb.PutItem")
    event = stepwell_aws.send("go")
    stepwell_aws.travel("1h")
    assert 15 < len(set(asked)) < 30
    end(stepwell_aws, "dynamodb.PutItem")
    stepwell_aws.travel("6m")
    (run,) = stepwell_aws.runs(event)
    assert run["status"] == "completed"


def test_only_what_failed_of_a_batch_comes_again(stepwell_aws: ContainerStepwell, tmp_path: Path) -> None:
    stepwell_aws.deploy(write_function(tmp_path, function(), None))
    url = stepwell_aws.resources.events_queue
    client("sqs").send_message(QueueUrl=url, MessageBody="no JSON")
    event = stepwell_aws.send("go")
    (run,) = stepwell_aws.runs(event)
    assert run["status"] == "completed"
    assert waiting(stepwell_aws, url) == 1


def test_what_nobody_can_read_is_stuck_first_and_then_among_the_dead_letters(
    stepwell_aws: ContainerStepwell, capsys: pytest.CaptureFixture[str]
) -> None:
    url = stepwell_aws.resources.outcomes_queue
    client("sqs").send_message(QueueUrl=url, MessageBody="no JSON")
    stepwell_aws.travel("1m")
    assert STUCK not in capsys.readouterr().out
    stepwell_aws.travel("10m")
    assert STUCK in capsys.readouterr().out
    stepwell_aws.travel("5h")
    dead = client("sqs").get_queue_url(QueueName="outcomes-dead")["QueueUrl"]
    assert (waiting(stepwell_aws, url), waiting(stepwell_aws, dead)) == (0, 1)


def test_a_timeout_that_cannot_be_changed_fails_nothing_and_the_message_comes_after_it(
    stepwell_aws: ContainerStepwell, tmp_path: Path
) -> None:
    stepwell_aws.deploy(write_function(tmp_path, function(), None))
    outage(stepwell_aws, "dynamodb.PutItem")
    outage(stepwell_aws, "sqs.ChangeMessageVisibilityBatch", b'{"__type": "AccessDenied", "message": "no"}')
    event = stepwell_aws.send("go")
    end(stepwell_aws, "dynamodb.PutItem")
    stepwell_aws.travel("359s")
    assert stepwell_aws.runs() == []
    stepwell_aws.travel("1s")
    (run,) = stepwell_aws.runs(event)
    assert run["status"] == "completed"
    end(stepwell_aws, "sqs.ChangeMessageVisibilityBatch")


# --- a handler that fails as a whole ---------------------------------------------------------------------------------


def fails(event: Any, context: Any) -> Any:
    raise OSError("the code cannot be loaded")


def received(stepwell_aws: ContainerStepwell, count: int) -> Any:
    url = stepwell_aws.resources.outcomes_queue
    for n in range(count):
        client("sqs").send_message(QueueUrl=url, MessageBody=str(n))
    return stepwell_aws.emulator.queues.receive(url)


def test_all_of_a_batch_comes_again_soon_if_its_handler_raises(stepwell_aws: ContainerStepwell) -> None:
    url, event = stepwell_aws.resources.outcomes_queue, received(stepwell_aws, 3)
    with pytest.raises(OSError, match="loaded"):
        redelivered_soon(fails)(event, LambdaContext())
    assert stepwell_aws.emulator.queues.receive(url)["Records"] == []
    stepwell_aws.emulator.advance(1000)
    again = stepwell_aws.emulator.queues.receive(url)["Records"]
    assert sorted(record["body"] for record in again) == ["0", "1", "2"]
    assert {record["attributes"]["ApproximateReceiveCount"] for record in again} == {"2"}


def test_of_a_batch_that_failed_in_part_what_succeeded_is_left_alone(stepwell_aws: ContainerStepwell) -> None:
    url, event = stepwell_aws.resources.outcomes_queue, received(stepwell_aws, 3)
    failed = event["Records"][1]

    def fails_in_part(event: Any, context: Any) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": failed["messageId"]}]}

    redelivered_soon(fails_in_part)(event, LambdaContext())
    stepwell_aws.emulator.advance(1000)
    assert [record["body"] for record in stepwell_aws.emulator.queues.receive(url)["Records"]] == [failed["body"]]


def test_a_lambda_that_is_almost_at_its_timeout_leaves_it_at_that(stepwell_aws: ContainerStepwell) -> None:
    url, event = stepwell_aws.resources.outcomes_queue, received(stepwell_aws, 1)
    with pytest.raises(OSError, match="loaded"):
        redelivered_soon(fails)(event, LambdaContext(timeout_s=2))
    stepwell_aws.emulator.advance(359_000)
    assert stepwell_aws.emulator.queues.receive(url)["Records"] == []


# --- requests are not redelivered ------------------------------------------------------------------------------------


def test_a_request_that_aws_throttles_is_answered_with_503_and_when_to_ask_again(
    stepwell_aws: ContainerStepwell,
) -> None:
    outage(stepwell_aws, "dynamodb.GetItem")
    refused = stepwell_aws.http("GET", f"/v1/runs/{'a' * 26}")
    end(stepwell_aws, "dynamodb.GetItem")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert stepwell_aws.http("GET", f"/v1/runs/{'a' * 26}").status == 404


def test_what_else_aws_refuses_is_a_fault_of_the_server(stepwell_aws: ContainerStepwell) -> None:
    outage(stepwell_aws, "dynamodb.GetItem", b'{"__type": "AccessDeniedException", "message": "no"}')
    assert stepwell_aws.http("GET", f"/v1/runs/{'a' * 26}").status == 500
    end(stepwell_aws, "dynamodb.GetItem")
