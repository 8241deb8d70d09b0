"""Records that event source mappings deliver to the Lambda of a source, and the events on the bus."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from stepwell.aws.api.ingest import sinks_of
from stepwell.aws.api.source import SourceFunction
from stepwell.aws.clients import client
from stepwell.aws.queues.event_messages import read_incoming_event
from stepwell.aws.resources import Resources
from stepwell.core.events.events import Event
from stepwell.platform import Cause, IncomingEvent

Json = dict[str, Any]
RULE = {"name": "orders", "type": "sqs", "event": "order/{{ body.kind }}", "user": "key"}
CLUSTER = "arn:aws:kafka:us-east-1:123456789012:cluster/shop/6357e0b2-0e6a-4b86-a0b4-70df934c2e31-5"


def b64(value: Any) -> str:
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


def sqs(*bodies: Any) -> Json:
    """https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html"""
    return {
        "Records": [
            {
                "messageId": f"m-{n}",
                "receiptHandle": "AQEB",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1545082649183",
                    "MessageGroupId": "ada",
                },
                "messageAttributes": {"By": {"stringValue": "web", "dataType": "String"}},
                "md5OfBody": "x",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:shop-orders",
                "awsRegion": "us-east-1",
            }
            for n, body in enumerate(bodies)
        ]
    }


def kinesis(*bodies: Any) -> Json:
    """https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html"""
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "ada",
                    "sequenceNumber": f"4959{n}",
                    "data": b64(body),
                    "approximateArrivalTimestamp": 1545084650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"shardId-000000000006:4959{n}",
                "eventName": "aws:kinesis:record",
                "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/orders",
            }
            for n, body in enumerate(bodies)
        ]
    }


def kafka(*bodies: Any) -> Json:
    """https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html"""
    return {
        "eventSource": "aws:kafka",
        "eventSourceArn": CLUSTER,
        "bootstrapServers": "b-2.shop.kafka.us-east-1.amazonaws.com:9092",
        "records": {
            "orders-0": [
                {
                    "topic": "orders",
                    "partition": 0,
                    "offset": 15 + n,
                    "timestamp": 1545084650987,
                    "timestampType": "CREATE_TIME",
                    "key": b64(b"ada"),
                    "value": b64(body),
                    "headers": [{"By": [119, 101, 98]}],
                }
                for n, body in enumerate(bodies)
            ]
        },
    }


@pytest.fixture
def quarantine(resources: Resources) -> str:
    url: str = client("sqs").create_queue(QueueName="quarantine")["QueueUrl"]
    return url


@pytest.fixture
def source(resources: Resources, quarantine: str) -> SourceFunction:
    """All events on the bus go to the queue."""
    events = client("events")
    events.put_rule(Name="all", EventBusName=resources.bus, EventPattern=json.dumps({"source": [{"prefix": ""}]}))
    target = {"Id": "queue", "Arn": resources.events_queue_arn}
    events.put_targets(Rule="all", EventBusName=resources.bus, Targets=[target])
    return SourceFunction(RULE, *sinks_of(resources), quarantine)


def received(queue: str) -> list[Json]:
    messages = client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def routed(resources: Resources) -> list[Event]:
    """The events as the Lambda `route` reads them."""
    found = []
    for number, envelope in enumerate(received(resources.events_queue)):
        incoming = read_incoming_event(envelope, Cause(str(number), False), 1)
        assert isinstance(incoming, IncomingEvent)
        found.append(incoming.event)
    return sorted(found, key=lambda event: event.id)


@pytest.mark.parametrize(
    ("event", "record"),
    [
        (sqs({"kind": "placed"}), "sqs/shop-orders/m-0"),
        (kinesis({"kind": "placed"}), "kinesis/orders/shardId-000000000006/49590"),
        (kafka({"kind": "placed"}), "kafka/6357e0b2-0e6a-4b86-a0b4-70df934c2e31-5/orders/0/15"),
    ],
)
def test_records_become_events_with_ids_of_their_places(
    source: SourceFunction, resources: Resources, event: Json, record: str
) -> None:
    assert source(event) == {"batchItemFailures": []}
    (made,) = routed(resources)
    assert (made.id, made.name) == (f"source:orders:{record}", "order/placed")
    assert (made.data, made.user) == ({"kind": "placed"}, {"external_id": "ada"})
    assert made.ts // 1000 in (1545082649, 1545084650)


def test_a_record_that_makes_no_event_is_in_the_quarantine_and_the_others_go_on(
    source: SourceFunction, resources: Resources, quarantine: str
) -> None:
    assert source(sqs("not JSON", {"kind": "placed"}, {"no": 1})) == {"batchItemFailures": []}
    assert [event.name for event in routed(resources)] == ["order/placed"]
    first, second = sorted(received(quarantine), key=lambda item: str(item["record"]["id"]))
    assert (first["source"], first["kind"], first["record"]["id"]) == ("orders", "unreadable", "sqs/shop-orders/m-0")
    assert base64.b64decode(first["record"]["body"]) == b"not JSON"
    assert (second["kind"], second["field"]) == ("rule", "event")


def test_records_whose_events_cannot_be_sent_are_delivered_again(resources: Resources, quarantine: str) -> None:
    def gone(events: Any) -> None:
        raise ConnectionError("the bus does not answer")

    source = SourceFunction(RULE, gone, lambda events: [], quarantine)
    failed = source(sqs("not JSON", {"kind": "placed"}, {"kind": "paid"}))
    assert failed == {"batchItemFailures": [{"itemIdentifier": "m-1"}, {"itemIdentifier": "m-2"}]}
    assert source(kinesis({"kind": "placed"})) == {"batchItemFailures": [{"itemIdentifier": "49590"}]}
    with pytest.raises(ConnectionError, match="delivers the batch again"):
        source(kafka({"kind": "placed"}))


def test_events_of_another_service_are_refused(source: SourceFunction) -> None:
    with pytest.raises(ValueError, match="not records of SQS, Kinesis or Kafka"):
        source({"Records": [{"eventSource": "aws:s3"}]})


def test_the_lambda_starts_without_pydantic_and_without_packages_that_it_does_not_have(resources: Resources) -> None:
    """The layers that it has contain no pydantic."""
    missing = ("pydantic", "stepwell.cdk", "stepwell.cli", "stepwell.dev", "stepwell.local", "stepwell.testing")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}));"
        "from stepwell.aws.api.source_handler import handler; print('started')"
    )
    env = os.environ | {
        "STEPWELL_RESOURCES": resources.to_json(),
        "STEPWELL_SOURCE": json.dumps(RULE),
        "STEPWELL_QUARANTINE": "https://sqs.eu-west-1.amazonaws.com/123456789012/quarantine",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "started\n", done.stderr
