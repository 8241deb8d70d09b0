"""Reads the results of tasks, as Celery's result backends store and send them.

The states: https://docs.celeryq.dev/en/stable/userguide/tasks.html#states
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure, from_output, read_value

Meta = Mapping[str, Any]
ENDED = frozenset({"SUCCESS", "FAILURE", "REVOKED"})  # not RETRY: the task runs again with the same id


def decode(text: bytes | str) -> Meta:
    """The result in a stored text. Of a text that is not JSON, a FAILURE that says so."""
    try:
        meta = orjson.loads(text)
    except ValueError:
        meta = None
    if isinstance(meta, dict) and isinstance(meta.get("status"), str):
        return meta
    return {"status": "FAILURE", "unreadable": True}


def has_ended(meta: Meta) -> bool:
    return meta["status"] in ENDED


def outcome_of(meta: Meta) -> Outcome:
    """The outcome of an attempt whose task has ended."""
    if meta.get("unreadable"):
        return failure(
            "invalid_output",
            "the task's result is not JSON; set result_serializer = 'json' in the Celery app",
            retryable=False,
        )
    result = meta.get("result")
    if meta["status"] == "SUCCESS":
        return from_output(read_value(result), time.time_ns() // 1_000_000)
    if meta["status"] == "REVOKED":
        return failure("revoked", "the task was revoked, so no worker runs it", retryable=False)
    return failure("exception", _exception(result))


def traceback_of(meta: Meta) -> bytes:
    """The traceback of a task that failed, for the attempt's log."""
    text = meta.get("traceback")
    return f"{text.rstrip()}\n".encode("utf-8", "replace") if isinstance(text, str) and text.strip() else b""


def _exception(result: object) -> str:
    """Type and message of the exception: `{exc_type, exc_message, exc_module}`, or an exception that was rebuilt."""
    if isinstance(result, BaseException):
        return f"{type(result).__name__}: {result}"
    if not isinstance(result, dict):
        return f"the task failed: {result!r}"
    message = result.get("exc_message")
    texts = message if isinstance(message, list) else [message]
    name = str(result.get("exc_type"))
    if name == "NotRegistered":
        return f"NotRegistered: no worker of this queue has the task {', '.join(map(str, texts))}"
    reason = ", ".join(str(text) for text in texts if text is not None)
    return f"{name}: {reason}" if reason else name
