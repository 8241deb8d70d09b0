"""API keys in the table: shown once, stored as SHA-256 (they are random and long, so a slow hash would add nothing).

One rule: guessing costs nothing. What cannot be a key is refused without a look, and answers are remembered a while,
those for unknown keys apart from the others.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from stepwell.api.access import Key, KeyScope, new_key
from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_partition

_PARTITION = {"S": "KEY"}
_FORM = re.compile(r"sw_(send|manage)_[A-Za-z0-9_-]{32}")
_MOST = 10_000  # keys that are remembered


class KeyStore:
    """Implements `api.access.Keys`. That a key was made or revoked counts everywhere `Resources.keys_cache_s` later."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._clock = resources.table, clock
        self._cache_s = resources.keys_cache_s
        self._known: dict[str, tuple[KeyScope, float]] = {}  # with the time until which it counts
        self._unknown: dict[str, tuple[None, float]] = {}

    def create(self, scope: KeyScope, name: str, now: int) -> tuple[Key, str]:
        """A new key, and its secret, which nobody can read again."""
        key, secret = new_key(scope, name, now)
        item = {
            "pk": _PARTITION,
            "sk": {"S": _hash(secret)},
            "id": {"S": key.id},
            "scope": {"S": scope.value},
            "name": {"S": name},
            "at": {"N": str(now)},
        }
        client("dynamodb").put_item(TableName=self._table, Item=item)
        return key, secret

    def list(self) -> list[Key]:
        keys = [_key(item) for item in self._items()]
        return sorted(keys, key=lambda key: (key.created_at, key.id))

    def revoke(self, key_id: str, now: int) -> bool:
        """False if there is no such key, or it was revoked before."""
        db = client("dynamodb")
        sort_key = next((item["sk"] for item in self._items() if item["id"]["S"] == key_id), None)
        if sort_key is None:
            return False
        try:
            db.update_item(
                TableName=self._table,
                Key={"pk": _PARTITION, "sk": sort_key},
                UpdateExpression="SET revoked = :now",
                ConditionExpression="attribute_exists(pk) AND attribute_not_exists(revoked)",
                ExpressionAttributeValues={":now": {"N": str(now)}},
            )
        except db.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def scope_of(self, key: str | None) -> KeyScope | None:
        if key is None or not _FORM.fullmatch(key):
            return None
        hashed, now = _hash(key), self._clock()
        for cache in (self._known, self._unknown):
            scope, until = cache.get(hashed, (None, 0.0))
            if now < until:
                return scope
        scope = self._read(hashed)
        until = now + self._cache_s
        if scope is None:
            _remember(self._unknown, hashed, (None, until))
        else:
            _remember(self._known, hashed, (scope, until))
        return scope

    def close(self) -> None:
        """Nothing is open."""

    def _read(self, hashed: str) -> KeyScope | None:
        name = {"pk": _PARTITION, "sk": {"S": hashed}}
        item = client("dynamodb").get_item(TableName=self._table, Key=name, ConsistentRead=True).get("Item")
        return None if item is None or "revoked" in item else KeyScope(item["scope"]["S"])

    def _items(self) -> Sequence[dict[str, Any]]:
        return read_partition(self._table, _PARTITION["S"], ConsistentRead=True)


def _remember(cache: dict[str, Any], hashed: str, answer: tuple[Any, float]) -> None:
    cache.pop(hashed, None)  # what is put in again stands last
    if len(cache) >= _MOST:
        cache.pop(next(iter(cache), ""), None)
    cache[hashed] = answer


def _key(item: dict[str, Any]) -> Key:
    revoked_at = int(item["revoked"]["N"]) if "revoked" in item else None
    return Key(item["id"]["S"], KeyScope(item["scope"]["S"]), item["name"]["S"], int(item["at"]["N"]), revoked_at)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
