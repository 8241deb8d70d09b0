"""Event types on AWS: events from the bus, the number of reads, and concurrent changes of types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson
import pytest

from stepwell.api.access import KeyScope
from stepwell.aws import observability
from stepwell.aws.api.ingest import ingest_of
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.clients import client
from stepwell.aws.functions import event_types as aws_types
from stepwell.aws.functions.event_types import TypeStore
from stepwell.aws.resources import Resources
from stepwell.event_types.changes import UnknownVersion
from stepwell.event_types.registry import Policy, TypeRefused, TypeVersion
from stepwell.testing.account.meter import Meter, metered
from stepwell.testing.batches import Batches, Crash, Json, handler_step, sqs_event
from tests.aws.test_ingest import accepted, http

AMOUNT: Json = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}}
INVALID = "stepwell/event.invalid"


@pytest.fixture
def types(resources: Resources) -> TypeStore:
    return TypeStore(replace(resources, cache_s=0))


@pytest.fixture
def batches(resources: Resources) -> Batches:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()}, on=INVALID)
    return batches


def placed(version: str = "1", schema: Any = AMOUNT, policy: Policy | None = None) -> TypeVersion:
    return TypeVersion("order/placed", version, schema, policy)


def from_the_bus(data: Json, source: str = "shop", name: str = "order/placed") -> Json:
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": name,
        "source": source,
        "time": "2026-06-01T10:00:30Z",
        "detail": data,
    }


def stored(batches: Batches, prefix: str = "E#") -> list[Json]:
    pages = batches.outside_db.get_paginator("scan").paginate(TableName=batches.resources.table)
    items = [item for page in pages for item in page["Items"]]
    return [orjson.loads(item["b"]["B"]) for item in items if item["pk"]["S"].startswith(prefix) and "b" in item]


def names(batches: Batches) -> list[str]:
    return sorted(event["name"] for event in stored(batches))


# --- the bus ---------------------------------------------------------------------------------------------------------


def test_an_event_from_the_bus_that_its_type_rejects_is_not_accepted_but_told_of(
    batches: Batches, types: TypeStore
) -> None:
    types.register_type(placed(policy=Policy.REJECT))
    batches.start()
    assert batches.consumer.route(sqs_event([from_the_bus({"amount": "x"}), from_the_bus({"amount": 1})])) == {
        "batchItemFailures": []
    }
    assert names(batches) == ["order/placed", INVALID]
    (alert,) = [event["data"] for event in stored(batches) if event["name"] == INVALID]
    assert (alert["policy"], alert["errors"][0]["pointer"]) == ("reject", "/data/amount")
    batches.drain()
    assert len(batches.runs()) == 1


def test_what_nobody_wants_to_know_goes_out_on_the_bus_alone(
    resources: Resources, types: TypeStore, caplog: pytest.LogCaptureFixture
) -> None:
    types.register_type(placed())
    batches = Batches(resources)
    observability._values.clear()
    with metered() as meter:
        batches.consumer.route(sqs_event([from_the_bus({})]))
    assert names(batches) == ["order/placed"]
    assert meter.operations()["events.PutEvents"] == 1
    assert ("EventsInvalid", "Count", 1) in observability._values
    assert "does not match the schema (warn): /data" in caplog.text


def test_an_event_that_was_accepted_goes_on_whatever_its_type_says_when_its_message_comes_again(
    batches: Batches, types: TypeStore
) -> None:
    batches.deploy({"a": handler_step()}, on="order/placed", id="orders")
    message = sqs_event([from_the_bus({})])
    batches.crash_at = len(batches.requests) + 5  # start items, one definition, types; event; run
    with pytest.raises(Crash):
        batches.consumer.route(message)
    assert "order/placed" in names(batches)
    types.register_type(placed(policy=Policy.REJECT))
    batches.start()
    message["Records"][0]["attributes"]["ApproximateReceiveCount"] = "2"
    batches.consumer.route(message)
    batches.drain()
    assert [run.run.status.name for run, _ in batches.runs()] == ["COMPLETED"]
    assert INVALID not in names(batches)


def test_a_wrong_event_that_is_delivered_twice_is_told_of_once(batches: Batches, types: TypeStore) -> None:
    types.register_type(placed(policy=Policy.REJECT))
    message = sqs_event([from_the_bus({})])
    for count in ("1", "2", "3"):
        message["Records"][0]["attributes"]["ApproximateReceiveCount"] = count
        batches.start()
        batches.consumer.route(message)
    batches.drain()
    assert names(batches) == [INVALID]
    assert len(batches.runs()) == 1


@pytest.mark.parametrize("name", ["order/placed", "stepwell/run.failed"])
def test_who_forges_the_mark_of_refused_events_makes_nothing_happen(
    batches: Batches, types: TypeStore, name: str
) -> None:
    types.register_type(placed(policy=Policy.REJECT))
    whole = {"name": name, "data": {"amount": 1}, "user": {}, "id": "x", "ts": 1, "v": None}
    batches.consumer.route(sqs_event([from_the_bus(whole, "stepwell.refused"), from_the_bus({}, "stepwell.refused")]))
    assert names(batches) == []


# --- what it costs ---------------------------------------------------------------------------------------------------


def of_event(batches: Batches, data: Json) -> Meter:
    batches.send("order/placed", data)
    with metered() as meter:
        assert batches.route()
    return meter


def test_an_event_that_is_right_costs_no_more_than_one_without_a_type(resources: Resources, types: TypeStore) -> None:
    batches = Batches(resources)
    of_event(batches, {"amount": 1})
    without = of_event(batches, {"amount": 1})
    types.register_type(placed())
    batches.start()
    first = of_event(batches, {"amount": 1})
    assert first.operations()["dynamodb.GetItem"] - without.operations()["dynamodb.GetItem"] <= 4
    warm = of_event(batches, {"amount": 1})
    assert warm.operations() == without.operations()
    assert (warm.write_units, warm.read_units) == (without.write_units, without.read_units)


def test_ingest_looks_for_types_once_in_a_while_and_reads_a_schema_once(
    resources: Resources, requests: list[str], types: TypeStore
) -> None:
    types.register_type(placed(policy=Policy.REJECT))
    key = KeyStore(resources).create(KeyScope.SEND, "web", 1)[1]
    ingest = ingest_of(replace(resources, ingest="direct"))
    requests.clear()
    for amount in range(5):
        accepted(ingest(http(f"/e/{key}", json.dumps({"name": "order/placed", "data": {"amount": amount}}))))
    assert requests == ["GetItem"] * 3  # the key, the list of types, the schema


def test_ingest_does_not_look_at_types_that_only_warn(
    resources: Resources, requests: list[str], types: TypeStore
) -> None:
    types.register_type(placed())
    key = KeyStore(resources).create(KeyScope.SEND, "web", 1)[1]
    ingest = ingest_of(replace(resources, ingest="direct"))
    requests.clear()
    accepted(ingest(http(f"/e/{key}", json.dumps({"name": "order/placed"}))))
    assert requests == ["GetItem"] * 2


@pytest.mark.parametrize("mode", ["bus", "direct"])
def test_who_sends_a_wrong_event_is_answered_though_nobody_can_be_told(
    resources: Resources, types: TypeStore, mode: str
) -> None:
    types.register_type(placed(policy=Policy.REJECT))
    key = KeyStore(resources).create(KeyScope.SEND, "web", 1)[1]
    ingest = ingest_of(replace(resources, ingest=mode, bus="gone", events_queue="https://sqs/gone"))
    answer = ingest(http(f"/e/{key}", json.dumps({"name": "order/placed"})))
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["errors"][0]["pointer"] == "/data"


# --- changes ---------------------------------------------------------------------------------------------------------


def test_two_who_register_at_the_same_time_lose_nothing(types: TypeStore, resources: Resources) -> None:
    other = TypeStore(resources)
    is_first = True

    def meanwhile(params: Json, **_: Any) -> None:
        nonlocal is_first
        if is_first and b'"META"' in params["body"]:
            is_first = False
            other.register_type(TypeVersion("other", "1", {}))

    client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", meanwhile, unique_id="meanwhile")
    types.register_type(placed())
    client("dynamodb").meta.events.unregister("before-call.dynamodb.PutItem", unique_id="meanwhile")
    assert not is_first
    assert [type_detail.name for type_detail in types.read_types()] == ["order/placed", "other"]


@contextmanager
def lost_answers(operation: str) -> Iterator[None]:
    """The first answer of DynamoDB is lost, and boto3 sends the request again."""
    lost: list[str] = []

    def again(**_: Any) -> float | None:
        lost.append(operation)
        return 0 if len(lost) == 1 else None

    events, event = client("dynamodb").meta.events, f"needs-retry.dynamodb.{operation}"
    events.register_first(event, again, unique_id="lost")
    yield
    events.unregister(event, unique_id="lost")
    assert lost


@pytest.mark.parametrize("others", [(), ("2",)])
def test_a_version_is_removed_though_the_answer_to_that_is_lost(types: TypeStore, others: tuple[str, ...]) -> None:
    types.register_types([placed(version) for version in ("1", *others)])
    with lost_answers("PutItem"):
        types.remove_version("order/placed", "1", ())
    left = types.read_type("order/placed")
    assert (left is None) if not others else [version for version, *_ in left.versions] == ["2"]


def test_what_was_removed_meanwhile_is_unknown(types: TypeStore) -> None:
    with pytest.raises(UnknownVersion, match="event type order/placed no longer has any versions"):
        types.remove_version("order/placed", "1", ())


def test_of_two_who_register_one_version_differently_the_second_is_held_against_the_first(types: TypeStore) -> None:
    types.register_type(placed())
    with pytest.raises(TypeRefused, match="new version"):
        types.register_type(placed(schema={"properties": {"amount": {"type": "string"}}}))
    assert types.read_schema("order/placed", "1") == AMOUNT


def test_a_schema_that_was_written_when_the_process_died_is_no_version_yet(types: TypeStore) -> None:
    types._put_schema(placed(), aws_types.check_type(placed()))
    assert types.read_types() == []
    assert types.register_type(placed()).what == "created"


def test_a_schema_that_changed_under_its_version_counts_after_the_cache_time(resources: Resources) -> None:
    now = 0.0
    warm = TypeStore(replace(resources, cache_s=5), lambda: now)
    other = TypeStore(resources)
    other.register_type(placed(policy=Policy.REJECT))
    event = _event({})
    assert warm.current().judge(event) is not None
    other.register_type(placed(schema={"type": "object"}))
    now = 4.9
    assert warm.current().judge(event) is not None
    now = 5.0
    assert warm.current().judge(event) is None


def test_more_types_than_an_item_can_hold_are_refused(types: TypeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_types, "_MOST_BYTES", 300)

    def register_many() -> None:
        for number in range(50):
            types.register_type(TypeVersion(uuid4().hex, str(number), {}))

    with pytest.raises(TypeRefused, match="too many event types and versions"):
        register_many()
    assert 0 < len(types.read_types()) < 50


def _event(data: Json) -> Any:
    from stepwell.core.events.events import event_from

    return event_from({"name": "order/placed", "data": data, "id": "x", "ts": 1})
