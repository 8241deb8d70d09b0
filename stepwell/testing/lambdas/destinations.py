"""Records of asynchronous invocations, as Lambda sends them to a function's destinations.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html. Payloads are copied into the record
as text, so that numbers keep all digits.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from stepwell.testing.lambdas.function import Function
from stepwell.testing.lambdas.sandbox import Ended, Invocation

SUCCESS, RETRIES_EXHAUSTED, EVENT_AGE_EXCEEDED = "Success", "RetriesExhausted", "EventAgeExceeded"


def record(function: Function, invocation: Invocation, ended: Ended | None, tries: int) -> str:
    """The record of an invocation. `ended` is None if it was never started, because it waited too long."""
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "version": "1.0",
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z",
        "requestContext": {
            "requestId": invocation.id,
            "functionArn": f"{function.arn}:$LATEST",
            "condition": _condition(ended),
            "approximateInvokeCount": tries,
        },
    }
    parts = [json.dumps(fields)[:-1], f', "requestPayload": {invocation.payload.decode()}']
    if ended is not None:
        error = {"functionError": "Unhandled"} if ended.is_error else {}
        context = {"statusCode": 200, "executedVersion": "$LATEST", **error}
        parts += [f', "responseContext": {json.dumps(context)}', f', "responsePayload": {as_json(ended.payload)}']
    return "".join(parts) + "}"


def _condition(ended: Ended | None) -> str:
    if ended is None:
        return EVENT_AGE_EXCEEDED
    return RETRIES_EXHAUSTED if ended.is_error else SUCCESS


def as_json(payload: bytes) -> str:
    """The payload as JSON text; if it is not JSON, as a JSON string."""
    text = payload.decode(errors="replace")
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(text)
    return text
