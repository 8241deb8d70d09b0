"""`POST /e` behind an HTTP API: what `api.asgi` does on a machine, for requests that come as Lambda events.

One rule: the answer comes once every event is on the bus (or in the queue). A cold start pays for every import here.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import orjson

from stepwell.api.access import Keys
from stepwell.api.cors import CORS
from stepwell.api.ingest import accepted, new_event_id, read_events
from stepwell.api.problem import CONTENT_TYPE, Problem
from stepwell.aws.access import KeyStore
from stepwell.aws.clients import client
from stepwell.aws.outbox import put_events, send_messages
from stepwell.aws.resources import Resources
from stepwell.core.events import Event

log = logging.getLogger("stepwell.aws")

INGEST = "stepwell.api"  # the source that says that the detail is the whole event
_LONGEST_TYPE = 128  # characters that EventBridge takes for a detail-type; the detail has the whole name
_AT_ONCE = 100  # events that one thread sends
_PARALLEL = 8

Accept = Callable[[Sequence[Event]], None]
Answer = dict[str, Any]


class Ingest:
    """Answers requests in the format 2.0 of HTTP APIs. `accept` makes events durable, and raises if it cannot."""

    def __init__(self, keys: Keys, accept: Accept) -> None:
        self._keys, self._accept = keys, accept

    def __call__(self, request: Mapping[str, Any]) -> Answer:
        headers = request.get("headers", {})
        cors = CORS if "origin" in headers else {}
        try:
            if request["requestContext"]["http"]["method"] == "OPTIONS":
                return _answer(204, b"", cors)
            return _answer(200, self._send(request, headers), {"content-type": "application/json", **cors})
        except Problem as problem:
            return _answer(problem.status, problem.body(), {"content-type": CONTENT_TYPE, **problem.headers, **cors})

    def _send(self, request: Mapping[str, Any], headers: Mapping[str, str]) -> bytes:
        if request["requestContext"]["http"]["method"] != "POST":
            raise Problem(405, "events are sent with POST", {"allow": "POST, OPTIONS"})
        path_key = request["rawPath"].removeprefix("/e").removeprefix("/")
        now = time.time_ns() // 1_000_000
        events = read_events(self._keys, path_key or None, headers.get("authorization"), _body(request), now)
        try:
            self._accept(events)
        except Exception:
            log.exception("%s events could not be sent on", len(events))
            raise Problem(503, "the events could not be stored; send them again", {"retry-after": "1"}) from None
        return accepted(events)


def ingest_of(resources: Resources) -> Ingest:
    """Sends events to the environment's bus, or straight to its queue, as it is set."""
    is_direct = resources.ingest == "direct"
    for service in ("dynamodb", "sqs" if is_direct else "events"):
        client(service)  # while the sandbox begins it has a whole processor, later a share of one
    send = _to_queue if is_direct else _to_bus
    pool = ThreadPoolExecutor(_PARALLEL, "ingest")

    def accept(events: Sequence[Event]) -> None:
        parts = [events[start : start + _AT_ONCE] for start in range(0, len(events), _AT_ONCE)]
        if len(parts) == 1:
            send(resources, events)
        else:
            for done in [pool.submit(send, resources, part) for part in parts]:
                done.result()

    return Ingest(KeyStore(resources), accept)


def _to_bus(resources: Resources, events: Sequence[Event]) -> None:
    put_events(
        [
            {
                "EventBusName": resources.bus,
                "Source": INGEST,
                "DetailType": event.name[:_LONGEST_TYPE],
                "Detail": _text(event.body),
            }
            for event in events
        ]
    )


def _to_queue(resources: Resources, events: Sequence[Event]) -> None:
    """In the envelope that EventBridge would put around them."""
    sent_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    messages = []
    for event in events:
        envelope = {
            "version": "0",
            "id": new_event_id(),
            "detail-type": event.name,
            "source": INGEST,
            "time": sent_at,
            "detail": orjson.Fragment(event.body),
        }
        messages.append({"MessageBody": _text(orjson.dumps(envelope))})
    send_messages(resources.events_queue, messages)


def _text(body: bytes) -> str:
    """JSON text that SQS takes: it refuses two characters, which can only stand in texts, where escapes can."""
    return body.decode().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _body(request: Mapping[str, Any]) -> bytes:
    text: str = request.get("body") or ""
    if not request.get("isBase64Encoded"):
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Problem(400, f"the body is not what the HTTP API says it is: {error}") from None


def _answer(status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
    return {"statusCode": status, "headers": dict(headers), "body": body.decode(), "isBase64Encoded": False}
