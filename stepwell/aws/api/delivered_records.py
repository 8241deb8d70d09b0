"""Reads the records that Lambda's event source mappings deliver: of SQS, Kinesis and Kafka.

https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html, with-kinesis.html, with-kafka.html
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepwell.core.sources.records import Record, header_text

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A record. `failure`: how the mapping names it in `batchItemFailures`; empty if it cannot retry single records."""

    record: Record
    failure: str


def delivered(event: Mapping[str, Any]) -> list[Delivered]:
    """The records of an invocation, in their order. Raises ValueError for an event of another kind."""
    if event.get("eventSource") in ("aws:kafka", "SelfManagedKafka"):
        return list(_of_kafka(event))
    return [_one(item) for item in event.get("Records", ())]


def _one(item: Json) -> Delivered:
    match item.get("eventSource"):
        case "aws:sqs":
            return Delivered(_of_sqs(item), item["messageId"])
        case "aws:kinesis":
            return Delivered(_of_kinesis(item), item["kinesis"]["sequenceNumber"])
    raise ValueError(f"events of {item.get('eventSource')!r} are not records of SQS, Kinesis or Kafka")


def _of_sqs(item: Json) -> Record:
    queue, system = item["eventSourceARN"].rpartition(":")[2], item.get("attributes", {})
    headers = {
        name.lower(): value["stringValue"] if "stringValue" in value else _decoded(value.get("binaryValue", ""))
        for name, value in item.get("messageAttributes", {}).items()
    }
    at = int(system["SentTimestamp"]) if "SentTimestamp" in system else None
    place = {"queue": queue, "attributes": system, "key": system.get("MessageGroupId"), "timestamp": at}
    return Record(f"sqs/{queue}/{item['messageId']}", item["body"].encode(), headers, place, at)


def _of_kinesis(item: Json) -> Record:
    stream, kinesis = item["eventSourceARN"].rpartition("/")[2], item["kinesis"]
    shard, _, number = item["eventID"].rpartition(":")
    at = round(kinesis["approximateArrivalTimestamp"] * 1000)
    place = {"stream": stream, "partition": shard, "offset": number, "key": kinesis["partitionKey"], "timestamp": at}
    return Record(f"kinesis/{stream}/{shard}/{number}", base64.b64decode(kinesis["data"]), {}, place, at)


def _of_kafka(event: Mapping[str, Any]) -> Iterator[Delivered]:
    arn, servers = event.get("eventSourceArn", ""), event.get("bootstrapServers", "")
    cluster = arn.rpartition("/")[2] if arn else hashlib.sha256(servers.encode()).hexdigest()[:16]
    for records in event["records"].values():
        for item in records:
            topic, partition, offset = item["topic"], item["partition"], item["offset"]
            key, value = item.get("key"), item.get("value")
            at = item.get("timestamp")
            headers = {
                name.lower(): header_text(bytes(number & 0xFF for number in content))
                for header in item.get("headers", ())
                for name, content in header.items()
            }
            place = {
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "key": None if key is None else _decoded(key),
                "timestamp": at,
            }
            body = None if value is None else base64.b64decode(value)
            yield Delivered(Record(f"kafka/{cluster}/{topic}/{partition}/{offset}", body, headers, place, at), "")


def _decoded(text: str) -> str:
    return header_text(base64.b64decode(text))
