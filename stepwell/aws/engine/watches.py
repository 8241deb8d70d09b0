"""Watches: when the sweeper must look at open runs that are not young any more.

A watch is an item, sorted by its time. One rule: it is written before the change of the run that needs it, and it is
never taken back: the sweeper looks at a run once too often rather than not at all. DynamoDB deletes it by its time to
live, which costs nothing
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html).
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.aws.clients import client
from stepwell.aws.engine.sweep import next_look
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import Item, watch_key, watch_partition
from stepwell.aws.table.run_records import Record

YOUNG_MS = 30 * 60_000  # a run that is younger is found by its entry in the index
KEPT_MS = 86_400_000  # a watch, after its time
_SOON_MS = 2 * 60_000  # by then a change is written that is under way, also if two clocks differ by a minute
_PAGE = 100


class Watches:
    def __init__(self, resources: Resources) -> None:
        self._table, self._event_age_ms = resources.table, resources.event_age_s * 1000

    def of_change(self, record: Record, now: int) -> int | None:
        """Write the watch that a run needs once it is changed, if it has none; answers the watch that it then has."""
        if now - record.run.created_at < YOUNG_MS:
            return record.stored.watched
        at, known = next_look(record, now, self._event_age_ms), record.stored.watched
        if at is None or (known is not None and now + _SOON_MS <= known <= max(at, now + _SOON_MS)):
            return known
        client("dynamodb").put_item(TableName=self._table, Item=watch_item(record.run.id, at, now))
        return max(at, now + _SOON_MS)


def watch_item(run_id: str, at: int, now: int) -> Item:
    """Not before the sweeper is sure to see it: what is due already is looked at with the next round."""
    at = max(at, now + _SOON_MS)
    return {**watch_key(run_id, at), "ttl": {"N": str((at + KEPT_MS) // 1000)}}


def due_watches(table: str, shard: int, after: str, now: int) -> Iterator[list[Item]]:
    """The keys of watches whose time has come, behind a sort key, in pages."""
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
