"""Translates CloudEvents 1.0 to events: structured, batched and binary ones.

Attributes for which an event has no field are stored in `data.cloudevent`, so that nothing is lost.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md and, in the same
repository, formats/json-format.md.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import orjson

from stepwell.core.events.engine_ids import engine_id_message, engine_prefix
from stepwell.core.events.request import BadRequest, EventError, check_count, large_integers_of_events
from stepwell.core.json_input import MAX_LEVELS, BadJson, TooMany, parse_json

MEDIA_TYPE = "application/cloudevents"  # how the content types of structured and batched ones begin
_STRUCTURED, _BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
_PREFIX = "ce-"
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,64}")
_REQUIRED = ("id", "source", "type")
_OWN = {"specversion", "id", "type", "time", "data", "data_base64", "v", "user"}

Json = dict[str, Any]


def translated(headers: Mapping[str, str], body: bytes) -> bytes:
    """The body of an equal `POST /e` request with plain events. Raises BadRequest with places in the CloudEvent.

    `headers`: those of an HTTP request, with names in lower case.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == _BATCH:
        raw = _read(body, MAX_LEVELS + 1)
        if not isinstance(raw, list):
            raise _refused(0, "", "a batch must be a JSON array of CloudEvents")
        check_count(raw)
        return orjson.dumps([_event(index, item) for index, item in enumerate(raw)])
    if media_type.startswith(MEDIA_TYPE):
        return orjson.dumps(structured_event(media_type, body))
    attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith(_PREFIX)}
    return orjson.dumps(binary_event(attributes, headers.get("content-type", ""), body))


def structured_event(media_type: str, body: bytes) -> Json:
    """The fields of the event in a structured message, whose body is the whole CloudEvent. Raises BadRequest."""
    if media_type != _STRUCTURED:
        raise _refused(0, "", f"{media_type} is not supported; send {_STRUCTURED} or {_BATCH}")
    return _event(0, _read(body, MAX_LEVELS))


def binary_event(attributes: Mapping[str, str], media_type: str, body: bytes) -> Json:
    """The fields of the event in a binary message: the attributes are beside the body, which is the data.

    Raises BadRequest.
    """
    found: Json = dict(attributes)
    if media_type:
        found["datacontenttype"] = media_type
    if not body:
        return _event(0, found)
    if media_type == "" or re.match(r"[^;]*[/+]json\s*(;|$)", media_type):
        found["data"] = _read(body, MAX_LEVELS)
        return _event(0, found)
    try:
        found["data"] = body.decode()
    except UnicodeDecodeError:
        found["data_base64"] = base64.b64encode(body).decode()
    return _event(0, found)


def _read(body: bytes, levels: int) -> Any:
    try:
        raw = parse_json(body, levels)
    except TooMany as error:
        raise BadRequest(413, [EventError(0, "", f"the body is too complex: {error}")]) from None
    except BadJson as error:
        raise _refused(0, "", f"the body is not JSON: {error}") from None
    if errors := large_integers_of_events(body, raw):
        raise BadRequest(400, errors)
    return raw


def _event(index: int, raw: Any) -> Json:
    if not isinstance(raw, dict):
        raise _refused(index, "", "a CloudEvent must be a JSON object")
    if raw.get("specversion") != "1.0":
        raise _refused(index, "/specversion", 'the specversion of a CloudEvent must be "1.0"')
    for name in _REQUIRED:
        if not isinstance(raw.get(name), str) or not raw[name]:
            raise _refused(index, f"/{name}", f"a CloudEvent needs {name}, a string that is not empty")
    if (prefix := engine_prefix(raw["source"])) is not None:  # the event's id begins with the source
        raise _refused(index, "/source", engine_id_message(prefix))
    for name in raw.keys() - {"data", "data_base64"}:
        if not _ATTRIBUTE.fullmatch(name) or isinstance(raw[name], dict | list):
            raise _refused(
                index,
                f"/{name[:100]}",
                "an attribute's name may only have a-z and 0-9, and the value must not be a list or object",
            )
    event: Json = {"name": raw["type"], "id": f"{raw['source']} {raw['id']}", "data": _data(index, raw)}
    if raw.get("time") is not None:
        event["ts"] = _ms(index, raw["time"])
    if raw.get("v") is not None:
        event["v"] = raw["v"]
    if raw.get("user") is not None:
        event["user"] = {"external_id": raw["user"]}
    return event


def _data(index: int, raw: Json) -> Json:
    data = raw.get("data")
    if raw.get("data_base64") is not None:
        if data is not None:
            raise _refused(index, "/data_base64", "a CloudEvent must not have both data and data_base64")
        try:
            base64.b64decode(raw["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise _refused(index, "/data_base64", "data_base64 must be base64") from None
        fields: Json = {"base64": raw["data_base64"]}
    elif data is None:
        fields = {}
    else:
        fields = data if isinstance(data, dict) else {"value": data}
    rest = {name: value for name, value in raw.items() if name not in _OWN and value is not None}
    return {**fields, "cloudevent": {"id": raw["id"], **rest}}


def _ms(index: int, text: Any) -> int:
    """Milliseconds since the epoch of an RFC 3339 time."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _refused(index, "/time", "time must be an RFC 3339 time, such as 2026-11-23T10:00:00Z")
    return round(moment.timestamp() * 1000)


def _refused(index: int, pointer: str, message: str) -> BadRequest:
    return BadRequest(400, [EventError(index, pointer, message)])
