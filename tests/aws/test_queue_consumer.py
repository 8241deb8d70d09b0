"""A batch of messages: which of them are delivered again, and that nothing is kept for the next batch."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stepwell.aws import clients
from stepwell.aws.engine.session import now_ms
from stepwell.core.run.approvals import Link
from stepwell.core.run.messages import Outcome
from stepwell.core.run.resume import Restart
from stepwell.core.run.run import RunStatus
from stepwell.testing.batches import LOST, Batches, Json, Process, destination, handler_step, sqs_event
from tests.aws.test_sweep import failing


class OutOfMemory(RuntimeError):
    """An error that AWS does not raise, such as a bug or an exhausted process."""


@contextmanager
def broken(operation: str, when: Callable[[bytes], bool] = lambda body: True) -> Iterator[None]:
    """Makes requests to DynamoDB of this kind raise an error that is not AWS's."""

    def fail(params: Json, **_: Any) -> None:
        if when(params["body"]):
            raise OutOfMemory

    events, name = clients.client("dynamodb").meta.events, f"before-call.dynamodb.{operation}"
    events.register_first(name, fail)
    try:
        yield
    finally:
        events.unregister(name, fail)


def envelope(name: str = "go", data: Json | None = None, id: str = "e") -> Json:
    """An event in the queue `events`, in an envelope with the id of the event."""
    return {
        "version": "0",
        "id": f"envelope of {id}",
        "detail-type": name,
        "source": "stepwell.api",
        "time": "2026-06-01T10:00:30Z",
        "detail": {"name": name, "data": data or {}, "id": id, "user": {}},
    }


def ids(event: Json) -> list[str]:
    return [record["messageId"] for record in event["Records"]]


def failed(answer: Json) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def again(event: Json) -> Json:
    """The same messages, delivered again."""
    attributes = {"ApproximateReceiveCount": "2"}
    return {"Records": [{**record, "attributes": attributes} for record in event["Records"]]}


def statuses(batches: Batches) -> list[RunStatus]:
    return [stored.run.status for stored, _ in batches.runs()]


# --- which messages are delivered again ------------------------------------------------------------------------------


def test_all_events_of_a_batch_come_again_if_it_ends_with_an_error_that_is_none_of_awss(batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    event = sqs_event([envelope(id="x"), envelope(id="y")])
    with broken("BatchWriteItem"):  # writing the lists, after the runs are started
        assert failed(batches.consumer.route(event)) == ids(event)
    batches.start()
    assert failed(batches.consumer.route(again(event))) == []
    batches.drain()
    assert statuses(batches) == [RunStatus.COMPLETED] * 2


def test_all_outcomes_of_a_batch_come_again_if_it_ends_with_an_error_that_is_none_of_awss(batches: Batches) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(), "b": handler_step("a")})
    for _ in range(2):
        batches.send()
    batches.drain()
    event = sqs_event([destination(payload, {}) for payload in batches.invoked])
    with broken("PutItem"):
        assert failed(batches.consumer.advance(event)) == ids(event)
    batches.start()
    batches.answer = lambda ctx: {}
    assert failed(batches.consumer.advance(again(event))) == []
    batches.drain()
    assert statuses(batches) == [RunStatus.COMPLETED] * 2


def test_all_messages_with_one_cause_come_again(batches: Batches) -> None:
    """EventBridge may deliver an event in two messages. Both must stay in the queue until the event is accepted."""
    batches.deploy({"a": handler_step()})
    twice, other = envelope(id="x"), envelope(id="y")
    event = sqs_event([twice, other, twice])
    with failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException", lambda body: '"E#x"' in body):
        assert failed(batches.consumer.route(event)) == [ids(event)[0], ids(event)[2]]
    assert failed(batches.consumer.route(again(event))) == []
    batches.drain()
    assert statuses(batches) == [RunStatus.COMPLETED] * 2


def test_a_message_that_cannot_be_read_comes_again_alone(batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    event = sqs_event([envelope(id="x"), {}, envelope(id="y")])
    event["Records"].append({**event["Records"][0], "messageId": "no JSON", "body": "{"})
    assert failed(batches.consumer.route(event)) == [ids(event)[1], "no JSON"]
    batches.drain()
    assert statuses(batches) == [RunStatus.COMPLETED] * 2


@contextmanager
def answers_get_lost(batches: Batches, of: bytes) -> Iterator[None]:
    """The item with this key is written, but the answer is lost, so the client sends the request again."""
    lost: list[bytes] = []

    def write(params: Json, **_: Any) -> None:
        body = params["body"]
        if of in body and body not in lost:
            lost.append(body)
            batches.outside_db.put_item(**_from_wire(orjson.loads(body)))

    events = clients.client("dynamodb").meta.events
    events.register_first("before-call.dynamodb.PutItem", write)
    try:
        yield
    finally:
        events.unregister("before-call.dynamodb.PutItem", write)
    assert lost


def _from_wire(value: Any) -> Any:
    """A request in the format of boto3: bytes are base64 on the wire."""
    if isinstance(value, dict):
        return {
            name: b64decode(item) if name == "B" and isinstance(item, str) else _from_wire(item)
            for name, item in value.items()
        }
    return list(map(_from_wire, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("of", [b"E#x", b"R#"])
def test_an_event_is_accepted_and_its_run_starts_once_though_the_answer_to_a_write_is_lost(
    batches: Batches, of: bytes
) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    with answers_get_lost(batches, of):
        assert failed(batches.consumer.route(sqs_event([envelope(id="x")]))) == []
    assert len(batches.invoked) == 1


def test_the_next_step_starts_once_though_the_answer_to_the_write_of_a_run_is_lost(batches: Batches) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(), "b": handler_step("a")})
    batches.send()
    batches.drain()
    with answers_get_lost(batches, b"R#"):
        assert failed(batches.consumer.advance(sqs_event([destination(batches.invoked[0], {})]))) == []
    assert [payload["ctx"]["step_id"] for payload in batches.invoked] == ["a", "b"]


# --- forged messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["attempt", "step_id", "run_id"])
def test_a_token_proves_the_outcome_of_its_own_attempt_and_no_other(batches: Batches, clock: Any, field: str) -> None:
    batches.answer = lambda ctx: LOST
    retried = {"attempts": 1, "backoff": {"initial": "1s"}}
    batches.deploy({"a": handler_step(retries=retried), "b": handler_step()})
    batches.send(id="x")
    batches.send(id="y")
    batches.drain()
    payload = next(p for p in batches.invoked if (p["ctx"]["step_id"], p["event"]["id"]) == ("a", "x"))
    other = {
        "attempt": 2,
        "step_id": "b",
        "run_id": next(p["ctx"]["run_id"] for p in batches.invoked if p["event"]["id"] == "y"),
    }
    forged = {**payload, "ctx": {**payload["ctx"], field: other[field]}}
    if field == "attempt":  # the second step runs
        batches.consumer.advance(sqs_event([destination(payload, {"status": 503})]))
        clock.shift(2)
        batches.drain()
        assert batches.invoked[-1]["ctx"]["attempt"] == 2
    assert failed(batches.consumer.advance(sqs_event([destination(forged, {"forged": True})]))) == []
    for _, attempts in batches.runs():
        assert [attempt.status for attempt in attempts if attempt.output is not None] == []


# --- what is not kept ------------------------------------------------------------------------------------------------


def test_a_batch_starts_functions_that_were_deployed_after_the_last_one(batches: Batches) -> None:
    warm = Process(replace(batches.resources, cache_s=0))
    warm.consumer.route(sqs_event([envelope(id="early")]))
    batches.deploy({"a": handler_step()})
    warm.consumer.route(sqs_event([envelope(id="late")]))
    assert [stored.event_id for stored, _ in batches.runs()] == ["late"]


def test_a_batch_writes_nothing_of_the_last_one_again(batches: Batches) -> None:
    """The last batch could not write lists. The messages are delivered again, perhaps to another process."""
    batches.deploy({"a": handler_step()})
    with broken("BatchWriteItem"):
        batches.consumer.route(sqs_event([envelope(id="x")]))
    written: list[bytes] = []
    note = lambda params, **_: written.append(params["body"])  # noqa: E731
    clients.client("dynamodb").meta.events.register("before-call.dynamodb.BatchWriteItem", note)
    batches.consumer.route(sqs_event([envelope(id="y")]))
    rows = [
        orjson.loads(b64decode(item["PutRequest"]["Item"]["x"]["B"]))
        for body in written
        for item in orjson.loads(body)["RequestItems"][batches.resources.table]
    ]
    assert {name for row in rows for _, name in row.get("e", ())} == {"y"}


def test_a_rerun_reads_the_run_as_it_is_now(batches: Batches) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(), "b": handler_step("a")})
    batches.send()
    batches.drain()
    warm = Process(batches.resources)
    ((stored, _),) = batches.runs()
    assert warm.control.rerun(stored.run.id) is not None  # it reads the run while the first step still runs
    batches.answer = lambda ctx: {}
    batches.consumer.advance(sqs_event([destination(batches.invoked[0], {})]))
    batches.drain()
    batches.invoked.clear()
    assert warm.control.rerun(stored.run.id, Restart("b", {})) is not None
    assert [payload["ctx"]["step_id"] for payload in batches.invoked] == [
        "b"
    ]  # the output of the previous step is known


def test_a_decision_reads_the_run_as_it_is_now(batches: Batches) -> None:
    asks = {"runtime": {"type": "approval", "message": "Really?"}, "after": [{"step": "a"}]}
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step(), "ask": asks})
    batches.send()
    batches.drain()
    ((stored, _),) = batches.runs()
    link = Link(stored.run.id, 1, 1, "approved", now_ms() + 60_000)
    warm = Process(batches.resources)
    assert not warm.control.decide(link, Outcome(b"{}"))  # the approval is not open yet
    batches.consumer.advance(sqs_event([destination(batches.invoked[0], {})]))
    assert warm.control.decide(link, Outcome(b"{}"))
