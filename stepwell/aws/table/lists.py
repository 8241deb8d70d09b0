"""Lists of events and runs, newest first: all of them, and by event name, user, function or replay.

A batch of the engine writes one row for each list that it adds to, not one item for each entry (`list_layout`). The
rows of a list are spread over partitions by month and shard, and a reader merges them.
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
from stepwell.aws.table.list_layout import Listed as Listed  # for callers of `Lists.add`
from stepwell.aws.table.positions import first_of

_BATCH = 25  # rows in one BatchWriteItem
_DAY_MS = 86_400_000
_LONGEST_RUN_MS = 366 * _DAY_MS
_SKEW_MS = 60_000  # how far another Lambda's clock may be ahead
_START: Item = {"pk": {"S": "META"}, "sk": {"S": "lists"}}  # attribute `p`: the position at which the lists begin

PageQuery = Callable[..., dict[str, Any]]


class Row(NamedTuple):
    """A row of a list: the key, and the ids of events and runs in it."""

    key: Key
    events: list[str]
    runs: list[str]


class Lists:
    """Writes and reads lists. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._table, self._retention_ms = resources.table, resources.retention_days * _DAY_MS
        self._pool = ThreadPoolExecutor(LIST_SHARDS, "lists")
        self._start: int | None = None

    # --- writing ---------------------------------------------------------------------------------------------------

    def add(self, events: Sequence[Listed], runs: Sequence[Listed], now: int) -> None:
        """Adds the events and runs of a batch to their lists. Adding them again has no effect."""
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
        """The events or runs of a list, newest first.

        `before`: only positions below it. `since`: only positions from it on. `page`: how many entries the caller
        expects to read.
        """
        span = self._range(before, self._retention_ms, since)
        if span is None:
            return
        floor, before = span

        def rows() -> Iterator[Item]:
            lowest = max(0, floor - SPAN)  # entries lie up to `SPAN` after the position of their row
            bounds = {":floor": {"S": f"{lowest:020}"}, ":before": {"S": f"{before:020}"}}
            for month in months_between(lowest, before):
                partitions = [list_partition(dimension, month, shard) for shard in range(LIST_SHARDS)]
                query = self._query("pk = :partition AND sk BETWEEN :floor AND :before", bounds, page)
                yield from self._merge(partitions, query, lambda item: str(item["sk"]["S"]))

        for entry, _ in groupby(entries_of(rows(), kind, before)):  # drops duplicates, which are adjacent
            if entry[0] >= floor:
                yield entry

    def runs_of_status(self, status: str, before: int | None, page: int, since: int | None = None) -> Iterator[Entry]:
        """The runs of a status (`running`, `failed` or `cancelled`), newest first, from the eventually consistent
        index."""
        span = self._range(before, self._retention_ms + _LONGEST_RUN_MS, since)
        if span is None:
            return
        floor, before = span
        months: Sequence[str | None] = [None] if status == "running" else list(months_between(floor, before))
        ended = (entry for month in months for entry in self._of_status(status, month, floor, before, page))
        if status != "failed":
            yield from ended
        else:  # failed runs that still have running attempts are in partitions of their own
            yield from heapq.merge(ended, self._of_status("ending", None, floor, before, page), reverse=True)

    def _of_status(self, status: str, month: str | None, floor: int, before: int, page: int) -> Iterator[Entry]:
        partitions = [status_partition(status, shard, month) for shard in range(STATUS_SHARDS)]
        return ((position, partition[2:]) for position, partition in self.indexed(partitions, floor, before, page))

    def indexed(self, partitions: Sequence[str], floor: int, before: int, page: int) -> Iterator[Entry]:
        """The items in these partitions of the index, newest first: each item's position and partition key."""
        if before <= floor:
            return
        bounds = {":floor": {"N": str(floor)}, ":before": {"N": str(before - 1)}}
        query = self._query("gk = :partition AND gs BETWEEN :floor AND :before", bounds, page, IndexName=STATUS_INDEX)
        for item in self._merge(partitions, query, lambda item: int(item["gs"]["N"])):
            yield int(item["gs"]["N"]), item["pk"]["S"]

    # --- whole lists -----------------------------------------------------------------------------------------------

    def rows(self, dimension: str) -> Iterator[Row]:
        """All rows of a list, newest month first; unordered within a month."""
        for partition in self._partitions(dimension):
            for item in read_partition(self._table, partition, ConsistentRead=True):
                content = orjson.loads(item["x"]["B"])
                events, runs = ([name for _, name in content.get(kind, ())] for kind in (EVENTS, RUNS))
                yield Row({"pk": item["pk"], "sk": item["sk"]}, events, runs)

    def oldest(self, dimension: str) -> int | None:
        """The position of the oldest row of a list, or None if the list is empty."""
        found = None
        options = {"KeyConditionExpression": "pk = :partition", "Limit": 1, "TableName": self._table}
        for partition in self._partitions(dimension):
            answer = client("dynamodb").query(**options, ExpressionAttributeValues={":partition": {"S": partition}})
            for item in answer["Items"]:
                number = int(item["sk"]["S"].partition("#")[0])
                found = number if found is None else min(found, number)
        return found

    def _partitions(self, dimension: str) -> Iterator[str]:
        span = self._range(None, self._retention_ms, None)
        for month in months_between(*span) if span is not None else ():
            yield from (list_partition(dimension, month, shard) for shard in range(LIST_SHARDS))

    def _range(self, before: int | None, reach_ms: int, since: int | None) -> tuple[int, int] | None:
        """The lowest and the highest position that an entry can have; None if the lists are empty."""
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

    def _query(self, condition: str, bounds: Item, page: int, **options: Any) -> PageQuery:
        """A function that queries one page of a partition.

        The limit is a quarter of `page`: twice the average share of one of the eight shards.
        """

        def query(partition: str, start: Item | None = None) -> dict[str, Any]:
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

        return query

    def _merge(self, partitions: Sequence[str], query: PageQuery, key: Callable[[Item], Any]) -> Iterator[Item]:
        """The rows of several partitions, newest first. The first pages are read in parallel."""
        first = [self._pool.submit(query, partition) for partition in partitions]
        shards = [_rows(partial(query, partition), future) for partition, future in zip(partitions, first, strict=True)]
        return heapq.merge(*shards, key=key, reverse=True)


def _rows(query: PageQuery, first: Future[dict[str, Any]]) -> Iterator[Item]:
    answer = first.result()
    yield from answer["Items"]
    while "LastEvaluatedKey" in answer:
        answer = query(answer["LastEvaluatedKey"])
        yield from answer["Items"]
