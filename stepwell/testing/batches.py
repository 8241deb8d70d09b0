"""Delivers the two queues to the real handlers, with step outcomes that the test chooses. No process is started.

Invocations of Lambda are recorded, and their destination records are put on the queue as Lambda would do. A crash can
be planned before any request to AWS: then everything in memory is lost, and the messages are delivered again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from dataclasses import replace
from functools import cache
from threading import Lock, RLock
from typing import Any
from uuid import uuid4

import boto3

from stepwell.aws import clients
from stepwell.aws.engine.control import Control
from stepwell.aws.engine.queue_consumer import QueueConsumer
from stepwell.aws.engine.results import all_attempts
from stepwell.aws.engine.scheduler import Scheduler
from stepwell.aws.engine.session import EngineSession, now_ms
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.resources import Resources
from stepwell.aws.table.runs import StoredRun, stored_run
from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.definition.definition import parse_definition
from stepwell.testing.account import meter
from stepwell.testing.account.queues import Queues

Json = dict[str, Any]
SERVICES = ("dynamodb", "sqs", "events", "lambda")


LOST = object()  # as an answer: the outcome of the step is lost


class Crash(BaseException):
    """The Lambda's process has ended."""


def handler_step(*after: Any, **fields: Any) -> Json:
    edges = [{"step": edge} if isinstance(edge, str) else edge for edge in after]
    runtime = {"type": "lambda", "handler": "app.handler"}
    return {"path": "file://.", "runtime": runtime, "retries": {"attempts": 0}, "after": edges, **fields}


def destination(payload: Json, value: Any, condition: str = "Success", **response: Any) -> Json:
    """The record that Lambda's destinations send for an invocation. `response`: more fields of `responseContext`."""
    request = {"requestId": str(uuid4()), "condition": condition, "functionArn": "arn", "approximateInvokeCount": 1}
    return {
        "version": "1.0",
        "requestContext": request,
        "requestPayload": payload,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", **response},
        "responsePayload": value,
    }


def sqs_event(bodies: list[Json], receive_count: int = 1) -> Json:
    """Messages as Lambda passes them, without a queue: moto's queues are slow when they are long."""
    attributes = {"ApproximateReceiveCount": str(receive_count)}
    return {"Records": [{"messageId": str(uuid4()), "body": _text(b), "attributes": attributes} for b in bodies]}


@cache
def _outside(service: str, region: str) -> Any:
    """A cached client for this module only; creating one takes longer than most tests."""
    return boto3.client(service, region)


def _text(body: Json) -> str:
    return json.dumps(body, separators=(",", ":"))


class Process:
    """What the engine's Lambdas have in memory. Two processes share nothing."""

    def __init__(self, resources: Resources) -> None:
        self.session = EngineSession(resources)
        self.consumer = QueueConsumer(self.session)
        self.scheduler = Scheduler(self.session)
        self.control = Control(self.session)


class Batches:
    def __init__(
        self, resources: Resources, answer: Callable[[Json], Any] = lambda ctx: {"ok": ctx["step_id"]}
    ) -> None:
        self.resources = replace(resources, cache_s=3600)
        self.answer = answer
        self.invoked: list[Json] = []
        self.crash_at: int | None = None  # the process dies before the request with this number
        self.numbered: Container[str] | None = None  # names of the requests that `crash_at` counts; None: all
        self.crash_after: int | None = None  # the process dies after this batch, before its messages are deleted
        self.batches = 0
        self.requests: list[str] = []
        self._lock = Lock()
        for service in SERVICES:
            client = clients.client(service)
            client.meta.events.unregister("before-call", unique_id="batches")  # registered by an earlier object
            client.meta.events.register("before-call", self.note, unique_id="batches")
            meter.attach(client)
        # Requests of senders of events, of Lambda's destinations and of pollers do not count as the engine's.
        self._queues = Queues(resources.account, resources.region, RLock())
        self.outside, self.outside_db = _outside("sqs", resources.region), _outside("dynamodb", resources.region)
        lambdas = clients.client("lambda").meta.events
        lambdas.unregister("before-call.lambda.Invoke", unique_id="invoke")
        lambdas.register("before-call.lambda.Invoke", self._invoke, unique_id="invoke")
        self.start()

    def start(self) -> None:
        """Starts a new process of each Lambda."""
        self.process = Process(self.resources)

    @property
    def session(self) -> EngineSession:
        return self.process.session

    @property
    def consumer(self) -> QueueConsumer:
        return self.process.consumer

    @property
    def scheduler(self) -> Scheduler:
        return self.process.scheduler

    @property
    def control(self) -> Control:
        return self.process.control

    def deploy(self, steps: Json, on: str = "go", id: str = "f", **fields: Any) -> None:
        raw = {"id": id, "triggers": [{"event": on}], "steps": steps, **fields}
        definition = parse_definition(raw).normalised()
        targets = {step: {"lambda": f"{id}-{step}"} for step in steps}
        self.session.releases.stage(definition)
        self.session.releases.register(NewVersion(definition, targets, {}, "", "", "stepwell.json"), now_ms())
        self.start()

    def note(self, model: Any, **_: Any) -> None:
        """Records a request, or raises Crash if the process is to die before it."""
        with self._lock:  # steps are started in parallel
            is_numbered = self.numbered is None or model.name in self.numbered
            is_last = is_numbered and self._number() == self.crash_at
            self.requests.append(model.name)
            if is_last:
                self.crash_at = None
                raise Crash

    def _number(self) -> int:
        """The number of the next request, among those that are counted."""
        return sum(self.numbered is None or name in self.numbered for name in self.requests)

    def _invoke(self, params: Json, model: Any, **_: Any) -> tuple[Any, Json]:
        self.note(model)  # `before-call` does not report requests that are answered here
        payload = json.loads(params["body"])
        self.invoked.append(payload)
        value = self.answer(payload["ctx"])
        if value is not LOST:
            self.put_outcome(destination(payload, value))
        return _Accepted(), {"StatusCode": 202, "ResponseMetadata": {"HTTPStatusCode": 202}}

    def put_outcome(self, record: Json) -> None:
        self._queues.send(self.resources.outcomes_queue_arn, _text(record))

    def send(self, name: str = "go", data: Json | None = None, id: str | None = None, user: Json | None = None) -> str:
        """Sends an event as EventBridge delivers the events that ingest puts on the bus. Returns the event id."""
        event_id = id or uuid4().hex
        detail = {"name": name, "data": data or {}, "id": event_id, "user": user or {}}
        envelope = {
            "version": "0",
            "id": str(uuid4()),
            "detail-type": name,
            "source": "stepwell.api",
            "time": "2026-06-01T10:00:30Z",
            "detail": detail,
        }
        self._queues.send(self.resources.events_queue_arn, _text(envelope))
        return event_id

    def deliver(self, queue: str, handler: Callable[[Json], Json], batch: int = 10) -> bool:
        """Delivers one batch; failed messages become visible at once. Returns False if there was nothing to deliver."""
        event = self._queues.receive(queue, batch)
        if not event["Records"]:
            return False
        try:
            answer = handler(event)
            self.batches += 1
            if self.batches - 1 == self.crash_after:
                raise Crash
        except Crash:
            self.start()
            self._queues.release(queue, event["Records"])
        else:
            self._queues.release(queue, self._queues.finish(queue, event, answer))
        return True

    def route(self, batch: int = 10) -> bool:
        return self.deliver(self.resources.events_queue, lambda event: self.consumer.route(event), batch)

    def advance(self, batch: int = 10) -> bool:
        return self.deliver(self.resources.outcomes_queue, lambda event: self.consumer.advance(event), batch)

    def drain(self, batch: int = 10) -> None:
        """Delivers both queues until nothing is visible."""
        while self.route(batch) or self.advance(batch):
            pass

    def runs(self) -> list[tuple[StoredRun, list[StoredAttempt]]]:
        """All runs, each with its ended attempts."""
        pages = self.outside_db.get_paginator("scan").paginate(TableName=self.resources.table)
        items = [item for page in pages for item in page["Items"]]
        runs = [stored_run(item) for item in items if item["pk"]["S"].startswith("R#") and item["sk"]["S"] == "r"]
        return [(run, all_attempts(run, self.session.store.table.get_many)) for run in runs]


class _Accepted:
    """Lambda's answer to an asynchronous invocation."""

    status_code = 202
    content = b""

    def __init__(self) -> None:
        self.headers: Json = {}
