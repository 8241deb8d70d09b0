"""`POST /e` and `/webhooks` in a Lambda behind API Gateway, the counterpart of `api.asgi` on the local server.

A request is answered once all of its events are on the bus, or in the queue. Every import here makes cold starts
slower.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson
from botocore.exceptions import ClientError

from stepwell.api.access import Keys
from stepwell.api.http.problem import CONTENT_TYPE, Problem
from stepwell.api.ingest.cors import CORS, preflight
from stepwell.api.ingest.event_ids import new_event_id
from stepwell.api.ingest.ingest import WEBHOOKS, accepted, read_events, refusal, require_sender
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.clients import client
from stepwell.aws.functions.event_types import TypeStore
from stepwell.aws.queues.envelope import INGEST, ORIGIN, REFUSED, REFUSED_TYPE, accepted_by_sqs
from stepwell.aws.queues.outbox import put_events, send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.throttled import throttled
from stepwell.core.events.events import Event
from stepwell.core.events.request import BadRequest, EventError
from stepwell.event_types.registry import MOST_TOLD, Policy, errors_of

if TYPE_CHECKING:
    from stepwell.api.webhooks.webhooks import Hooks

log = logging.getLogger("stepwell.aws")

_LONGEST_TYPE = 128  # characters that EventBridge allows in a detail-type; the detail contains the whole name
_number = count()  # numbers the events of this process
_AT_ONCE = 100  # events that one thread sends at a time
_PARALLEL = 8

Accept = Callable[[Sequence[Event]], None]
Answer = dict[str, Any]
Judge = Callable[[Iterable[tuple[int, Event]]], list[EventError]]
"""The errors of the events that do not match their schemas, if the type rejects such events. Input: events with their
indexes in the request."""


class Ingest:
    """Answers API Gateway requests (payload format 2.0).

    `accept`: makes events durable, or raises. `judge`: checks events against their schemas. `hooks`: called for the
    first webhook request.
    """

    def __init__(self, keys: Keys, accept: Accept, judge: Judge, hooks: Callable[[], Hooks]) -> None:
        self._keys, self._accept, self._judge, self._hooks = keys, accept, judge, hooks

    def __call__(self, request: Mapping[str, Any]) -> Answer:
        headers = request.get("headers", {})
        is_webhook = request["rawPath"].startswith(WEBHOOKS)
        cors = CORS if "origin" in headers and not is_webhook else {}
        try:
            return self._answer(request, headers, cors, is_webhook=is_webhook)
        except Problem as problem:
            return _refusal(problem, cors)
        except ClientError as error:
            return _refusal(throttled(error), cors)

    def _answer(
        self, request: Mapping[str, Any], headers: Mapping[str, str], cors: Mapping[str, str], *, is_webhook: bool
    ) -> Answer:
        if request["requestContext"]["http"]["method"] == "OPTIONS" and not is_webhook:
            requested = headers.get("access-control-request-headers")
            return _answer(204, b"", preflight(requested) if cors else {})
        if is_webhook:
            return self._take_delivery(request, headers)
        content = self._accept_all(self._events(request, headers))
        return _answer(200, content, {"content-type": "application/json", **cors})

    def _accept_all(self, events: Sequence[Event]) -> bytes:
        """Checks events and makes them durable. Returns the body of the answer. Raises Problem."""
        if not events:
            return accepted([])
        if errors := self._judge(enumerate(events)):
            raise refusal(BadRequest(400, errors))
        try:
            self._accept(events)
        except Exception:
            log.exception("%s events could not be sent on", len(events))
            raise Problem(503, "the events could not be stored; send them again", {"retry-after": "1"}) from None
        return accepted(events)

    def _events(self, request: Mapping[str, Any], headers: Mapping[str, str]) -> Sequence[Event]:
        if request["requestContext"]["http"]["method"] != "POST":
            raise Problem(405, "send events with POST", {"allow": "POST, OPTIONS"})
        path_key = request["rawPath"].removeprefix("/e").strip("/")
        require_sender(self._keys, path_key or None, headers.get("authorization"))
        try:
            return read_events(headers, _body(request), _now())
        except BadRequest as bad:
            raise refusal(bad.with_more(self._judge(bad.others))) from None

    def _take_delivery(self, request: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        from stepwell.api.webhooks import webhooks  # imports CEL, which most requests do not need

        method: str = request["requestContext"]["http"]["method"]
        if method not in webhooks.ALLOWED:
            raise Problem(405, "send webhook requests with POST", {"allow": ", ".join(webhooks.ALLOWED)})
        name, query = request["rawPath"].removeprefix(WEBHOOKS).rstrip("/"), request.get("rawQueryString", "")
        hooks = self._hooks()
        webhooks.rule_of(hooks, name)
        body = _body(request) if method == "POST" else b""
        domain = request["requestContext"].get("domainName")  # set by API Gateway, not by the sender
        base_url = f"https://{domain}" if domain else ""
        delivery = webhooks.Delivery(name, headers, query, body, method, base_url)
        received = webhooks.receive(hooks, delivery, _now())
        if (reply := received.reply) is not None:
            return _answer(200, reply.body, {"content-type": reply.content_type, **reply.headers})
        content = self._accept_all([] if received.event is None else [received.event])
        webhooks.confirm(hooks, received)
        return _answer(200, content, {"content-type": "application/json"})


def _now() -> int:
    return time.time_ns() // 1_000_000


def ingest_of(resources: Resources) -> Ingest:
    """The Ingest of an environment. It sends events to the bus or, with `ingest: direct`, to the queue."""
    accept, judge = sinks_of(resources)

    @cache
    def hooks() -> Hooks:
        from stepwell.aws.functions.webhooks import AwsHooks

        return AwsHooks(resources)

    return Ingest(KeyStore(resources), accept, judge, hooks)


def sinks_of(resources: Resources) -> tuple[Accept, Judge]:
    """What makes events of an environment durable, and what checks them against their types."""
    is_direct = resources.ingest == "direct"
    for service in ("dynamodb", "sqs" if is_direct else "events"):
        client(service)  # created now, because Lambda gives a starting sandbox a whole processor, later only a share
    send = _to_queue if is_direct else _to_bus
    pool = ThreadPoolExecutor(_PARALLEL, "ingest")

    def accept(events: Sequence[Event]) -> None:
        parts = [events[start : start + _AT_ONCE] for start in range(0, len(events), _AT_ONCE)]
        if len(parts) == 1:
            send(resources, events)
        else:
            for done in [pool.submit(send, resources, part) for part in parts]:
                done.result()

    types = TypeStore(resources)

    def judge(events: Iterable[tuple[int, Event]]) -> list[EventError]:
        refused = types.current().refused(events, only=Policy.REJECT)  # `route` checks the types of other policies
        if refused:
            _report(lambda items: send(resources, items, REFUSED), [event for _, event, _ in refused[:MOST_TOLD]])
        return errors_of(refused)

    return accept, judge


def _report(send: Accept, events: Sequence[Event]) -> None:
    """Sends refused events to `route`, which starts the functions that react to refused events. Never raises."""
    try:
        send(events)
    except Exception:
        log.exception("%s refused events could not be reported", len(events))


def _to_bus(resources: Resources, events: Sequence[Event], source: str = INGEST) -> None:
    put_events(
        [
            {
                "EventBusName": resources.bus,
                "Source": source,
                "DetailType": _detail_type(event, source)[:_LONGEST_TYPE],
                "Detail": accepted_by_sqs(event.body),
                "Resources": _resources(event),
            }
            for event in events
        ]
    )


def _to_queue(resources: Resources, events: Sequence[Event], source: str = INGEST) -> None:
    """Sends events to the queue, in the same envelopes that EventBridge would create."""
    sent_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    messages = []
    for event in events:
        envelope = {
            "version": "0",
            "id": new_event_id(),
            "detail-type": _detail_type(event, source),
            "source": source,
            "time": sent_at,
            "resources": _resources(event),
            "detail": orjson.Fragment(event.body),
        }
        messages.append({"MessageBody": accepted_by_sqs(orjson.dumps(envelope))})
    send_messages(resources.events_queue, messages)


def _resources(event: Event) -> list[str]:
    """The `resources` of an envelope: a unique origin, if the event's id was created here."""
    return [f"{ORIGIN}{new_event_id()}:{next(_number)}"] if event.fresh else []


def _detail_type(event: Event, source: str) -> str:
    return event.name if source == INGEST else REFUSED_TYPE


def _body(request: Mapping[str, Any]) -> bytes:
    text: str = request.get("body") or ""
    if not request.get("isBase64Encoded"):
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Problem(400, f"the body is not valid base64, which API Gateway says it is: {error}") from None


def _refusal(problem: Problem, cors: Mapping[str, str]) -> Answer:
    return _answer(problem.status, problem.body(), {"content-type": CONTENT_TYPE, **problem.headers, **cors})


def _answer(status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
    return {"statusCode": status, "headers": dict(headers), "body": body.decode(), "isBase64Encoded": False}
