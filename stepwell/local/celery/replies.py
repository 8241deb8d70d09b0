"""Writes the results of tasks as a Celery worker does, so that `.get()` of their callers returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepwell.extras import load
from stepwell.local.celery.addresses import check_backend
from stepwell.local.celery.connections import app_of


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a task: SUCCESS with the result, FAILURE or REVOKED with an exception as data."""

    state: str
    result: Any


def success(result: Any) -> Reply:
    return Reply("SUCCESS", result)


def failed(message: str) -> Reply:
    """A failure that the caller gets as a RuntimeError."""
    return Reply("FAILURE", {"exc_type": "RuntimeError", "exc_message": [message], "exc_module": "builtins"})


def not_registered(message: str) -> Reply:
    """The failure of a task that has no function, as that of a task that a worker does not know."""
    exception = {"exc_type": "NotRegistered", "exc_message": [message], "exc_module": "celery.exceptions"}
    return Reply("FAILURE", exception)


def revoked(message: str) -> Reply:
    exception = {"exc_type": "TaskRevokedError", "exc_message": [message], "exc_module": "celery.exceptions"}
    return Reply("REVOKED", exception)


class ReplyWriter:
    """Writes into one result backend. Call it in one thread."""

    def __init__(self, broker: str, backend: str) -> None:
        """Raises BadAddress."""
        check_backend(backend)
        self._app = app_of(broker, backend)

    def write(self, call: Mapping[str, str], reply: Reply) -> None:
        """Stores or sends the result. Raises the errors of the backend's client."""
        load("celery")
        from celery.app.task import Context

        request = Context(
            id=call["task_id"], reply_to=call["reply_to"], correlation_id=call["correlation_id"], delivery_info={}
        )
        self._app.backend.store_result(call["task_id"], reply.result, reply.state, request=request)

    def close(self) -> None:
        self._app.close()
