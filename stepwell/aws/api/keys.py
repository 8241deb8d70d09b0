"""API keys in the table. A key is shown once and stored as SHA-256; a slow hash is unnecessary, as keys are random.

Requests with wrong keys cost next to nothing. A text that does not have the form of a key is refused without a read.
Results are cached; those for unknown keys in a separate cache, so that guessing does not displace valid keys.
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
_MOST = 10_000  # keys in each cache


class KeyStore:
    """Implements `api.access.Keys`. New and revoked keys take effect everywhere after `Resources.keys_cache_s`."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._clock = resources.table, clock
        self._cache_s = resources.keys_cache_s
        self._known: dict[str, tuple[KeyScope, float]] = {}  # the scope by hash, and until when it is valid
        self._unknown: dict[str, tuple[None, float]] = {}

    def create(self, scope: KeyScope, name: str, now: int) -> tuple[Key, str]:
        """A new key and the secret, which is not stored and cannot be read again."""
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
        """Revokes a key. False if it does not exist or was already revoked."""
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
        """Does nothing: there are no connections to close."""

    def _read(self, hashed: str) -> KeyScope | None:
        name = {"pk": _PARTITION, "sk": {"S": hashed}}
        item = client("dynamodb").get_item(TableName=self._table, Key=name, ConsistentRead=True).get("Item")
        return None if item is None or "revoked" in item else KeyScope(item["scope"]["S"])

    def _items(self) -> Sequence[dict[str, Any]]:
        return read_partition(self._table, _PARTITION["S"], ConsistentRead=True)


def _remember(cache: dict[str, Any], hashed: str, answer: tuple[Any, float]) -> None:
    cache.pop(hashed, None)  # moves the key to the end, so that the least recently read one is dropped
    if len(cache) >= _MOST:
        cache.pop(next(iter(cache), ""), None)
    cache[hashed] = answer


def _key(item: dict[str, Any]) -> Key:
    revoked_at = int(item["revoked"]["N"]) if "revoked" in item else None
    return Key(item["id"]["S"], KeyScope(item["scope"]["S"]), item["name"]["S"], int(item["at"]["N"]), revoked_at)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
