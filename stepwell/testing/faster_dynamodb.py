"""moto's DynamoDB by a shorter way: its own actions on its own tables, without what it does around them.

Nine of ten requests of a test go to DynamoDB, and of the time that moto takes for one, five sixths go into making a
WSGI request of it, matching URLs, and walking through AWS's model for what is read and written as JSON anyway.

One rule: what a request does, and what it is answered, is worked out by moto. Its errors go the long way.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.responses import ActionResult
from moto.core.utils import get_service_model
from moto.dynamodb.responses import DynamoHandler
from moto.utilities.utils import get_partition

_ACTIONS = {
    f"DynamoDB_20120810.{name}"
    for name in ("BatchGetItem", "BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem")
}
_HEADERS = ("X-Amz-Target", "Authorization", "Content-Type", "x-moto-account-id")
_URL = re.compile(r"https://(?:dynamodb|[0-9]+\.ddb)\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/")


@contextmanager
def faster_dynamodb() -> Iterator[None]:
    original = BotocoreStubber.process_request

    def process_request(stubber: BotocoreStubber, request: AWSPreparedRequest) -> Any:
        short = _short_way(request)
        return original(stubber, request) if short is None else short.call_action()

    with patch.object(BotocoreStubber, "process_request", process_request):
        yield


class _Handler(DynamoHandler):
    def __init__(self, request: AWSPreparedRequest, region: str) -> None:
        super().__init__()
        self.headers = {name: _header(request, name) for name in _HEADERS if name in request.headers}
        self.querystring: dict[str, Any] = {}
        self.params: Any = json.loads(request.body, object_hook=_with_bytes)
        self.region, self.partition = region, get_partition(region)
        self.access_key = self.get_access_key()
        self.current_account = self.get_current_account()
        self.response_headers = {"server": "amazon.com"}

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


def _with_bytes(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object, whose binary values are bytes if it is an attribute's value."""
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
