"""Results in any other backend of Celery, such as Memcached: asked for again and again."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from stepwell.local.celery.connections import app_of
from stepwell.local.celery.outcomes import decode
from stepwell.local.celery.waiting import Found, Results

_FIRST_S, _LONGEST_S = 0.1, 2.0
_AT_ONCE = 200


class PolledResults(Results):
    def __init__(self, address: str) -> None:
        super().__init__("results")
        self._address = address
        self._changes: deque[tuple[str, bool]] = deque()
        self._changed = threading.Event()
        self._ids: dict[str, None] = {}  # of the thread

    def _expected(self, task_id: str) -> None:
        self._changes.append((task_id, True))
        self._changed.set()

    def _forgotten(self, task_id: str) -> None:
        self._changes.append((task_id, False))

    def _wake(self) -> None:
        self._changed.set()

    def _work(self) -> None:
        backend: Any = None
        pause = _FIRST_S
        while not self._is_closed:
            self._apply_changes()
            try:
                backend = backend or app_of("memory://", self._address).backend
                began = time.monotonic()
                found = self._look(backend)
                self._succeeded()
                pause = _FIRST_S if found else min(2 * pause, _LONGEST_S)
                pause = max(pause, 2 * (time.monotonic() - began))  # two thirds of the time are the backend's own
            except Exception as error:
                self._failed(error, self._address)
                backend, pause = None, _LONGEST_S
            if self._changed.wait(pause if self._ids else None):
                self._changed.clear()
                pause = _FIRST_S

    def _apply_changes(self) -> None:
        while self._changes:
            task_id, is_expected = self._changes.popleft()
            if is_expected:
                self._ids[task_id] = None
            else:
                self._ids.pop(task_id, None)

    def _look(self, backend: Any) -> bool:
        """Asks for every task that is expected. Returns whether any has ended."""
        has_found = False
        ids = list(self._ids)
        for start in range(0, len(ids), _AT_ONCE):
            found = [(task_id, meta) for task_id, meta in _metas(backend, ids[start : start + _AT_ONCE])]
            has_found = has_found or bool(found)
            self._deliver(found)
        return has_found


def _metas(backend: Any, ids: list[str]) -> list[Found]:
    """What the backend knows about these tasks. A backend of keys and values gives the stored texts."""
    if not hasattr(backend, "get_key_for_task"):
        return [(task_id, backend.get_task_meta(task_id, cache=False)) for task_id in ids]
    texts = [backend.get(backend.get_key_for_task(task_id)) for task_id in ids]
    return [(task_id, decode(text)) for task_id, text in zip(ids, texts, strict=True) if text]
