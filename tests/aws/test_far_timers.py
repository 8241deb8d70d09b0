"""Far timers become messages: in parallel requests, in order of due times, without losses where `tick` stops."""

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
from stepwell.aws.engine.sweep import LATE_MS
from stepwell.aws.engine.timers import AHEAD_MS
from stepwell.aws.queues.outbox import NotSent
from stepwell.aws.table.keys import TIMER_SHARDS, TIMERS_STATE, timer_key, timer_partition
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
    """SQS that refuses some messages of a batch."""

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
    """Creates one timer for each of several runs, due one after the other in the next minutes.

    Returns the due times.
    """
    dues = [now_ms() + SOON_MS + number for number in range(count)]
    put_timers_at(batches, dues)
    return dues


def put_timers_at(batches: Batches, dues: list[int]) -> None:
    kind = TimerKind.DELAY
    items = [
        {**timer_key(f"run{due}", Timer(kind, 0), due), "r": {"S": f"run{due}"}, "t": {"S": f"{kind.value}.0.0"}}
        for due in dues
    ]
    for first in range(0, len(items), 25):
        requests = [{"PutRequest": {"Item": item}} for item in items[first : first + 25]]
        batches.outside_db.batch_write_item(RequestItems={batches.resources.table: requests})


def put_unreadable(batches: Batches, due: int) -> None:
    item = {"pk": {"S": timer_partition(0)}, "sk": {"S": f"{due:015}#r#0"}, "t": {"S": "nonsense"}}
    batches.outside_db.put_item(TableName=batches.resources.table, Item=item)


def move(batches: Batches, for_ms: int = 1) -> int:
    return batches.scheduler.far_timers.move(now_ms(), until=now_ms() + for_ms)


def send_late(batches: Batches) -> int:
    """The timers of all shards."""
    far_timers = batches.scheduler.far_timers
    return sum(far_timers.send_late(shard, now_ms(), until=now_ms() + 1) for shard in range(TIMER_SHARDS))


def test_many_batches_are_on_their_way_to_the_queue_at_a_time(batches: Batches, clock: Any) -> None:
    """Requests are answered only after all of them have arrived."""
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


def test_a_timer_is_sent_ten_minutes_before_it_is_due_and_not_a_millisecond_earlier(
    batches: Batches, clock: Any
) -> None:
    due = now_ms() + AHEAD_MS
    put_timers_at(batches, [due, due + 1])
    sent: list[int] = []
    with queue(lambda messages: sent.extend(message["due"] for message in messages) or []):
        assert move(batches) == 1
        assert sent == [due]
        clock.shift(0.001)
        assert move(batches) == 1
        assert sent == [due, due + 1]


def test_what_a_clock_that_was_ahead_has_sent_too_early_is_sent_in_time(batches: Batches, clock: Any) -> None:
    """The messages may have arrived long before, when nothing waited for the timers."""
    put_timers(batches, 3)
    ahead = {**TIMERS_STATE, "k": {"S": f"{now_ms() + 5 * 3_600_000:015}#run#2.0.0"}}
    batches.outside_db.put_item(TableName=batches.resources.table, Item=ahead)
    assert move(batches) == 3
    assert move(batches) == 0


def test_only_a_timer_that_was_sent_and_is_late_is_sent_once_more(batches: Batches, clock: Any) -> None:
    now = now_ms()
    put_timers_at(batches, [now - LATE_MS - 1, now - LATE_MS])
    assert send_late(batches) == 0  # they have not been sent yet
    assert move(batches) == 2
    assert send_late(batches) == 1
    clock.shift(0.001)
    assert send_late(batches) == 2


def test_a_timer_that_cannot_be_read_is_an_error_and_is_passed_over(batches: Batches, clock: Any) -> None:
    dues = put_timers(batches, 2)
    put_unreadable(batches, dues[0] - 1)
    sent: list[int] = []
    with queue(lambda messages: sent.extend(message["due"] for message in messages) or []):
        with pytest.raises(ValueError, match="nonsense"):
            move(batches)
        assert sent == dues
        assert move(batches) == 0
        clock.shift(3600)
        with pytest.raises(ValueError, match="nonsense"):
            send_late(batches)


def test_a_late_timer_that_the_queue_refuses_is_an_error(batches: Batches, clock: Any) -> None:
    put_timers(batches, 1)
    move(batches)
    clock.shift(3600)
    with queue(lambda messages: ["0"]), pytest.raises(NotSent):
        send_late(batches)


def test_what_is_behind_messages_that_the_queue_refuses_is_not_taken_for_sent(batches: Batches, clock: Any) -> None:
    """Several batches are sent in parallel: later ones may succeed before the refusal is known."""
    dues = put_timers(batches, 30)
    refused = dues[0]
    with (
        queue(lambda messages: [str(n) for n, message in enumerate(messages) if message["due"] == refused]),
        pytest.raises(NotSent),
    ):
        move(batches)
    sent: list[int] = []
    with queue(lambda messages: sent.extend(message["due"] for message in messages) or []):
        move(batches)
    assert sorted(sent) == dues


def test_when_the_queue_takes_no_more_nothing_further_is_offered(batches: Batches, clock: Any) -> None:
    put_timers(batches, 10 * (_WAITING + 10))
    offered: set[int] = set()

    def refuse(messages: list[Json]) -> list[str]:
        offered.add(messages[0]["due"])
        return [str(number) for number in range(len(messages))]

    with queue(refuse), pytest.raises(NotSent):
        move(batches)
    assert len(offered) <= _WAITING
