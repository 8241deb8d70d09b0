"""Task messages of protocol 2, the ones that Celery 4 and later send and read.

The fields: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import orjson

from stepwell.core.plain_data import immutable

CONTENT_TYPE, CONTENT_ENCODING = "application/json", "utf-8"
_LONGEST_REPR = 1024  # characters, as `argsrepr_maxsize` of Celery
_NOTHING_EMBEDDED = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_NAMESPACE = uuid.UUID("7f7a0b5e-3f0a-5c55-9d3c-6a1d4ce1f0c7")


@immutable
class TaskMessage:
    """Asks for one execution of a task. `args` and `kwargs` are JSON texts; `expires` is ms since the epoch."""

    id: str
    task: str
    queue: str
    args: bytes
    kwargs: bytes
    expires: int

    def headers(self, origin: str) -> dict[str, Any]:
        """The headers. `origin` names the sender. A task that ignores results stores this one."""
        return {
            "lang": "py",
            "task": self.task,
            "id": self.id,
            "shadow": None,
            "eta": None,
            "expires": datetime.fromtimestamp(self.expires / 1000, UTC).isoformat(),
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": self.id,
            "parent_id": None,
            "argsrepr": _shown(self.args),
            "kwargsrepr": _shown(self.kwargs),
            "origin": origin,
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        }

    def body(self) -> bytes:
        """The JSON text of args, kwargs, and the tasks to call afterwards, of which there are none."""
        return b"".join((b"[", self.args, b",", self.kwargs, b",", _NOTHING_EMBEDDED, b"]"))


def task_id(server: str, run_id: str, step_id: str, attempt: int) -> str:
    """The id of the task that executes an attempt. `server` tells databases apart that share a broker."""
    return str(uuid.uuid5(_NAMESPACE, orjson.dumps([server, run_id, step_id, attempt]).decode()))


def _shown(text: bytes) -> str:
    """The start of a JSON text, which workers write into their log."""
    start = text[: 4 * _LONGEST_REPR].decode("utf-8", "ignore")
    return start if len(start) <= _LONGEST_REPR else f"{start[: _LONGEST_REPR - 3]}..."
