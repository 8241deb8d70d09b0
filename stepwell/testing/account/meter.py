"""Counts the AWS requests that a platform makes on moto, and the DynamoDB capacity that they would use.

A write costs one unit per started KB of the larger of the old and the new item, plus one per changed index entry. A
read costs one unit per started 4 KB; a query rounds up the whole page, a batch each item. An eventually consistent read
costs half, and all queries of the index are eventually consistent.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
"""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

Item = dict[str, Any]
CHUNK = 64 * 1024
_INDEX_KEYS = ("gk", "gs", "pk", "sk")
_WRITES = ("PutItem", "DeleteItem", "UpdateItem", "BatchWriteItem")


@dataclass(frozen=True, slots=True)
class Call:
    service: str
    operation: str
    entries: int = 1  # in a batch
    billed: int = 1  # number of billed requests: one per started 64 KB of messages or events
    write_units: float = 0
    read_units: float = 0
    key: str = ""  # partition key of the written item
    sort_key: str = ""
    began: float = 0
    ended: float = 0


@dataclass(slots=True)
class Meter:
    calls: list[Call] = field(default_factory=list)

    def operations(self) -> Counter[str]:
        return Counter(f"{call.service}.{call.operation}" for call in self.calls)

    def count(self, service: str) -> int:
        return sum(call.service == service for call in self.calls)

    def billed(self, service: str) -> int:
        """How many requests the service bills: SQS per request, EventBridge per event, each per started 64 KB
        (https://aws.amazon.com/sqs/pricing/, https://aws.amazon.com/eventbridge/pricing/)."""
        return sum(call.billed for call in self.calls if call.service == service)

    def entries(self, operation: str) -> int:
        """How many entries all requests of an operation had together, for example `PutEvents`."""
        return sum(call.entries for call in self.calls if call.operation == operation)

    @property
    def write_units(self) -> float:
        return sum(call.write_units for call in self.calls)

    @property
    def read_units(self) -> float:
        return sum(call.read_units for call in self.calls)

    def writes_of(self, prefix: str, sort_key: str | None = None) -> int:
        """How often items with this prefix of the partition key were put, or tried. `sort_key`: only this sort key."""
        return sum(
            call.operation == "PutItem" and call.key.startswith(prefix) and sort_key in (None, call.sort_key)
            for call in self.calls
        )

    def sequential(self, until: str | None = None) -> int:
        """The length of the longest chain of requests in which each one began after the one before had ended.

        `until`: only chains that end with the last request of this operation.
        """
        longest: dict[int, int] = {}
        by_end = sorted(range(len(self.calls)), key=lambda i: self.calls[i].ended)
        for i in by_end:
            before = [longest[j] for j in longest if self.calls[j].ended <= self.calls[i].began]
            longest[i] = 1 + max(before, default=0)
        wanted = [n for i, n in longest.items() if until in (None, self.calls[i].operation)]
        return max(wanted, default=0)


_lock = threading.Lock()
_meters: list[Meter] = []


@contextmanager
def metered() -> Iterator[Meter]:
    """Counts all requests of the clients that were passed to `attach`."""
    meter = Meter()
    with _lock:
        _meters.append(meter)
    try:
        yield meter
    finally:
        with _lock:
            _meters.remove(meter)


def attach(client: Any) -> None:
    """Counts a client's requests.

    The wildcards register the meter first: a handler that answers a request instead of AWS ends the chain of handlers.
    """
    client.meta.events.register_first("before-call.*.*", _before, unique_id="stepwell-meter")
    client.meta.events.register_first("after-call.*.*", _after, unique_id="stepwell-meter-after")


def _before(model: Any, params: Any, context: Any, **_: Any) -> None:
    """Computes the cost of a write before it happens, because the old item is gone afterwards."""
    if not _meters:
        return
    service, operation = model.service_model.service_name, model.name
    body = _body(params)
    call = Call(service, operation)
    if operation in _WRITES:
        call = _write(operation, body)
    elif operation == "BatchGetItem":
        call = Call(service, operation, sum(len(request["Keys"]) for request in body["RequestItems"].values()))
    elif operation in ("SendMessageBatch", "PutEvents"):
        call = Call(service, operation, len(body["Entries"]), _billed(operation, body["Entries"]))
    context["stepwell-meter"] = replace(call, began=time.perf_counter())
    if service == "dynamodb":
        read = next(iter(body.get("RequestItems", {}).values()), {}) if operation == "BatchGetItem" else body
        context["stepwell-meter-unit"] = 1 if read.get("ConsistentRead") else 0.5


def _after(model: Any, parsed: Any, context: Any, **_: Any) -> None:
    call = context.get("stepwell-meter")
    if call is None:
        return
    unit = context.get("stepwell-meter-unit", 1)
    if model.name == "BatchGetItem":
        found = [item for items in parsed.get("Responses", {}).values() for item in items]
        units = sum(_read(item) for item in found) + call.entries - len(found)  # a missing item costs one unit too
        call = replace(call, read_units=unit * units)
    elif model.name == "GetItem":
        call = replace(call, read_units=unit * _read(parsed.get("Item", {})))
    elif model.name == "Query":
        items = parsed.get("Items", ())
        size = sum(map(item_size, items))
        call = replace(call, entries=len(items), read_units=unit * max(1, math.ceil(size / 4096)))
    call = replace(call, ended=time.perf_counter())
    with _lock:
        for meter in _meters:
            meter.calls.append(call)


def _billed(operation: str, entries: list[dict[str, Any]]) -> int:
    if operation == "SendMessageBatch":
        return chunks(sum(len(entry["MessageBody"].encode()) for entry in entries))
    return sum(chunks(len(entry["Detail"].encode()) + len(entry["DetailType"])) for entry in entries)


def chunks(size: int) -> int:
    """How many started 64 KB these bytes have; at least one."""
    return max(1, math.ceil(size / CHUNK))


def _read(item: Item) -> int:
    return max(1, math.ceil(item_size(item) / 4096))


def _body(params: Any) -> Any:
    body = params["body"]
    if isinstance(body, bytes | str) and body[:1] in (b"{", "{"):
        return json.loads(body)
    return body


def _write(operation: str, body: Any) -> Call:
    table = body.get("TableName", "")
    if operation != "BatchWriteItem":
        key = body["Item"] if operation == "PutItem" else body["Key"]
        old = _stored(table, key)
        new = {"PutItem": key, "DeleteItem": {}, "UpdateItem": old}[operation]
        return Call("dynamodb", operation, write_units=_units(old, new), key=key["pk"]["S"], sort_key=key["sk"]["S"])
    ((table, requests),) = body["RequestItems"].items()
    units = 0.0
    for request in requests:
        if "PutRequest" in request:
            units += _units(_stored(table, request["PutRequest"]["Item"]), request["PutRequest"]["Item"])
        else:
            units += _units(_stored(table, request["DeleteRequest"]["Key"]), {})
    return Call("dynamodb", operation, len(requests), write_units=units)


def _units(old: Item, new: Item) -> float:
    base = max(1, math.ceil(max(item_size(old), item_size(new)) / 1024))
    before, after = _entry(old), _entry(new)
    if before == after:
        return base
    return base + (before is not None) + (after is not None)


def _entry(item: Item) -> str | None:
    """The item's entry in the index, as text; None if it has none."""
    return json.dumps([item[key] for key in _INDEX_KEYS]) if "gk" in item else None


def _stored(table: str, key: Item) -> Item:
    from moto.backends import get_backend

    for backends in get_backend("dynamodb").values():
        for backend in backends.values():
            if table in backend.tables:
                found = backend.tables[table].items.get(_moto_key(key["pk"]), {})
                item = found.get(_moto_key(key["sk"])) if found else None
                return dict(item.to_json()["Attributes"]) if item is not None else {}
    return {}


def _moto_key(value: Any) -> Any:
    from moto.dynamodb.models.dynamo_type import DynamoType

    return DynamoType(value)


def item_size(item: Item) -> int:
    """The size of an item in bytes, as DynamoDB counts it."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Any) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return len(content.lstrip("-")) // 2 + 1
    if kind == "B":
        return len(content) if isinstance(content, bytes) else len(base64.b64decode(content))
    if kind == "L":
        return 3 + sum(1 + _value_size(one) for one in content)
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + _value_size(one) for name, one in content.items())
    return 1
