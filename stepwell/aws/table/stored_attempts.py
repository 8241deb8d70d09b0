"""Ended attempts in the item of a run, as compact JSON rows."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from stepwell.core.run.messages import RecordAttempt

_STATUSES = ("completed", "failed", "lost", "cancelled", "kept")  # stored as indexes: append new statuses at the end


@dataclass(slots=True)
class StoredAttempt:
    """An ended attempt. `ref`: sort key of the item that contains the output or error, if that is long."""

    step: int
    attempt: int
    status: str
    queued_at: int
    started_at: int | None
    ended_at: int
    output: bytes | None = None
    error: bytes | None = None
    request_id: str | None = None
    ref: str | None = None

    @classmethod
    def of(cls, command: RecordAttempt, error: bytes | None, request_id: str | None) -> StoredAttempt:
        c = command
        return cls(
            c.step, c.attempt, c.status, c.queued_at, c.started_at, c.ended_at, c.output, error, request_id
        )  # fmt: skip

    @property
    def size(self) -> int:
        return len(self.output or b"") + len(self.error or b"")

    def to_json(self, since: int) -> list[Any]:
        """The attempt as a row. Times are milliseconds after `since`, to save digits; trailing nulls are dropped."""
        row: list[Any] = [
            self.step,
            self.attempt,
            _STATUSES.index(self.status),
            self.queued_at - since,
            None if self.started_at is None else self.started_at - since,
            self.ended_at - since,
            None if self.output is None or self.ref else orjson.Fragment(self.output),
            None if self.error is None or self.ref else orjson.Fragment(self.error),
            _short_id(self.request_id),
            self.ref,
        ]
        has_null_output = self.output is not None and self.ref is None and self.output == b"null"
        return [*row, 1] if has_null_output else _without_nulls(row)

    @classmethod
    def from_json(cls, row: list[Any], since: int) -> StoredAttempt:
        null_output = len(row) > 10
        padded: list[Any] = [*row, *([None] * 10)]
        step, attempt, status, queued, started, ended, output, error, request_id, ref = padded[:10]
        return cls(
            step,
            attempt,
            _STATUSES[status],
            since + queued,
            None if started is None else since + started,
            since + ended,
            orjson.dumps(output) if output is not None or null_output else None,
            None if error is None else orjson.dumps(error),
            _long_id(request_id),
            ref,
        )


def _without_nulls(row: list[Any]) -> list[Any]:
    while row and row[-1] is None:
        row.pop()
    return row


def _short_id(request_id: str | None) -> str | None:
    """The id in 22 characters instead of 36, if it is a UUID with hyphens, as Lambda writes it.

    The ids of ECS tasks have no hyphens. They stay unchanged, because the name of a log stream contains the id
    (https://docs.aws.amazon.com/prescriptive-guidance/latest/implementing-logging-monitoring-cloudwatch/ec2-fargate-logs.html).
    """
    if request_id is None:
        return None
    try:
        uuid = UUID(request_id)
    except ValueError:
        return request_id
    return base64.urlsafe_b64encode(uuid.bytes).decode().rstrip("=") if str(uuid) == request_id else request_id


def _long_id(text: str | None) -> str | None:
    if text is None or len(text) != 22:
        return text
    return str(UUID(bytes=base64.urlsafe_b64decode(text + "==")))
