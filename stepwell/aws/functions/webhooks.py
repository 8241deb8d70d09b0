"""Webhook rules in the table, and the secrets in SSM with which webhook requests are signed.

A Lambda caches rules and secrets for `Resources.keys_cache_s`, and also caches that a rule or secret does not exist.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import orjson

from stepwell.api.http.problem import Problem
from stepwell.api.v1.webhook_rules import KeptRule
from stepwell.api.webhooks.certificates import Certificates
from stepwell.aws.clients import client
from stepwell.aws.naming import secret_parameter
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import delete_items, put_items, read_item, read_partition
from stepwell.aws.table.keys import WEBHOOKS, Item, webhook_key
from stepwell.core.definition.field_validators import ID
from stepwell.core.webhooks.webhooks import Rule

log = logging.getLogger("stepwell.webhooks")

_MOST = 10_000  # cached values
_AGAIN_S = 10.0  # a cached secret older than this is read again if a signature does not match

T = TypeVar("T")


class AwsHooks:
    """Implements `api.webhooks.webhooks.Hooks`."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._resources, self.public_url = resources, resources.api_url
        self.certificates = Certificates()
        self._rules: _Cache[Rule | None] = _Cache(clock)
        self._secrets: _Cache[str | None] = _Cache(clock)

    def rule(self, name: str) -> Rule | None:
        if not re.fullmatch(ID, name):
            return None

        def read() -> Rule | None:
            item = read_item(self._resources.table, webhook_key(name))
            return None if item is None else Rule.of(orjson.loads(item["b"]["B"]))

        return self._rules.get(name, read, self._resources.keys_cache_s)

    def secret(self, name: str, *, again: bool = False) -> str | None:
        def read() -> str | None:
            parameter = secret_parameter(self._resources.env, name)
            try:
                found = client("ssm").get_parameters(Names=[parameter], WithDecryption=True)["Parameters"]
            except Exception:
                log.exception("the secret %s cannot be read", name)
                raise Problem(
                    503, "the signature cannot be checked at the moment; send the request again", {"retry-after": "1"}
                ) from None
            return str(found[0]["Value"]) if found else None

        longest = self._resources.keys_cache_s
        return self._secrets.get(name, read, min(_AGAIN_S, longest) if again else longest)


class AwsWebhooks:
    """Implements `api.v1.webhook_rules.Webhooks`."""

    def __init__(self, resources: Resources) -> None:
        self._table = resources.table

    def read_webhooks(self) -> list[KeptRule]:
        return [_stored_rule(item) for item in read_partition(self._table, WEBHOOKS, ConsistentRead=True)]

    def rules(self) -> dict[str, dict[str, Any]]:
        """All rules by name."""
        return {webhook.rule["name"]: webhook.rule for webhook in self.read_webhooks()}

    def read_webhook(self, name: str) -> KeptRule | None:
        item = read_item(self._table, webhook_key(name)) if re.fullmatch(ID, name) else None
        return None if item is None else _stored_rule(item)

    def put_webhook(self, rule: dict[str, Any]) -> bool:
        before = self.read_webhook(rule["name"])
        if before is not None and before.rule == rule:
            return False
        at = str(time.time_ns() // 1_000_000)
        put_items(self._table, [{**webhook_key(rule["name"]), "b": {"B": orjson.dumps(rule)}, "at": {"N": at}}])
        return True

    def remove_webhook(self, name: str) -> bool:
        if self.read_webhook(name) is None:
            return False
        delete_items(self._table, [webhook_key(name)])
        return True


class _Cache(Generic[T]):
    """Values by name, with the time at which each was read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._cached: dict[str, tuple[T, float]] = {}

    def get(self, name: str, read: Callable[[], T], longest_s: float) -> T:
        """The cached value if it is younger than `longest_s`; otherwise the result of `read`."""
        now = self._clock()
        cached = self._cached.pop(name, None)
        if cached is None or now - cached[1] >= longest_s:
            if len(self._cached) >= _MOST:
                del self._cached[next(iter(self._cached))]
            cached = (read(), now)
        self._cached[name] = cached  # moves it to the end, so that the least recently used value is dropped first
        return cached[0]


def _stored_rule(item: Item) -> KeptRule:
    return KeptRule(orjson.loads(item["b"]["B"]), int(item["at"]["N"]))
