"""Far timers: items that `tick` turns into messages shortly before they are due, thousands a second.

The item of a far timer exists until the run has handled the timer: the message contains the item's key, and the batch
that folds the message deletes the item. So `tick` only reads and sends, and a lost message is sent again. Timers of all
shards are sent in the order of their due times, so one sort key is enough to remember where `tick` stopped. A timer
that is sent twice fires once.

Throughput: SendMessageBatch takes ten messages (`outbox.MAX_BATCH`) and answers in 10 to 20 ms, so 32 parallel requests
send 16,000 messages a second or more. The processor is the limit before that: ADR 6 has the numbers.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from time import time_ns
from typing import NamedTuple

from stepwell.aws.clients import client
from stepwell.aws.engine.sweep import LATE_MS
from stepwell.aws.engine.timers import AHEAD_MS
from stepwell.aws.queues.messages import delay_s, entry, timer_message
from stepwell.aws.queues.outbox import MAX_BATCH, send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item
from stepwell.aws.table.keys import TIMER_SHARDS, TIMERS_STATE, Item, timer_partition
from stepwell.core.run.messages import Timer, TimerKind

log = logging.getLogger("stepwell.aws")
IN_PARALLEL = 32  # requests to SQS, as many as there are connections (`clients`)
_WAITING = 2 * IN_PARALLEL  # batches in memory
_PAGE = 500  # timers of a shard that are read at once
_LATE_AT_ONCE = 10_000  # late timers sent again in one round; more would fill a queue that may only be long


class _Batch(NamedTuple):
    last: str  # the sort key of the last timer
    timers: int
    done: Future[None]


class FarTimers:
    """Reads far timers and sends their messages."""

    def __init__(self, resources: Resources) -> None:
        self._table, self._queue = resources.table, resources.outcomes_queue
        self._pool = ThreadPoolExecutor(IN_PARALLEL, "timers")

    def move(self, now: int, until: int) -> int:
        """Sends the timers that are due within ten minutes and were not sent yet. Returns the number of timers.

        It stops at the time `until` (ms), and the next call continues from there. Raises the first error after the
        other timers are sent.
        """
        before, after = _first_at(now + AHEAD_MS + 1), self._cursor()
        if after >= before:  # another clock was ahead: timers that it sent too early are sent again
            after = ""
        count, last, errors = self._send(_in_order(self._table, after, before), until)
        if last:
            client("dynamodb").put_item(TableName=self._table, Item={**TIMERS_STATE, "k": {"S": last}})
        if errors:
            raise errors[0]
        return count

    def send_late(self, shard: int, now: int, until: int) -> int:
        """Sends late timers again: they were sent and should have fired, but their items still exist.

        Returns the number of timers. Raises the first error after the other timers are sent.
        """
        before = min(self._cursor(), _first_at(now - LATE_MS))
        late = islice(_of_shard(self._table, shard, "", before), _LATE_AT_ONCE)
        count, _, errors = self._send(late, until)
        if count:
            log.warning("%s far timers of shard %s sent again", count, shard)
        if errors:
            raise errors[0]
        return count

    def _cursor(self) -> str:
        found = read_item(self._table, TIMERS_STATE)
        return "" if found is None else str(found["k"]["S"])

    def _send(self, timers: Iterator[Item], until: int) -> tuple[int, str, list[Exception]]:
        """The number of sent timers, the sort key up to which all timers are sent, and the errors.

        An item that cannot be read is skipped. After an error of SQS nothing more is sent.
        """
        count, last, failed, unreadable = 0, "", list[Exception](), list[Exception]()
        batches = deque[_Batch]()

        def finish(batch: _Batch) -> None:
            nonlocal count, last
            try:
                batch.done.result()
                count, last = count + batch.timers, last if failed else batch.last
            except Exception as error:
                failed.append(error)

        while not failed and (items := list(islice(timers, MAX_BATCH))):
            if now_ms() >= until:
                log.warning("time is up, far timers left for the next minute from %s on", items[0]["sk"]["S"])
                break
            messages = list(_readable(items, unreadable))
            batches.append(_Batch(items[-1]["sk"]["S"], len(messages), self._pool.submit(self._send_batch, messages)))
            if len(batches) == _WAITING:
                finish(batches.popleft())
        for batch in batches:
            finish(batch)
        return count, last, [*failed, *unreadable]

    def _send_batch(self, messages: Sequence[tuple[bytes, int]]) -> None:
        """Sends messages with their remaining delays. Raises NotSent, ClientError."""
        now = now_ms()  # not the time of the round, because the batch may have waited
        send_messages(self._queue, [entry(body, delay_s(due, now)) for body, due in messages])


def _readable(items: Sequence[Item], unreadable: list[Exception]) -> Iterator[tuple[bytes, int]]:
    """The message of each timer, and when it is due (ms). Items that cannot be read are added to `unreadable`."""
    for item in items:
        try:
            due = int(item["sk"]["S"].partition("#")[0])
            kind, index, attempt = map(int, item["t"]["S"].split("."))
            timer, shard = Timer(TimerKind(kind), index, attempt), int(item["pk"]["S"].partition("#")[2])
            yield timer_message(item["r"]["S"], timer, due, shard), due
        except Exception as error:
            log.exception("far timer %s cannot be read", item["sk"]["S"])
            unreadable.append(error)


def _in_order(table: str, after: str, before: str) -> Iterator[Item]:
    """The timers of all shards between two sort keys, earliest first. One page of each shard is in memory."""
    shards = [_of_shard(table, shard, after, before) for shard in range(TIMER_SHARDS)]
    return heapq.merge(*shards, key=lambda item: str(item["sk"]["S"]))


def _of_shard(table: str, shard: int, after: str, before: str) -> Iterator[Item]:
    if after >= before:
        return
    pages = client("dynamodb").get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :before",
        ExpressionAttributeValues={
            ":pk": {"S": timer_partition(shard)},
            ":first": {"S": after + "\0"},
            ":before": {"S": before},
        },
        PaginationConfig={"PageSize": _PAGE},
    )  # fmt: skip
    for page in pages:
        yield from page["Items"]


def _first_at(ms: int) -> str:
    """A string that sorts before the sort keys of all timers due at `ms` or later."""
    return f"{max(0, ms):015}"


def now_ms() -> int:
    return time_ns() // 1_000_000
