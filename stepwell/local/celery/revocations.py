"""Receives what callers revoke, which Celery's remote control broadcasts to all workers.

Brokers without broadcasts, such as SQS, have no remote control.
https://docs.celeryq.dev/en/stable/userguide/workers.html#revoke-revoking-tasks
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from stepwell.extras import load
from stepwell.local.celery.addresses import shown, without_secrets
from stepwell.local.celery.connections import connect

_WAIT_S = 0.5
_PAUSE_S = 5.0
_MOST = 10_000  # ids that wait to be taken
log = logging.getLogger("stepwell.celery")


class Revocations:
    """A thread that listens. `take` returns the ids that were revoked since the last call."""

    def __init__(self, broker: str, name: str) -> None:
        """`name` distinguishes this listener from others."""
        self._broker, self._name = broker, name
        self._ids: deque[str] = deque(maxlen=_MOST)
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="stepwell-celery-revocations", daemon=True)
        self._thread.start()

    def take(self) -> list[str]:
        found = []
        while self._ids:
            found.append(self._ids.popleft())
        return found

    def close(self) -> None:
        self._is_closed = True

    def _work(self) -> None:
        while not self._is_closed:
            try:
                if not self._listen():
                    return
            except Exception as error:
                reason = without_secrets(str(error) or type(error).__name__, self._broker)
                log.warning("revoked tasks cannot be received from %s: %s", shown(self._broker), reason)
                time.sleep(_PAUSE_S)

    def _listen(self) -> bool:
        """Listens until it is closed. Returns False if the broker has no remote control."""
        load("kombu")
        from kombu.pidbox import Mailbox

        connection = connect(self._broker)
        try:
            if "fanout" not in connection.transport.implements.exchange_type:
                return False
            mailbox = Mailbox("celery", type="fanout", accept=["json"])(connection)
            node = mailbox.Node(f"{self._name}@{socket.gethostname()}", channel=connection.channel())
            with node.listen(callback=self._receive):
                while not self._is_closed:
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=_WAIT_S)
            return True
        finally:
            with suppress(Exception):
                connection.release()

    def _receive(self, body: Any, message: Any = None) -> None:
        if not isinstance(body, dict) or body.get("method") != "revoke" or body.get("destination"):
            return
        arguments = body.get("arguments")
        ids = arguments.get("task_id") if isinstance(arguments, dict) else None
        self._ids.extend(item for item in (ids if isinstance(ids, list) else [ids]) if isinstance(item, str))
