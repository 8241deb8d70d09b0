"""Builds the events and the context with which AWS calls a Lambda, for tests that call handlers in-process."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlencode

Json = dict[str, Any]
ACCOUNT = "123456789012"
REGION = "us-east-1"


class LambdaContext:
    """The second argument of a handler. `timeout_s` is real time, counted from now."""

    function_version = "$LATEST"
    client_context = None
    identity = None

    def __init__(self, function_name: str = "stepwell", *, memory: int = 128, timeout_s: float = 60.0) -> None:
        self.function_name = function_name
        self.memory_limit_in_mb = memory
        self.invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function_name}"
        self.aws_request_id = str(uuid.uuid4())
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
        self._deadline = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round((self._deadline - time.monotonic()) * 1000))


# --- queues ----------------------------------------------------------------------------------------------------------


def sqs_event(records: Iterable[Json]) -> Json:
    """A batch of records that were made by `sqs_record`."""
    return {"Records": list(records)}


def sqs_record(
    body: str | Json,
    queue_arn: str = f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue",
    *,
    message_id: str = "",
    receipt_handle: str = "",
    attributes: Mapping[str, str] | None = None,
    message_attributes: Json | None = None,
) -> Json:
    """One message of a batch that was sent now. `attributes` add to or replace the default attributes."""
    text = body if isinstance(body, str) else json.dumps(body)
    now = str(time.time_ns() // 1_000_000)
    return {
        "messageId": message_id or str(uuid.uuid4()),
        "receiptHandle": receipt_handle or uuid.uuid4().hex,
        "body": text,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": now,
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": now,
            **(attributes or {}),
        },
        "messageAttributes": message_attributes or {},
        "md5OfBody": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


# --- HTTP ------------------------------------------------------------------------------------------------------------


def http_event(
    method: str,
    path: str,
    body: str | bytes | None = None,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    route: str = "$default",
    parameters: Mapping[str, str] | None = None,
) -> Json:
    """A request to an HTTP API on the `$default` stage, in payload format 2.0.

    As from AWS, a body of bytes is in base64, and the path is decoded.
    """
    path = unquote(path)
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    domain = f"api.execute-api.{REGION}.amazonaws.com"
    event: Json = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": urlencode(query or {}),
        "headers": {"host": domain, "x-forwarded-for": "192.0.2.1", **sent},
        "requestContext": _request_context(method, path, domain, sent.get("user-agent", ""), route),
        "isBase64Encoded": isinstance(body, bytes),
    }
    if query:
        event["queryStringParameters"] = dict(query)
    if parameters:
        event["pathParameters"] = dict(parameters)
    if body is not None:
        event["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    return event


def _request_context(method: str, path: str, domain: str, user_agent: str, route: str) -> Json:
    now = datetime.now(UTC)
    return {
        "accountId": ACCOUNT,
        "apiId": "api",
        "domainName": domain,
        "domainPrefix": "api",
        "http": {
            "method": method,
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": "192.0.2.1",
            "userAgent": user_agent,
        },
        "requestId": uuid.uuid4().hex,
        "routeKey": route,
        "stage": "$default",
        "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(now.timestamp() * 1000),
    }


# --- EventBridge -----------------------------------------------------------------------------------------------------


def bus_event(name: str, detail: Json, source: str, *, resources: Iterable[str] = ()) -> Json:
    """An event of a bus, as a rule delivers it. `name` is the detail type."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": name,
        "source": source,
        "account": ACCOUNT,
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "region": REGION,
        "resources": list(resources),
        "detail": detail,
    }


def scheduled_event(rule: str = "tick") -> Json:
    """The event that a scheduled rule sends."""
    arn = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{rule}"
    return bus_event("Scheduled Event", {}, "aws.events", resources=[arn])


def task_stopped_event(
    container: str = "step",
    *,
    exit_code: int | None = 0,
    stop_code: str = "EssentialContainerExited",
    reason: str = "Essential container in task exited",
    environment: Mapping[str, str] | None = None,
    task_arn: str = "",
    definition_arn: str = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/step:1",
) -> Json:
    """The event of a stopped ECS task. `environment`: the variables that RunTask overrode in the container."""
    arn = task_arn or f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/cluster/{uuid.uuid4().hex}"
    cluster = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{arn.split('/')[1]}"
    code = {} if exit_code is None else {"exitCode": exit_code}
    variables = [{"name": name, "value": value} for name, value in (environment or {}).items()]
    detail: Json = {
        "clusterArn": cluster,
        "taskArn": arn,
        "taskDefinitionArn": definition_arn,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "launchType": "FARGATE",
        "stopCode": stop_code,
        "stoppedReason": reason,
        "containers": [{"name": container, "lastStatus": "STOPPED", "taskArn": arn, **code}],
        "overrides": {"containerOverrides": [{"name": container, "environment": variables}]},
    }
    return bus_event("ECS Task State Change", detail, "aws.ecs", resources=[arn])
