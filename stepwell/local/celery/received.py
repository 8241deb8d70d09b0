"""Reads task messages of Celery clients, of protocol 1 and 2. Only JSON is read, never pickle.

https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

_AFTERWARDS = ("callbacks", "errbacks", "chain", "chord")


class BadMessage(Exception):
    """A message is not a task that can become an event. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Call:
    """Where the result of a task belongs. `reply_to`: the queue of results, for rpc://."""

    task_id: str
    reply_to: str
    correlation_id: str
    is_awaited: bool  # whether the caller wants a result

    def stored(self) -> dict[str, str]:
        return {"task_id": self.task_id, "reply_to": self.reply_to, "correlation_id": self.correlation_id}


@dataclass(frozen=True, slots=True)
class TaskCall:
    """A task that a client calls. `eta`, `expires`: ms since the epoch."""

    call: Call
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    retries: int
    eta: int | None
    expires: int | None

    def body(self) -> bytes:
        return orjson.dumps({"args": self.args, "kwargs": self.kwargs, "task": self.task, "id": self.call.task_id})


def call_of(headers: Mapping[str, Any], properties: Mapping[str, Any], body: bytes) -> Call | None:
    """Where the result of a message belongs, as far as it can be read; None if the message has no task id."""
    task_id = headers.get("id")
    if not isinstance(task_id, str):
        try:
            task_id = orjson.loads(body)["id"]
        except (ValueError, TypeError, KeyError):
            return None
    if not isinstance(task_id, str) or not task_id:
        return None
    reply_to, correlation = (properties.get(name) for name in ("reply_to", "correlation_id"))
    return Call(task_id, str(reply_to or ""), str(correlation or task_id), not headers.get("ignore_result"))


def task_call(headers: Mapping[str, Any], properties: Mapping[str, Any], content_type: str, body: bytes) -> TaskCall:
    """The task of a message. Raises BadMessage."""
    if content_type != "application/json":
        raise BadMessage(f"the message is {content_type or 'of no type'}, not JSON; set task_serializer = 'json'")
    try:
        content = orjson.loads(body)
    except ValueError:
        raise BadMessage("the message is not valid JSON") from None
    if "task" in headers:
        fields, (args, kwargs, embedded) = headers, _parts(content)
    elif isinstance(content, dict) and "task" in content:
        fields, args, kwargs, embedded = content, content.get("args", []), content.get("kwargs", {}), content
    else:
        raise BadMessage("the message is no task of Celery: it has no header `task`")
    call = call_of(headers, properties, body)
    is_well_formed = isinstance(fields["task"], str) and isinstance(args, list) and isinstance(kwargs, dict)
    if call is None or not is_well_formed:
        raise BadMessage("the message is no task of Celery: task, id, args or kwargs have a wrong type")
    if wanted := [name for name in _AFTERWARDS if embedded.get(name)]:
        raise BadMessage(
            f"the task has {' and '.join(wanted)}, which only Celery can call afterwards; make these tasks steps of the"
            " function, and call the first one without them"
        )
    retries = fields.get("retries") or 0
    return TaskCall(
        call, fields["task"], args, kwargs, int(retries) if isinstance(retries, int) else 0,
        _ms(fields.get("eta")), _ms(fields.get("expires")),
    )  # fmt: skip


def _parts(content: Any) -> tuple[Any, Any, Mapping[str, Any]]:
    if not isinstance(content, list) or len(content) != 3:
        raise BadMessage("the body is not [args, kwargs, embedded tasks]")
    args, kwargs, embedded = content
    return args, kwargs, embedded if isinstance(embedded, dict) else {}


def _ms(text: object) -> int | None:
    """The time in ms. Without a time zone it is UTC, as in Celery. Raises BadMessage."""
    if text in (None, ""):
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise BadMessage(f"{str(text)[:50]!r} is not a time") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
