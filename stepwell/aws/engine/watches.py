"""Watches: items that make the sweeper check an older open run at a time.

A watch is written before the change of the run that needs it. The engine never deletes a watch: one check too many is
better than a missing one. DynamoDB deletes expired watches by ttl, which costs nothing
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html).
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.aws.clients import client
from stepwell.aws.engine.sweep import next_check_at
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import Item, watch_key, watch_partition
from stepwell.aws.table.run_records import Record

YOUNG_MS = 30 * 60_000  # age up to which the sweeper finds a run through the index
KEPT_MS = 86_400_000  # how long a due watch still exists
_SOON_MS = 2 * 60_000  # a change in progress is written by then, even if two clocks differ by a minute
_PAGE = 100


class Watches:
    """Writes the watches of changed runs."""

    def __init__(self, resources: Resources) -> None:
        self._table, self._event_age_ms = resources.table, resources.event_age_s * 1000

    def of_change(self, record: Record, now: int) -> int | None:
        """Writes the watch that a changed run needs, unless one exists. Returns the time (ms) of the run's watch."""
        if now - record.run.created_at < YOUNG_MS:
            return record.stored.watched
        at, known = next_check_at(record, now, self._event_age_ms), record.stored.watched
        if at is None or (known is not None and now + _SOON_MS <= known <= max(at, now + _SOON_MS)):
            return known
        client("dynamodb").put_item(TableName=self._table, Item=watch_item(record.run.id, at, now))
        return max(at, now + _SOON_MS)


def watch_item(run_id: str, at: int, now: int) -> Item:
    """A watch at the time `at` (ms), but at least two minutes from now, so that the change of the run is written."""
    at = max(at, now + _SOON_MS)
    return {**watch_key(run_id, at), "ttl": {"N": str((at + KEPT_MS) // 1000)}}


def due_watches(table: str, shard: int, after: str, now: int) -> Iterator[list[Item]]:
    """The due watches of a shard after a sort key, in pages."""
    pages = client("dynamodb").get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
        ExpressionAttributeValues={
            ":pk": {"S": watch_partition(shard)},
            ":first": {"S": after + "\0"},
            ":last": {"S": f"{max(now + 1, int(after[:15] or 0)):015}"},
        },
        PaginationConfig={"PageSize": _PAGE},
    )  # fmt: skip
    yield from (page["Items"] for page in pages if page["Items"])
