"""Lists of events and runs, newest first: all of them, and those of one event name, user, function or replay.

A batch of the engine writes one row for each value of each dimension, not one for each entry. The rows of a list
(`list_layout`) are spread over partitions by month and shard; a reader merges them.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import put_items, read_partition
from stepwell.aws.table.keys import NEW, STATUS_INDEX, STATUS_SHARDS, Item, Key, status_partition
from stepwell.aws.table.list_layout import (
    EVENTS,
    LIST_SHARDS,
    RUNS,
    SPAN,
    Entry,
    entries_of,
    list_partition,
    months_between,
    row_item,
    rows_of,
)
from stepwell.aws.table.list_layout import Listed as Listed  # which whoever adds to lists makes
from stepwell.aws.table.positions import first_of

_BATCH = 25  # rows that BatchWriteItem takes
_DAY_MS = 86_400_000
_LONGEST_RUN_MS = 366 * _DAY_MS  # as long as a run can wait before it ends
_SKEW_MS = 60_000  # how far another Lambda's clock may be ahead
_START: Item = {"pk": {"S": "META"}, "sk": {"S": "lists"}}  # holds in p the position at which the lists begin

Ask = Callable[..., dict[str, Any]]


class Row(NamedTuple):
    """A row of a list, with the ids of its events and runs."""

    key: Key
    events: list[str]
    runs: list[str]


class Lists:
    """May be used from several threads."""

    def __init__(self, resources: Resources) -> None:
        self._table, self._retention_ms = resources.table, resources.retention_days * _DAY_MS
        self._pool = ThreadPoolExecutor(LIST_SHARDS, "lists")
        self._start: int | None = None

    # --- writing ---------------------------------------------------------------------------------------------------

    def add(self, events: Sequence[Listed], runs: Sequence[Listed], now: int) -> None:
        """Write what a batch accepted and started. Writing some of it again changes nothing."""
        ttl = (now + self._retention_ms) // 1000
        rows = [row_item(dimension, entries, ttl) for dimension, entries in rows_of(events, runs)]
        if not rows:
            return
        if self._start is None:
            self._write_start(min(listed.position for listed in (*events, *runs)))
        batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
        if len(batches) == 1:
            put_items(self._table, rows)
        else:
            list(self._pool.map(partial(put_items, self._table), batches))

    def _write_start(self, position: int) -> None:
        db = client("dynamodb")
        number = max(0, position - first_of(_SKEW_MS))
        try:
            db.put_item(TableName=self._table, Item={**_START, "p": {"N": str(number)}}, ConditionExpression=NEW)
        except db.exceptions.ConditionalCheckFailedException:
            number = self._read_start() or 0
        self._start = number

    # --- reading ---------------------------------------------------------------------------------------------------

    def entries(
        self, kind: str, dimension: str, before: int | None, page: int, since: int | None = None
    ) -> Iterator[Entry]:
        """The events or runs of a list, newest first; `before`: only what is older than this position, and `since`: not
        older than this one. `page`: how many the reader will probably want."""
        span = self._range(before, self._retention_ms, since)
        if span is None:
            return
        floor, before = span

        def rows() -> Iterator[Item]:
            lowest = max(0, floor - SPAN)  # a row's entries lie behind it
            bounds = {":floor": {"S": f"{lowest:020}"}, ":before": {"S": f"{before:020}"}}
            for month in months_between(lowest, before):
                partitions = [list_partition(dimension, month, shard) for shard in range(LIST_SHARDS)]
                ask = self._query("pk = :partition AND sk BETWEEN :floor AND :before", bounds, page)
                yield from self._merge(partitions, ask, lambda item: str(item["sk"]["S"]))

        for entry, _ in groupby(entries_of(rows(), kind, before)):  # what was listed twice stands together
            if entry[0] >= floor:
                yield entry

    def runs_of_status(self, status: str, before: int | None, page: int, since: int | None = None) -> Iterator[Entry]:
        """Runs that are `running`, or that `failed` or were `cancelled`, newest first, as the index knows them."""
        span = self._range(before, self._retention_ms + _LONGEST_RUN_MS, since)
        if span is None:
            return
        floor, before = span
        months: Sequence[str | None] = [None] if status == "running" else list(months_between(floor, before))
        ended = (entry for month in months for entry in self._of_status(status, month, floor, before, page))
        if status != "failed":
            yield from ended
        else:  # those in which something still runs stand apart
            yield from heapq.merge(ended, self._of_status("ending", None, floor, before, page), reverse=True)

    def _of_status(self, status: str, month: str | None, floor: int, before: int, page: int) -> Iterator[Entry]:
        partitions = [status_partition(status, shard, month) for shard in range(STATUS_SHARDS)]
        return ((position, partition[2:]) for position, partition in self.indexed(partitions, floor, before, page))

    def indexed(self, partitions: Sequence[str], floor: int, before: int, page: int) -> Iterator[Entry]:
        """What these partitions of the index hold, newest first: positions and partitions of the table."""
        if before <= floor:
            return
        bounds = {":floor": {"N": str(floor)}, ":before": {"N": str(before - 1)}}
        ask = self._query("gk = :partition AND gs BETWEEN :floor AND :before", bounds, page, IndexName=STATUS_INDEX)
        for item in self._merge(partitions, ask, lambda item: int(item["gs"]["N"])):
            yield int(item["gs"]["N"]), item["pk"]["S"]

    # --- whole lists -----------------------------------------------------------------------------------------------

    def rows(self, dimension: str) -> Iterator[Row]:
        """All rows of a list, each month's by itself, the newest month first."""
        for partition in self._partitions(dimension):
            for item in read_partition(self._table, partition, ConsistentRead=True):
                content = orjson.loads(item["x"]["B"])
                events, runs = ([name for _, name in content.get(kind, ())] for kind in (EVENTS, RUNS))
                yield Row({"pk": item["pk"], "sk": item["sk"]}, events, runs)

    def oldest(self, dimension: str) -> int | None:
        """The position with which a list begins."""
        found = None
        ask = {"KeyConditionExpression": "pk = :partition", "Limit": 1, "TableName": self._table}
        for partition in self._partitions(dimension):
            answer = client("dynamodb").query(**ask, ExpressionAttributeValues={":partition": {"S": partition}})
            for item in answer["Items"]:
                number = int(item["sk"]["S"].partition("#")[0])
                found = number if found is None else min(found, number)
        return found

    def _partitions(self, dimension: str) -> Iterator[str]:
        span = self._range(None, self._retention_ms, None)
        for month in months_between(*span) if span is not None else ():
            yield from (list_partition(dimension, month, shard) for shard in range(LIST_SHARDS))

    def _range(self, before: int | None, reach_ms: int, since: int | None) -> tuple[int, int] | None:
        """The positions between which entries can be; None if nothing was ever listed."""
        if self._start is None:
            self._start = self._read_start()
        if self._start is None:
            return None
        now = time.time_ns() // 1_000_000
        newest = first_of(now + _SKEW_MS)
        floor = max(self._start, first_of(now - reach_ms), since or 0)
        return floor, newest if before is None else min(before, newest)

    def _read_start(self) -> int | None:
        item = client("dynamodb").get_item(TableName=self._table, Key=_START).get("Item")
        return None if item is None else int(item["p"]["N"])

    def _query(self, condition: str, bounds: Item, page: int, **options: Any) -> Ask:
        """One page of a partition. A quarter of what is wanted is twice what a shard holds of it, on average."""

        def ask(partition: str, start: Item | None = None) -> dict[str, Any]:
            more = options if start is None else {**options, "ExclusiveStartKey": start}
            answer: dict[str, Any] = client("dynamodb").query(
                TableName=self._table,
                KeyConditionExpression=condition,
                ExpressionAttributeValues={**bounds, ":partition": {"S": partition}},
                ScanIndexForward=False,
                Limit=max(10, page // 4),
                **more,
            )
            return answer

        return ask

    def _merge(self, partitions: Sequence[str], ask: Ask, key: Callable[[Item], Any]) -> Iterator[Item]:
        """The rows of some partitions, each of which is read newest first, as one; the first pages in parallel."""
        first = [self._pool.submit(ask, partition) for partition in partitions]
        shards = [_rows(partial(ask, partition), future) for partition, future in zip(partitions, first, strict=True)]
        return heapq.merge(*shards, key=key, reverse=True)


def _rows(ask: Ask, first: Future[dict[str, Any]]) -> Iterator[Item]:
    answer = first.result()
    yield from answer["Items"]
    while "LastEvaluatedKey" in answer:
        answer = ask(answer["LastEvaluatedKey"])
        yield from answer["Items"]
