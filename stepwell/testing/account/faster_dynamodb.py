"""Calls moto's DynamoDB actions directly on moto's tables, without the layers around them.

Nine of ten requests of a test go to DynamoDB. moto spends five sixths of the time of each on a WSGI request, on
matching URLs, and on AWS's model, though requests and answers are JSON anyway.

moto itself still does the work and computes the answers. Requests that fail take the normal way.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores, get_service_model
from moto.dynamodb.exceptions import ItemSizeTooLarge
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.table import Table
from moto.dynamodb.models.utilities import bytesize
from moto.dynamodb.responses import DynamoHandler
from moto.utilities.utils import get_partition
from werkzeug.exceptions import HTTPException

_ACTIONS = {
    f"DynamoDB_20120810.{name}": camelcase_to_underscores(name)
    for name in ("BatchGetItem", "BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem")
}
_request_ids = count(1)
_HEADERS = ("X-Amz-Target", "Authorization", "Content-Type", "x-moto-account-id")
_MAX_ITEM = 405_000  # bytes; moto's own limit
_URL = re.compile(r"https://(?:dynamodb|[0-9]+\.ddb)\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/")


@contextmanager
def faster_dynamodb() -> Iterator[None]:
    original = BotocoreStubber.process_request

    def process_request(stubber: BotocoreStubber, request: AWSPreparedRequest) -> Any:
        short = _short_way(request)
        return original(stubber, request) if short is None else short.answer()

    patches: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (BotocoreStubber, "process_request", process_request),
        (Table, "query", _query(Table.query)),
        (Item, "__init__", _make_item),
        (DynamoType, "__eq__", _is_equal),
        (DynamoType, "__ne__", lambda value, other: not _is_equal(value, other)),
        (DynamoType, "__hash__", _hash),
    )
    with ExitStack() as stack:
        for of, name, replacement in patches:
            stack.enter_context(patch.object(of, name, replacement))
        yield


class _Handler(DynamoHandler):  # type: ignore[misc]  # mypy does not follow moto's types
    def __init__(self, request: AWSPreparedRequest, region: str) -> None:
        super().__init__()
        self.headers = {name: _header(request, name) for name in _HEADERS if name in request.headers}
        self.querystring: dict[str, Any] = {}
        self._request = request
        self.params: Any = _parsed(request.body)
        self.region, self.partition = region, get_partition(region)
        self.access_key = self.get_access_key()
        self.current_account = self.get_current_account()
        self.response_headers = {"server": "amazon.com", "x-amzn-requestid": f"{next(_request_ids):052}"}

    def answer(self) -> tuple[int, dict[str, str], str]:
        """moto's answer. If moto refuses the request, it is made again in the normal way, to get the error message."""
        self.body = self.params
        try:
            result = getattr(self, _ACTIONS[_header(self._request, "X-Amz-Target")])()
        except (ServiceException, HTTPException):
            self.params = _parsed(self._request.body)
            status, headers, body = self.call_action()
        else:
            status, headers, body = self.serialized(result)
        return status, headers, body

    def serialized(self, action_result: ActionResult) -> Any:
        result = action_result.result
        if not isinstance(result, dict):
            return super().serialized(action_result)
        known = _members(self._get_action())
        body = json.dumps({name: value for name, value in result.items() if name in known}, default=_text)
        return 200, {**self.response_headers, "Content-Type": "application/x-amz-json-1.0"}, body


def _short_way(request: AWSPreparedRequest) -> _Handler | None:
    if _header(request, "X-Amz-Target") not in _ACTIONS:
        return None
    match = _URL.match(request.url)
    is_plain = isinstance(request.body, bytes) and "Content-Encoding" not in request.headers
    return _Handler(request, match["region"]) if match is not None and is_plain else None


def _header(request: AWSPreparedRequest, name: str) -> str:
    value: Any = request.headers.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _parsed(body: bytes) -> Any:
    return json.loads(body, object_hook=_with_bytes) if b'"B' in body else json.loads(body)


def _with_bytes(value: dict[str, Any]) -> dict[str, Any]:
    """Decodes the binary values of a JSON object, if it is an attribute's value."""
    if len(value) == 1:
        if isinstance(text := value.get("B"), str):
            return {"B": base64.b64decode(text)}
        if isinstance(texts := value.get("BS"), list) and all(isinstance(text, str) for text in texts):
            return {"BS": [base64.b64decode(text) for text in texts]}
    return value


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"not an attribute's value: {value!r}")
    return base64.b64encode(value).decode()


@cache
def _members(operation: str) -> frozenset[str]:
    return frozenset(get_service_model("dynamodb").operation_model(operation).output_shape.members)


# --- tables ----------------------------------------------------------------------------------------------------------


def _query(query: Callable[..., Any]) -> Callable[..., Any]:
    """Sorts only the items with the key. moto sorts all items of a table before it filters by the key."""

    def of_partition(table: Any, hash_key: DynamoType, *arguments: Any, **named: Any) -> Any:
        if not table.range_key_attr:
            return query(table, hash_key, *arguments, **named)
        index_name = named["index_name"] if "index_name" in named else arguments[6] if len(arguments) > 6 else None
        if index_name is None:
            found = list(table.items.get(hash_key, {}).values())
        else:
            keys = named.get("hash_key_conditions") or ()
            items = (item for partition in table.items.values() for item in partition.values())
            found = [item for item in items if all(item.attrs.get(name) == value for name, value in keys)]
        found.sort(key=lambda item: (item.hash_key, item.range_key))
        table.all_items = lambda: found
        try:
            return query(table, hash_key, *arguments, **named)
        finally:
            del table.all_items

    return of_partition


def _make_item(item: Any, hash_key: DynamoType, range_key: DynamoType | None, attrs: dict[str, Any]) -> None:
    """Adds up the sizes of the attributes once. moto adds all of them up again for each attribute."""
    item.hash_key, item.range_key, item.attrs = hash_key, range_key, LimitedSizeDict()
    size = 0
    for name, value in attrs.items():
        typed = DynamoType(value)
        size += bytesize(name) + typed.size()
        if size > _MAX_ITEM:
            raise ItemSizeTooLarge
        dict.__setitem__(item.attrs, name, typed)


def _is_equal(value: DynamoType, other: Any) -> bool:
    if other is None or value.type != other.type:
        return False
    return bool(value.value == other.value if value.type == "S" else value.cast_value == other.cast_value)


def _hash(value: DynamoType) -> int:
    return hash((value.type, value.value if value.type == "S" else value.cast_value))
