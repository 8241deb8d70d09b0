"""Events with the longest allowed fields: everything that is stored about them fits DynamoDB's keys and items."""

from __future__ import annotations

import json
from uuid import uuid4

import orjson
import pytest

from stepwell.aws.api.queries import Queries
from stepwell.aws.table.keys import event_key
from stepwell.core.run.run import RunStatus
from stepwell.testing.batches import Batches, Json, handler_step, sqs_event

LONG = "\U0001f600" * 255  # four bytes each
FIRST, SECOND = LONG + "1", LONG + "2"
USER = {"external_id": LONG}
BY_NAME = {"event": SECOND, "match": "async.data.n > event.data.n", "ttl": "1h"}
BY_KEY = {"event": SECOND, "match": "async.data.text == event.data.text", "ttl": "1h"}


def deliver(batches: Batches) -> None:
    """Runs only a few rounds: an event that cannot be stored would be delivered again and again."""
    for _ in range(6):
        batches.route()
        batches.advance()


@pytest.mark.parametrize("wait", [BY_NAME, BY_KEY], ids=["by name", "by key"])
@pytest.mark.parametrize("comes_first", ["event", "wait"])
def test_the_longest_names_and_ids_start_and_wake_runs(batches: Batches, wait: Json, comes_first: str) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": wait})}, FIRST, "f" * 64)
    batches.send(FIRST, {"n": 1, "text": LONG}, FIRST, USER)
    batches.route()
    if comes_first == "wait":
        batches.advance()
    batches.send(SECOND, {"n": 2, "text": LONG}, SECOND, USER)
    deliver(batches)
    ((run, _),) = batches.runs()
    assert (run.run.status, run.event_id, run.user) == (RunStatus.COMPLETED, FIRST, LONG)
    assert batches.invoked[-1]["async"]["id"] == SECOND


def test_events_and_runs_are_listed_by_the_longest_names_and_users(batches: Batches) -> None:
    batches.deploy({"a": handler_step()}, FIRST)
    batches.send(FIRST, {}, FIRST, USER)
    deliver(batches)
    queries = Queries(batches.resources, batches.session.registry)
    assert [event_detail.event.id for event_detail in queries.read_events(name=FIRST).items] == [FIRST]
    assert [event_detail.event.id for event_detail in queries.read_events(user=LONG).items] == [FIRST]
    assert [run_detail.event_id for run_detail in queries.read_runs(user=LONG).items] == [FIRST]
    assert [run_detail.event_id for run_detail in queries.read_runs(event=FIRST).items] == [FIRST]


def test_an_event_fits_its_item_however_many_functions_it_does_not_start(batches: Batches) -> None:
    never = "event.data.n == 2" + " && true" * 240
    for number in range(80):
        batches.deploy({"a": handler_step()}, id=f"f{number}", triggers=[{"event": "go", "expression": never}])
    event_id = batches.send("go", {"n": 1, "text": "x" * 250_000})
    batches.route()
    item = batches.outside_db.get_item(TableName=batches.resources.table, Key=event_key(event_id))["Item"]
    assert len(item["b"]["B"]) + len(item["ms"]["B"]) < 330_000
    kept = orjson.loads(item["ms"]["B"])
    assert (kept[0]["function_id"], len(kept)) == ("f0", 32)


def put_whole(**fields: object) -> Json:
    """Puts an event on the bus in the format of ingest, as any sender on the bus may do."""
    detail = {"name": "go", "data": {"n": 2}, "user": {}, "id": "good", "ts": 1, "v": None, **fields}
    values = {"version": "0", "id": str(uuid4()), "detail-type": "go", "time": "2026-06-01T10:00:30Z", "detail": detail}
    return {**values, "source": "stepwell.api"}


WRONG: dict[str, Json] = {
    "an id that is a number": {"id": 5},
    "an empty id": {"id": ""},
    "no id": {"id": None},
    "a long id": {"id": "x" * 3000},
    "an id of the engine's": {"id": "cron:f:1"},
    "a user that is a list": {"user": [1]},
    "a user that is null": {"user": None},
    "a user with a long name": {"user": {"id": "u" * 3000}},
    "data that is text": {"data": "x"},
    "data that is a list": {"data": [1]},
    "data of 900 KB": {"data": {"x": "x" * 900_000}},
    "data that is nested deeply": {"data": {"x": json.loads("[" * 300 + "]" * 300)}},
    "half a character": {"data": {"x": "\ud83d"}},
    "a ts that is text": {"ts": "x"},
    "a ts that is true": {"ts": True},
    "a ts beyond all years": {"ts": 10**16},
    "a long name": {"name": "g" * 3000},
    "no name": {"name": None},
    "a name that is a number": {"name": 7},
    "a version that is a list": {"v": []},
    "a name of the engine's": {"name": "stepwell/run.completed"},
}


@pytest.mark.parametrize("source", ["stepwell.api", "stepwell.refused"])
@pytest.mark.parametrize("kind", WRONG)
def test_a_forged_event_is_not_accepted_and_does_no_harm_to_the_one_beside_it(
    batches: Batches, kind: str, source: str
) -> None:
    batches.deploy({"a": handler_step()}, triggers=[{"event": "go", "expression": "event.data.n != 1"}])
    batches.deploy({"a": handler_step()}, triggers=[{"event": "*"}], id="all")
    hostile, good = {**put_whole(**{"id": "hostile", **WRONG[kind]}), "source": source}, put_whole()
    event = sqs_event([hostile, good])
    failed = {failure["itemIdentifier"] for failure in batches.consumer.route(event)["batchItemFailures"]}
    assert failed <= {event["Records"][0]["messageId"]}
    assert sorted((item["ctx"]["function_id"], item["event"]["id"]) for item in batches.invoked) == [
        ("all", "good"),
        ("f", "good"),
    ]
    stored = batches.outside_db.scan(TableName=batches.resources.table)["Items"]
    assert [item["pk"]["S"] for item in stored if item["pk"]["S"].startswith("E#")] == ["E#good"]


def test_what_ingest_filled_in_does_not_count_towards_the_size(batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    longest = 256 * 1024 - len('{"name":"go","data":{"x":""}}')
    event = sqs_event([put_whole(id="i" * 36, data={"x": "x" * longest}, ts=1_780_308_030_000)])
    assert batches.consumer.route(event) == {"batchItemFailures": []}
    assert len(batches.invoked) == 1
