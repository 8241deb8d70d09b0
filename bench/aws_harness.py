"""Runs the engine's real Lambda handlers on an AWS account in this process (moto), and records each invocation's usage.

Counting and timing are done in separate invocations. Counting slows the code down. It also delays every request, so
that requests that can run at the same time are seen to overlap.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import orjson
from botocore.client import BaseClient
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for lambdas/ and infra/

from infra.settings import Settings
from stepwell.api.access import KeyScope
from stepwell.aws import clients
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.resources import VARIABLE, Resources
from stepwell.aws.signing.signing_keys import make_keys
from stepwell.aws.table.keys import create_table, function_key, starts_key, wait_key
from stepwell.aws.table.positions import next_position
from stepwell.aws.topology import FUNCTIONS
from stepwell.core.definition.definition import parse_definition
from stepwell.testing.account.cold_start import forget_process
from stepwell.testing.account.meter import Meter, item_size, metered
from stepwell.testing.batches import LOST, Batches, Json, handler_step

MEMORY_MB = {function.name: function.memory_mb or Settings().memory for function in FUNCTIONS}
HOLD_S = 0.02  # delay of a counted request
LINE_LOG = 26  # bytes that CloudWatch Logs adds to a line
ITEM_BYTES = 100  # bytes that DynamoDB adds to a stored item ("item sizes" in the developer guide)

_one_at_a_time = threading.RLock()  # moto's state is not thread-safe
_moto_s = _client_s = 0.0  # CPU time in moto, and in boto3 including moto


@dataclass(slots=True)
class Invocation:
    """The usage of one invocation of a handler. Times are CPU ms: without moto, and without boto3 and moto."""

    meter: Meter = field(default_factory=Meter)
    cpu_ms: float = 0
    engine_ms: float = 0
    log_bytes: int = 0  # of the handler's own lines, including what CloudWatch Logs adds
    answer: Any = None


class Harness:
    """`counting`: whether the next invocations are counted or timed.

    `sent`: messages for the queue of events. `timers`: messages that the engine sends to the queue of outcomes. Both
    are in the order of sending.
    """

    def __init__(self, ingest: str) -> None:
        self.resources = _resources(ingest)
        os.environ[VARIABLE] = self.resources.to_json()
        forget_process()
        self.batches = Batches(self.resources, lambda ctx: LOST)
        self.key = KeyStore(self.resources).create(KeyScope.SEND, "bench", 0)[1]
        self.counting = True
        self.log = io.StringIO()
        self.sent: list[Json] = []
        self.timers: list[Json] = []
        for service in ("dynamodb", "sqs", "events", "lambda"):
            clients.client(service).meta.events.register("before-call.*.*", self._hold)  # runs after the meter
        clients.client("events").meta.events.register("before-call.events.PutEvents", self._put)
        clients.client("sqs").meta.events.register("before-call.sqs.SendMessageBatch", self._queued)
        self.handlers = {name: self._handler(name) for name in ("ingest", "route", "advance", "tick")}

    def deploy(self, steps: Json, on: str = "go", id: str = "f") -> None:
        self.batches.deploy(steps, on, id)
        forget_process()

    def _handler(self, name: str) -> Callable[[Any, Any], Any]:
        module = importlib.reload(importlib.import_module(f"lambdas.{name}"))
        handler: Callable[[Any, Any], Any] = module.handler
        return handler

    def _hold(self, **_: Any) -> None:
        if self.counting:
            time.sleep(HOLD_S)

    def _put(self, params: Json, **_: Any) -> None:
        for one in json.loads(params["body"])["Entries"]:
            if one["Source"] != "stepwell.engine":
                self.sent.append(_envelope(one))

    def _queued(self, params: Json, **_: Any) -> None:
        body = json.loads(params["body"])
        to = self.sent if body["QueueUrl"] == self.resources.events_queue else self.timers
        to += [json.loads(one["MessageBody"]) for one in body["Entries"]]

    def invoke(self, handler: str, event: Json) -> Invocation:
        """Invokes a handler. Raises AssertionError if messages of the batch failed."""
        done = Invocation()
        context = SimpleNamespace(aws_request_id=str(uuid4()), function_name=handler, memory_limit_in_mb=1024)
        self.log.seek(0)
        self.log.truncate()
        moto_s, client_s, began = _moto_s, _client_s, time.process_time()
        with contextlib.redirect_stdout(self.log):
            if self.counting:
                with metered() as done.meter:
                    answer = self.handlers[handler](event, context)
            else:
                answer = self.handlers[handler](event, context)
        spent = time.process_time() - began
        done.cpu_ms = 1000 * (spent - (_moto_s - moto_s))
        done.engine_ms = 1000 * (spent - (_client_s - client_s))
        text = self.log.getvalue()
        done.log_bytes = len(text.encode()) + LINE_LOG * text.count("\n")
        done.answer = answer
        assert not (answer or {}).get("batchItemFailures"), text
        return done

    def stored(self) -> float:
        """The billed bytes of the table, including the index."""
        pages = self.batches.outside_db.get_paginator("scan").paginate(TableName=self.resources.table)
        found = 0
        for item in (item for page in pages for item in page["Items"]):
            found += ITEM_BYTES + item_size(item)
            if "gk" in item:
                found += ITEM_BYTES + item_size({name: item[name] for name in ("pk", "sk", "gk", "gs")})
        return found

    # --- filling the account -----------------------------------------------------------------------------------------

    def put(self, items: list[Json]) -> None:
        requests = [{"PutRequest": {"Item": item}} for item in items]
        for first in range(0, len(requests), 25):
            batch = {self.resources.table: requests[first : first + 25]}
            self.batches.outside_db.batch_write_item(RequestItems=batch)

    def fill_functions(self, count: int) -> None:
        """Fills the table as `count` pushes would; one push is really made."""
        self.deploy({"a": handler_step()}, "other", "f0")
        db = self.batches.outside_db
        item = db.get_item(TableName=self.resources.table, Key=function_key("f0"))["Item"]
        starts = db.get_item(TableName=self.resources.table, Key=starts_key("f0"))["Item"]
        rows = []
        for number in range(1, count):
            raw = {"id": f"f{number}", "triggers": [{"event": f"other/{number}"}], "steps": {"a": handler_step()}}
            definition = zlib.compress(orjson.dumps(parse_definition(raw).normalised()))
            rows.append({**item, **function_key(f"f{number}"), "d": {"B": definition}})
            triggers = {"1": [[f"other/{number}"]]}
            rows.append({**starts, **starts_key(f"f{number}"), "t": {"B": orjson.dumps(triggers)}})
        self.put(rows)
        forget_process()

    def fill_waits(self, name: str, count: int) -> None:
        deadline = {"d": {"N": str(2**45)}, "ttl": {"N": "1"}}
        self.put([{**wait_key(name, next_position(n).to_bytes(16), f"run{n}", 0, 1), **deadline} for n in range(count)])


@contextlib.contextmanager
def account() -> Iterator[None]:
    """An empty AWS account, in which the CPU times of boto3 and moto are measured."""
    os.environ.update(AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1")
    stub, call = BotocoreStubber.__call__, BaseClient._make_api_call

    def timed_stub(self: Any, *arguments: Any, **more: Any) -> Any:
        global _moto_s
        with _one_at_a_time:
            began = time.thread_time()
            try:
                return stub(self, *arguments, **more)
            finally:
                _moto_s += time.thread_time() - began

    def timed_call(self: Any, *arguments: Any, **more: Any) -> Any:
        global _client_s
        began = time.thread_time()
        try:
            return call(self, *arguments, **more)
        finally:
            spent = time.thread_time() - began
            with _one_at_a_time:
                _client_s += spent

    clients.reset()
    BotocoreStubber.__call__, BaseClient._make_api_call = timed_stub, timed_call
    try:
        with mock_aws():
            yield
    finally:
        BotocoreStubber.__call__, BaseClient._make_api_call = stub, call
        clients.reset()


def _resources(ingest: str) -> Resources:
    create_table(clients.client("dynamodb"), "stepwell")
    clients.client("events").create_event_bus(Name="stepwell")
    urls = {name: clients.client("sqs").create_queue(QueueName=name)["QueueUrl"] for name in ("events", "outcomes")}
    resources = Resources(
        env="bench",
        region="us-east-1",
        account="123456789012",
        table="stepwell",
        bus="stepwell",
        events_queue=urls["events"],
        events_queue_arn="arn:aws:sqs:us-east-1:123456789012:events",
        outcomes_queue=urls["outcomes"],
        outcomes_queue_arn="arn:aws:sqs:us-east-1:123456789012:outcomes",
        bucket="stepwell",
        step_http="step-http",
        ingest=ingest,
        cache_s=3600,
        keys_cache_s=3600,
    )
    make_keys(clients.client("ssm"), resources, 0)
    return resources


def _envelope(entry: Json) -> Json:
    """The message that EventBridge makes from an entry."""
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": entry["DetailType"],
        "source": entry["Source"],
        "account": "123456789012",
        "time": "2026-06-01T10:00:30Z",
        "region": "us-east-1",
        "resources": [],
        "detail": json.loads(entry["Detail"]),
    }


def request(key: str, body: Json) -> Json:
    """`POST /e` as the HTTP API passes it to the Lambda."""
    http = {"method": "POST", "path": "/e", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "bench"}
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    context = {"http": http, "requestId": "r", "stage": "$default", "timeEpoch": 1}
    return {
        "version": "2.0",
        "routeKey": "POST /e",
        "rawPath": "/e",
        "rawQueryString": "",
        "headers": headers,
        "requestContext": context,
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }
