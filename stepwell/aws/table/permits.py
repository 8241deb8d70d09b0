"""The permits of a limit in the table: who holds one, and who waits for one.

Each holder is an attribute of an item, with the time by which it has ended for certain. So a permit that is taken or
given back twice counts once, and a write costs the same with any number of holders. A limit with many permits spreads
them over several items (shards), because one item takes about 1,000 writes a second.

Nothing asks again and again. A start that finds no room is stored as a waiter, and then looks once more. Whoever gives
a permit back looks for waiters afterwards. So one of the two sees the other, however they interleave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stepwell.aws.clients import client
from stepwell.aws.table.items import delete_items, put_items
from stepwell.aws.table.keys import Item, Key, shard_of
from stepwell.aws.table.limit_keys import (
    PERMITS,
    WAITED_FOR,
    WAITERS,
    limit_partition,
    permits_key,
    waited_for_key,
    waiter_key,
)
from stepwell.core.plan import Limit
from stepwell.platform import AttemptId

_PER_SHARD = 20  # holders of which an item stays below 1 KB, the unit of a write
_MOST_SHARDS = 64
_PAGE = 10  # waiters
_DAY_S = 86_400
_KEPT_S = 400 * _DAY_S  # after the last start under a key
_WAITED_FOR_S = 2 * _DAY_S


class Bucket(NamedTuple):
    """One key of a limit, with the values that apply now. `text`: the key as JSON, for people."""

    limit: Limit
    key: bytes
    text: str = ""

    @property
    def partition(self) -> str:
        return limit_partition(self.limit.id, self.key)

    @property
    def is_throttle(self) -> bool:
        return bool(self.limit.period_ms)

    @property
    def sizes(self) -> list[int]:
        """The number of permits in each shard. A throttle has one item and no permits."""
        if self.is_throttle:
            return [0]
        limit = self.limit.limit or 0
        shards = max(1, min(_MOST_SHARDS, -(-limit // _PER_SHARD)))
        return [limit // shards + (shard < limit % shards) for shard in range(shards)]


class WaitedFor(NamedTuple):
    """One key of a limit for which starts wait, or waited lately."""

    limit_id: str
    key: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Waiter:
    """A start that waits. `key`: that of its item. `since`: in ms since the epoch."""

    id: AttemptId
    key: Key
    since: int


@dataclass(slots=True)
class Found:
    """What a read of a limit has found. `holders`: by start, the shard, and when it has ended for certain (ms).

    `flags`: by shard, who has noted that starts wait. `is_all`: there are no more waiters after these.
    """

    taken: dict[int, int] = field(default_factory=dict)  # by shard, the number of holders
    holders: dict[AttemptId, tuple[int, int]] = field(default_factory=dict)
    flags: dict[int, str] = field(default_factory=dict)
    noted_at: int = 0
    waiters: list[Waiter] = field(default_factory=list)
    is_all: bool = True

    def has_room(self, bucket: Bucket) -> bool:
        return any(True for _ in self.room(bucket))

    def room(self, bucket: Bucket) -> Iterator[int]:
        """The shards that have room. After the limit was lowered, permits of shards that it had before count too."""
        if sum(self.taken.values()) < (bucket.limit.limit or 0):
            yield from (shard for shard, size in enumerate(bucket.sizes) if self.taken.get(shard, 0) < size)


class Permits:
    def __init__(self, table: str) -> None:
        self._table = table

    # --- holders ---------------------------------------------------------------------------------------------------

    def take(self, bucket: Bucket, start: AttemptId, until: int, now: int, *, overtakes: bool) -> bool:
        """Takes a permit, unless others wait for one and the start may not overtake them. `until`: when the start has
        ended for certain. Returns whether the start has a permit now."""
        sizes = bucket.sizes
        home = shard_of(name_of(start), len(sizes))
        condition = "" if overtakes else " AND attribute_not_exists(w)"
        found = self._take(bucket, home, start, until, now, condition)
        if found is None:
            return True
        if len(sizes) == 1 or ("w" in found and not overtakes):
            return name_of(start) in found
        everything = self.read(bucket)
        return start in everything.holders or self.take_in_turn(bucket, everything, start, until, now)

    def take_in_turn(self, bucket: Bucket, found: Found, start: AttemptId, until: int, now: int) -> bool:
        """Takes a permit for the start that comes next, in a shard that had room when it was read."""
        for shard in list(found.room(bucket)):
            lost = self._take(bucket, shard, start, until, now)
            if lost is None or name_of(start) in lost:
                found.taken[shard] = found.taken.get(shard, 0) + 1
                found.holders[start] = shard, until
                return True
            found.taken[shard] = int(lost["n"]["N"])
        return False

    def _take(
        self, bucket: Bucket, shard: int, start: AttemptId, until: int, now: int, condition: str = ""
    ) -> Item | None:
        """Takes a permit of a shard. Returns the item as it is if that is not possible."""
        free = f"attribute_not_exists(#h) AND (attribute_not_exists(n) OR n < :size){condition}"
        return self._update(
            permits_key(bucket.partition, shard),
            "SET #h = :until, #ttl = :ttl ADD n :one",
            free,
            {"#h": name_of(start), "#ttl": "ttl"},
            {":until": until, ":ttl": now // 1000 + _KEPT_S, ":one": 1, ":size": bucket.sizes[shard]},
        )

    def give_back(self, bucket: Bucket, start: AttemptId) -> None:
        """Gives a permit back, if the start has one."""
        sizes = bucket.sizes
        home = shard_of(name_of(start), len(sizes))
        if self.remove(bucket, home, start) or len(sizes) == 1:
            return
        shard, _ = self.read(bucket).holders.get(start, (None, 0))
        if shard is not None:
            self.remove(bucket, shard, start)

    def remove(self, bucket: Bucket, shard: int, start: AttemptId) -> bool:
        """Gives back a permit of a shard. Returns whether the start had it."""
        lost = self._update(
            permits_key(bucket.partition, shard),
            "REMOVE #h ADD n :minus",
            "attribute_exists(#h)",
            {"#h": name_of(start)},
            {":minus": -1},
        )
        return lost is None

    # --- waiters ---------------------------------------------------------------------------------------------------

    def wait(self, bucket: Bucket, start: AttemptId, rank: int, position: int, now: int, ttl: int) -> None:
        """Stores that a start waits. The caller must look at the limit again afterwards."""
        key = waiter_key(bucket.partition, rank, position, name_of(start))
        item = {**key, "at": {"N": str(now)}, "ttl": {"N": str(ttl)}}
        client("dynamodb").put_item(TableName=self._table, Item=item)

    def keep_order(self, bucket: Bucket, found: Found, start: AttemptId, now: int) -> None:
        """Notes that starts wait, so that no later start takes a permit before them, and that the limit is found by
        those who change its values."""
        missing = [shard for shard in range(len(bucket.sizes)) if shard not in found.flags]
        if not missing:
            return
        if found.noted_at < now - _DAY_S * 1000:
            values = {"l": {"S": bucket.limit.id}, "k": {"B": bucket.key}, "t": {"S": bucket.text}}
            ttl = {"N": str(now // 1000 + _WAITED_FOR_S)}
            put_items(self._table, [{**waited_for_key(bucket.partition), **values, "ttl": ttl}])
            found.noted_at = now
        for shard in missing:
            self._update(
                permits_key(bucket.partition, shard),
                "SET w = :me, i = :noted, #ttl = :ttl",
                "attribute_not_exists(w)",
                {"#ttl": "ttl"},
                {":me": f"{name_of(start)}@{now}", ":noted": found.noted_at, ":ttl": now // 1000 + _KEPT_S},
            )

    def end_order(self, bucket: Bucket, found: Found) -> None:
        """Notes that nothing waits any more, unless a start has begun to wait since it was read."""
        for shard, flag in found.flags.items():
            self._update(permits_key(bucket.partition, shard), "REMOVE w", "w = :seen", {}, {":seen": flag})

    def forget(self, waiters: Sequence[Key]) -> None:
        """Deletes starts that do not wait any more."""
        delete_items(self._table, waiters)

    # --- reads -----------------------------------------------------------------------------------------------------

    def read(self, bucket: Bucket, after: Waiter | None = None) -> Found:
        """The holders and the first waiters of a limit, or the waiters after one. Strongly consistent."""
        start = {} if after is None else {"ExclusiveStartKey": after.key}
        page = client("dynamodb").query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": bucket.partition}},
            ConsistentRead=True,
            Limit=_PAGE + (_MOST_SHARDS if len(bucket.sizes) > 1 else 1),
            **start,
        )
        found = Found(is_all="LastEvaluatedKey" not in page)
        for item in page["Items"]:
            if item["sk"]["S"].startswith(PERMITS):
                _add_permits(found, item)
            else:
                found.waiters.append(_waiter(item))
        return found

    def waited_for(self, after: str | None = None, most: int = 50) -> tuple[list[WaitedFor], str | None]:
        """A page of the limits for which starts wait, or waited lately, and the place after which the next page begins,
        or None."""
        start = {} if after is None else {"ExclusiveStartKey": waited_for_key(after)}
        page = client("dynamodb").query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": WAITED_FOR}},
            Limit=most,
            **start,
        )
        found = [WaitedFor(item["l"]["S"], item["k"]["B"], item["t"]["S"]) for item in page["Items"]]
        return found, page["LastEvaluatedKey"]["sk"]["S"] if "LastEvaluatedKey" in page else None

    def ahead_of(self, waiter: Key, most: int) -> int:
        """The number of starts that come before a waiter, at most `most`."""
        answer = client("dynamodb").query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :me",
            ExpressionAttributeValues={":pk": waiter["pk"], ":first": {"S": WAITERS}, ":me": waiter["sk"]},
            Select="COUNT",
            Limit=most + 1,
            ConsistentRead=True,
        )
        return int(answer["Count"]) - 1

    def _update(
        self, key: Key, update: str, condition: str, names: Mapping[str, str], values: Mapping[str, int | str]
    ) -> Item | None:
        """Changes an item. Returns the item as it is, or {} if there is none, if the condition does not hold."""
        dynamodb = client("dynamodb")
        options: dict[str, Any] = {"ExpressionAttributeNames": dict(names)} if names else {}
        typed = {name: {"S": v} if isinstance(v, str) else {"N": str(v)} for name, v in values.items()}
        try:
            dynamodb.update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeValues=typed,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **options,
            )
        except dynamodb.exceptions.ConditionalCheckFailedException as lost:
            found: Item = lost.response.get("Item", {})
            return found
        return None


def name_of(start: AttemptId) -> str:
    """The name of a start in the table."""
    return "{}/{}/{}".format(*start)


def _id(name: str) -> AttemptId:
    run_id, step, attempt = name.split("/")
    return run_id, int(step), int(attempt)


def _add_permits(found: Found, item: Item) -> None:
    shard = int(item["sk"]["S"].removeprefix(PERMITS))
    found.taken[shard] = int(item["n"]["N"]) if "n" in item else 0
    found.holders.update({_id(name): (shard, int(value["N"])) for name, value in item.items() if "/" in name})
    if "w" in item:
        found.flags[shard] = item["w"]["S"]
        found.noted_at = int(item["i"]["N"])


def _waiter(item: Item) -> Waiter:
    key = {"pk": item["pk"], "sk": item["sk"]}
    return Waiter(_id(item["sk"]["S"].rpartition("#")[2]), key, int(item["at"]["N"]))
