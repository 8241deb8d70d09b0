"""The keys of permits, and of the starts that wait for them. `keys` has the access patterns."""

from __future__ import annotations

import hashlib

from stepwell.aws.table.keys import Key

PERMITS, WAITERS = "h#", "w#"  # prefixes of the sort keys of a limit's items
WAITED_FOR = "BW"
LIMITS_STATE = {"pk": {"S": "META"}, "sk": {"S": "limits"}}
"""For which change of the functions `tick` last made the engine look at limits: attribute `g`, the counter."""


def limit_partition(limit_id: str, key: bytes) -> str:
    """The partition of one key of a limit: the permits that are taken, and the starts that wait for one."""
    return f"B#{hashlib.blake2b(limit_id.encode() + bytes(1) + key, digest_size=16).hexdigest()}"


def permits_key(partition: str, shard: int) -> Key:
    """Some of the permits of a limit. A limit with many permits has several items, for the sake of writes."""
    return _key(partition, f"{PERMITS}{shard:03}")


def waiter_key(partition: str, rank: int, position: int, start: str) -> Key:
    """A start that waits for a limit. `rank`, then `position`: its place; the lowest comes first."""
    return _key(partition, f"{WAITERS}{max(0, rank):015}#{position:020}#{start}")


def waited_for_key(partition: str) -> Key:
    """Says that starts wait, or waited lately, for a limit."""
    return _key(WAITED_FOR, partition)


def _key(pk: str, sk: str) -> Key:
    return {"pk": {"S": pk}, "sk": {"S": sk}}
