"""`stepwell dead-letters`: dead letters are listed, and sent to their queue again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from stepwell.aws import clients
from stepwell.aws.queues.dead_letters import CannotRedrive, queues, redrive_all
from stepwell.aws.resources import parameter
from stepwell.aws.topology import QUEUES
from stepwell.testing.batches import destination
from tests.push.conftest import Aws
from tests.push.test_cli import data, ok, refused, run

Json = dict[str, Any]
OUTCOME = destination({"ctx": {"run_id": "r" * 26, "step_id": "pay", "attempt": 2}}, {})
EVENT = {"version": "0", "id": "1", "detail-type": "paid", "source": "shop", "detail": {"order": 7}}


class Letters:
    """The environment's queues, and an emulation of SQS's message move tasks, which moto lacks."""

    def __init__(self, aws: Aws) -> None:
        self.sqs = boto3.client("sqs")
        self.dead: dict[str, str] = {}
        for name in QUEUES:
            self.dead[name] = self.sqs.create_queue(QueueName=f"dead-of-{name}")["QueueUrl"]
            policy = {"deadLetterTargetArn": self._arn(self.dead[name]), "maxReceiveCount": "1"}
            self.sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(policy)})
        urls = {f"{name}_queue": self.sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in QUEUES}
        self.resources = replace(aws.resources, **urls)
        value = self.resources.to_json()
        name = parameter(self.resources.env)
        boto3.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
        self.tasks: list[Json] = []
        self.ends_as: Json = {"Status": "COMPLETED"}
        events = clients.client("sqs").meta.events
        events.register("before-call.sqs.StartMessageMoveTask", self._start)
        events.register("before-call.sqs.ListMessageMoveTasks", self._list)

    def give_up(self, queue: str, body: Json | str, **attributes: str) -> str:
        """Sends a message to the dead letters: by too many receives, or, with attributes, directly as a rule does."""
        text = body if isinstance(body, str) else json.dumps(body)
        named = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        if attributes:
            sent: str = self.sqs.send_message(QueueUrl=self.dead[queue], MessageBody=text, MessageAttributes=named)[
                "MessageId"
            ]
            return sent
        url = getattr(self.resources, f"{queue}_queue")
        sent = self.sqs.send_message(QueueUrl=url, MessageBody=text)["MessageId"]
        for _ in range(2):
            self.sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)
        return sent

    def waiting(self, queue: str) -> list[str]:
        """The bodies of the messages in a queue that can be received."""
        found = self.sqs.receive_message(
            QueueUrl=getattr(self.resources, f"{queue}_queue"), MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        return [message["Body"] for message in found.get("Messages", [])]

    def _arn(self, url: str) -> str:
        arn: str = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return arn

    def _start(self, params: Json, **_: Any) -> tuple[AWSResponse, Json]:
        self.tasks.append(json.loads(params["body"]))
        return _answered({"TaskHandle": "handle"})

    def _list(self, **_: Any) -> tuple[AWSResponse, Json]:
        """The first request finds the task running, the next one finds it ended."""
        if not self.tasks[-1].setdefault("looked", False):
            self.tasks[-1]["looked"] = True
            return _answered({"Results": [{"Status": "RUNNING", "ApproximateNumberOfMessagesToMove": 3}]})
        return _answered({"Results": [{"ApproximateNumberOfMessagesMoved": 3, **self.ends_as}]})


def _answered(parsed: Json) -> tuple[AWSResponse, Json]:
    return AWSResponse("", 200, {}, None), parsed


@pytest.fixture
def letters(aws: Aws) -> Letters:
    return Letters(aws)


def test_every_queue_of_the_engine_has_a_dead_letter_queue(letters: Letters) -> None:
    found = queues(letters.sqs, letters.resources)
    assert {dead_letter_queue.queue: dead_letter_queue.url for dead_letter_queue in found} == letters.dead
    assert [queue.back_url for queue in queues(letters.sqs, letters.resources, "events")] == [
        letters.resources.events_queue
    ]


def test_a_list_describes_each_message_and_leaves_it_in_the_queue(letters: Letters) -> None:
    tick = {"stepwell": "tick", "function": "f", "at": 5, "token": "secret"}
    ids = [
        letters.give_up("outcomes", OUTCOME),
        letters.give_up("outcomes", tick),
        letters.give_up("outcomes", "no JSON"),
    ]
    event = letters.give_up("events", EVENT, ERROR_CODE="NO_PERMISSIONS", ERROR_MESSAGE="the queue says no")
    for _ in range(2):
        listed = {item["id"]: item for item in data("dead-letters", "list", "--env", "dev")}
        assert set(listed) == {*ids, event}
        about = {item["kind"]: (item["queue"], item["about"], item["reason"]) for item in listed.values()}
        assert about == {
            "outcome": ("outcomes", {"run": "r" * 26, "step": "pay", "attempt": 2}, None),
            "tick": ("outcomes", {"function": "f", "at": 5}, None),
            "unreadable": ("outcomes", {}, None),
            "event": ("events", {"event": "paid", "id": "1"}, "NO_PERMISSIONS: the queue says no"),
        }
        assert all(item["receives"] >= 1 for item in listed.values())


def test_a_list_can_be_limited_to_a_queue_and_a_number(letters: Letters) -> None:
    for n in range(12):
        letters.give_up("outcomes", {"stepwell": "timer", "run": str(n)})
    letters.give_up("events", EVENT)
    text = ok("dead-letters", "list", "--limit", "5", "--env", "dev")
    assert "outcomes: 5 shown of about 12" in text
    assert "events: 1 shown" in text
    assert len(data("dead-letters", "list", "--queue", "outcomes", "--env", "dev")) == 12
    assert data("dead-letters", "list", "--queue", "events", "--env", "dev")[0]["about"] == {"event": "paid", "id": "1"}
    assert "there is no queue typo; the queues are events and outcomes" in refused(
        "dead-letters", "list", "--queue", "typo", "--env", "dev", code=2
    )


def test_chosen_dead_letters_are_sent_again_by_id(letters: Letters) -> None:
    first, second = (letters.give_up("outcomes", {"stepwell": "timer", "run": run}) for run in ("one", "two"))
    assert data("dead-letters", "redrive", first, "--yes", "--env", "dev") == {"moved": {"events": 0, "outcomes": 1}}
    assert [json.loads(body)["run"] for body in letters.waiting("outcomes")] == ["one"]
    assert [item["id"] for item in data("dead-letters", "list", "--env", "dev")] == [second]
    assert "not found: none" in refused("dead-letters", "redrive", "none", "--yes", "--env", "dev")


def test_all_dead_letters_of_a_queue_are_moved_by_sqs(letters: Letters) -> None:
    letters.give_up("events", EVENT, ERROR_CODE="NO_PERMISSIONS")  # it was not in a queue before
    text = ok("dead-letters", "redrive", "--yes", "--env", "dev")
    assert "moved 3 of events" in text
    (task,) = letters.tasks  # no task for a queue without dead letters
    account = letters.resources.account
    assert task["SourceArn"].endswith(":dead-of-events")
    assert task["DestinationArn"] == f"arn:aws:sqs:{letters.resources.region}:{account}:events"


def test_a_move_that_sqs_aborts_is_reported_with_the_reason(letters: Letters) -> None:
    (queue,) = queues(letters.sqs, letters.resources, "events")
    letters.ends_as = {"Status": "FAILED", "FailureReason": "AccessDenied"}
    shown: list[tuple[int, int | None]] = []
    with pytest.raises(CannotRedrive, match=r"moved 3 dead letters of events, then .*: AccessDenied"):
        redrive_all(
            clients.client("sqs"),
            queue,
            lambda progress: shown.append((progress.moved, progress.total)),
            lambda _: None,
        )
    assert shown == [(0, 3), (3, None)]


def test_nothing_is_moved_without_confirmation(letters: Letters) -> None:
    letters.give_up("events", EVENT)
    result = run("dead-letters", "redrive", "--env", "dev", input="n\n")
    assert result.exit_code == 1
    assert "1 of events" in result.stderr
    assert letters.tasks == []
