"""Far timers become messages: many requests at a time, the most urgent first, and none is lost where `tick` stops."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.engine.far_timers import _WAITING, IN_PARALLEL
from stepwell.aws.engine.session import now_ms
from stepwell.aws.queues.outbox import NotSent
from stepwell.aws.table.keys import TIMER_SHARDS, timer_key
from stepwell.core.run.messages import Timer, TimerKind
from stepwell.testing.account.meter import metered
from stepwell.testing.batches import Batches, Crash, Json, handler_step, sqs_event

SOON_MS = 5 * 60_000


class _Accepted:
    status_code = 200
    headers: Json = {}  # noqa: RUF012
    content = b""


@contextmanager
def queue(answer: Callable[[list[Json]], list[str]]) -> Iterator[None]:
    """SQS, whose answer to a batch of messages names those that it refuses."""

    def take(params: Json, **_: Any) -> tuple[Any, Json]:
        entries = json.loads(params["body"])["Entries"]
        refused = answer([json.loads(entry["MessageBody"]) for entry in entries])
        failed = [{"Id": name, "Code": "InternalError", "SenderFault": False} for name in refused]
        return _Accepted(), {"Successful": [], "Failed": failed, "ResponseMetadata": {"HTTPStatusCode": 200}}

    events = clients.client("sqs").meta.events
    events.register("before-call.sqs.SendMessageBatch", take, unique_id="queue")
    try:
        yield
    finally:
        events.unregister("before-call.sqs.SendMessageBatch", unique_id="queue")


def put_timers(batches: Batches, count: int) -> list[int]:
    """Timers of as many runs, due one after the other within the next minutes; answers when."""
    dues = [now_ms() + SOON_MS + number for number in range(count)]
    kind = TimerKind.DELAY
    items = [
        {**timer_key(f"run{due}", Timer(kind, 0), due), "r": {"S": f"run{due}"}, "t": {"S": f"{kind.value}.0.0"}}
        for due in dues
    ]
    for first in range(0, count, 25):
        requests = [{"PutRequest": {"Item": item}} for item in items[first : first + 25]]
        batches.outside_db.batch_write_item(RequestItems={batches.resources.table: requests})
    return dues


def move(batches: Batches, for_ms: int = 1) -> int:
    return batches.scheduler.far_timers.move(now_ms(), until=now_ms() + for_ms)


def test_many_batches_are_on_their_way_to_the_queue_at_a_time(batches: Batches, clock: Any) -> None:
    """None is answered before all of them have come."""
    put_timers(batches, 2 * 10 * IN_PARALLEL)
    barrier = threading.Barrier(IN_PARALLEL, timeout=60)

    def take(messages: list[Json]) -> list[str]:
        barrier.wait()
        return []

    with queue(take):
        assert move(batches) == 2 * 10 * IN_PARALLEL
    assert not barrier.broken


def test_the_most_urgent_timers_of_all_shards_are_sent_first(batches: Batches, clock: Any) -> None:
    dues = put_timers(batches, 100)
    sent: list[list[int]] = []

    def take(messages: list[Json]) -> list[str]:
        sent.append([message["due"] for message in messages])
        return []

    with queue(take):
        move(batches)
    assert [due for batch in sorted(sent) for due in batch] == dues
    assert len(sent) == 10


def test_what_there_is_no_time_for_is_sent_in_the_next_minute(batches: Batches, clock: Any) -> None:
    dues = put_timers(batches, 1000)
    sent: Counter[int] = Counter()
    lock = threading.Lock()

    def take(messages: list[Json]) -> list[str]:
        with lock:
            sent.update(message["due"] for message in messages)
            clock.shift(0.001)
        return []

    with queue(take):
        first = move(batches, for_ms=3)
        assert 30 <= first < 1000
        assert sorted(sent) == dues[:first]
        assert move(batches, for_ms=100_000) == 1000 - first
    assert sent == Counter(dues)


def test_where_the_queue_refuses_messages_none_is_lost(batches: Batches, clock: Any) -> None:
    dues = put_timers(batches, 300)
    taken: set[int] = set()
    refuses = [True]

    def take(messages: list[Json]) -> list[str]:
        if refuses[0] and dues[150] in [message["due"] for message in messages]:
            return [str(number) for number in range(len(messages))]
        taken.update(message["due"] for message in messages)
        return []

    with queue(take):
        with pytest.raises(NotSent):
            move(batches)
        refuses[0] = False
        again = move(batches)
    assert taken == set(dues)
    assert again >= 150


def test_few_timers_are_held_in_memory(batches: Batches, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.aws.engine.far_timers._PAGE", 20)
    put_timers(batches, 2000)
    held: list[int] = []
    sent: list[int] = []

    def take(messages: list[Json]) -> list[str]:
        held.append(sum(call.entries for call in meter.calls if call.operation == "Query") - sum(sent))
        sent.append(len(messages))
        return []

    with metered() as meter, queue(take):
        assert move(batches) == 2000
    assert max(held) <= 10 * (_WAITING + 1) + 20 * TIMER_SHARDS


def test_a_forged_message_removes_no_timer_that_a_run_waits_for(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "3h"})})
    batches.send()
    batches.drain()
    ((stored, _),) = batches.runs()
    items = batches.outside_db.scan(TableName=batches.resources.table)["Items"]
    (item,) = [item for item in items if item["pk"]["S"].startswith("T#")]
    due, shard = int(item["sk"]["S"].partition("#")[0]), int(item["pk"]["S"][2:])
    for forged_due in (due, due - 4 * 3_600_000):
        name = {"stepwell": "timer", "run": stored.run.id, "timer": [int(TimerKind.DELAY), 0, 0]}
        event = sqs_event([{**name, "due": forged_due, "shard": shard}])
        assert batches.consumer.advance(event) == {"batchItemFailures": []}
    clock.shift(3 * 3600 - 60)
    assert move(batches) == 1
    clock.shift(60)
    batches.drain()
    assert len(batches.invoked) == 1


def test_a_tick_that_dies_at_any_request_loses_no_far_timer(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "1d"})})
    for crash_at in count():
        batches.invoked.clear()
        event_id = batches.send()
        batches.drain()
        clock.shift(86_400 - 60)
        batches.requests.clear()
        batches.crash_at = crash_at
        try:
            batches.scheduler.tick()
        except Crash:
            batches.start()
        is_over, batches.crash_at = batches.crash_at is not None, None
        for _ in range(2):
            batches.scheduler.tick()
            batches.drain()
            clock.shift(61)
        batches.drain()
        assert [payload["event"]["id"] for payload in batches.invoked] == [event_id], crash_at
        if is_over:
            break
    assert crash_at > 3
