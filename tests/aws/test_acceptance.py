"""When an event is accepted, and which waits it may satisfy then, despite crashes and redeliveries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from moto.core.botocore_stubber import BotocoreStubber

from stepwell.aws import clients
from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.session import now_ms
from stepwell.aws.resources import Resources
from stepwell.core.run.run import RunStatus
from stepwell.testing.batches import LOST, Batches, Crash, Json, Process, destination, handler_step, sqs_event
from tests.aws.test_sweep import failing

PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}


def received(batches: Batches) -> Json:
    """The next message of the queue `events`, as Lambda receives it. It stays invisible."""
    (message,) = batches.outside.receive_message(
        QueueUrl=batches.resources.events_queue, MaxNumberOfMessages=1, AttributeNames=["All"]
    )["Messages"]
    return {"messageId": message["MessageId"], "body": message["Body"], "attributes": message["Attributes"]}


def again(record: Json) -> Json:
    return {**record, "attributes": {**record["attributes"], "ApproximateReceiveCount": "2"}}


def crash_before(batches: Batches, method: str, record: Json) -> None:
    """Makes the process of `route` die when the batch is about to make this request."""

    def die(*arguments: Any) -> None:
        raise Crash

    def dying(now: int) -> DynamoBatch:
        batch = DynamoBatch(batches.session.store, now)
        setattr(batch, method, die)
        return batch

    batches.session.store.batch = dying  # type: ignore[method-assign]
    with pytest.raises(Crash):
        batches.consumer.route({"Records": [record]})
    batches.start()


def invoked(batches: Batches) -> list[str]:
    return [payload["ctx"]["step_id"] for payload in batches.invoked]


def test_a_duplicate_before_it_in_a_batch_does_not_swallow_a_message_that_comes_again(batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    batches.send(id="x")
    first = received(batches)
    crash_before(batches, "add", first)  # the event is stored, but the run is not created
    batches.send(id="x")  # the sender got no answer and tries again
    duplicate = received(batches)
    answer = batches.consumer.route({"Records": [duplicate, again(first)]})
    assert answer == {"batchItemFailures": []}
    batches.drain()
    assert [stored.run.status for stored, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_an_event_that_was_accepted_in_time_satisfies_its_wait_however_late_the_rest_comes(
    batches: Batches, clock: Any
) -> None:
    batches.deploy(
        {
            "a": handler_step(),
            "yes": handler_step({"step": "a", "async": PAID}),
            "no": handler_step({"step": "a", "async": {**PAID, "onTimeout": True}}),
        }
    )
    batches.send(data={"order": 1})
    batches.drain()
    clock.shift(3599)
    batches.send("paid", {"order": 1})
    message = received(batches)
    crash_before(batches, "find_waits", message)
    clock.shift(5)  # the deadline has passed
    batches.scheduler.sweep(range(8))
    clock.shift(120)
    batches.scheduler.sweep(range(8))
    batches.consumer.route({"Records": [again(message)]})
    batches.drain()
    assert invoked(batches) == ["a", "yes"]


def test_an_event_whose_key_could_not_be_stored_is_not_accepted_yet(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": PAID})})
    batches.send("paid", {"order": 1}, id="early")
    message = received(batches)
    with failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException", lambda body: '"K#' in body):
        assert batches.consumer.route({"Records": [message]})["batchItemFailures"]
    assert batches.session.store.batch(now_ms()).events(["early"]) == {}
    batches.send(data={"order": 1})
    batches.drain()
    clock.shift(1)
    batches.consumer.route({"Records": [again(message)]})
    batches.drain()
    assert invoked(batches) == ["a", "b"], "it was accepted after the run's trigger"


def test_an_event_that_was_accepted_before_the_trigger_satisfies_no_wait_when_it_comes_again(
    batches: Batches, clock: Any
) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": PAID})})
    batches.send("paid", {"order": 1})
    message = received(batches)
    crash_before(batches, "find_waits", message)
    clock.shift(1)
    batches.send(data={"order": 1})
    batches.drain()
    batches.consumer.route({"Records": [again(message)]})
    batches.drain()
    assert invoked(batches) == ["a"]


def test_a_duplicates_trace_under_a_key_satisfies_nothing(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "10m", "async": PAID})})
    batches.send("paid", {"order": 1}, id="p")
    batches.drain()
    batches.send(data={"order": 1})
    batches.drain()
    clock.shift(1)
    batches.send("paid", {"order": 1}, id="p")  # accepted before the trigger; this one is a duplicate
    batches.drain()
    clock.shift(605)
    batches.drain()
    assert invoked(batches) == ["a"]


@contextmanager
def lost_answer(nth: int) -> Iterator[list[str]]:
    """The nth write of a run succeeds, but the answer is lost, so the client sends the request again."""
    original, seen = BotocoreStubber.__call__, list[str]()

    def call(self: BotocoreStubber, event_name: str, request: Any, **more: Any) -> Any:
        answer = original(self, event_name, request, **more)
        body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
        if "PutItem" in event_name and b'"R#' in body and b'"sk": {"S": "r"}' in body:
            seen.append(event_name)
            if len(seen) == nth:
                raise ReadTimeoutError(endpoint_url="https://dynamodb")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BotocoreStubber, "__call__", call)
        yield seen


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_write_whose_answer_is_lost_is_no_lost_race(resources: Resources, nth: int) -> None:
    batches = Batches(resources)
    batches.deploy({"a": handler_step(), "b": handler_step("a")})
    batches.send()
    with lost_answer(nth) as seen:
        batches.drain()
    assert len(seen) == 4, "three transitions, and one that was asked for twice"
    assert invoked(batches) == ["a", "b"]
    assert [stored.run.status for stored, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_an_event_that_comes_while_a_wait_is_stored_is_found_by_the_run(batches: Batches, clock: Any) -> None:
    """The router looks for waits before the wait is stored, so the run must look for events after it."""
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": PAID})})
    batches.send(data={"order": 1})
    while batches.route():
        pass
    other, routed = Process(batches.resources), list[Json]()
    clock.shift(1)
    batches.send("paid", {"order": 1})
    message = received(batches)

    def route(params: Json, **_: Any) -> None:
        if b'"pk": {"S": "W#' in params["body"] and not routed:
            routed.append(message)
            assert other.consumer.route({"Records": [message]}) == {"batchItemFailures": []}

    table = clients.client("dynamodb").meta.events
    table.register_first("before-call.dynamodb.PutItem", route)
    try:
        batches.drain()
    finally:
        table.unregister("before-call.dynamodb.PutItem", route)
    assert routed
    assert invoked(batches) == ["a", "b"]


def test_a_wait_that_is_stored_while_an_event_comes_is_found_by_its_router(batches: Batches, clock: Any) -> None:
    """The run looks for events before the event is stored, so the router must look for waits after it."""
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": PAID})})
    batches.answer = lambda ctx: LOST
    batches.send(data={"order": 1})
    batches.drain()
    other, opened = Process(batches.resources), list[Json]()
    outcome = sqs_event([destination(batches.invoked[0], {})])
    batches.answer = lambda ctx: {}
    clock.shift(1)

    def open_wait(params: Json, **_: Any) -> None:
        if b'"pk": {"S": "E#' in params["body"] and not opened:
            opened.append(outcome)
            assert other.consumer.advance(outcome) == {"batchItemFailures": []}

    table = clients.client("dynamodb").meta.events
    table.register_first("before-call.dynamodb.PutItem", open_wait)
    batches.send("paid", {"order": 1})
    try:
        batches.drain()
    finally:
        table.unregister("before-call.dynamodb.PutItem", open_wait)
    assert opened
    assert invoked(batches) == ["a", "b"]
