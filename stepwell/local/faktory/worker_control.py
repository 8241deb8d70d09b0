"""The connected workers, for the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from stepwell.api.v1.workers import WorkerView
from stepwell.core.times import time_text
from stepwell.local.faktory.workers import Worker, Workers

_ANSWER_S = 30.0

T = TypeVar("T")


class WorkerControl:
    """Implements `api.v1.workers.Workers`, for endpoints that run in threads."""

    def __init__(self, workers: Workers) -> None:
        self._workers, self._loop = workers, asyncio.get_running_loop()

    def read_workers(self) -> list[WorkerView]:
        return self._call(lambda: [_view(worker) for worker in self._workers.all()])

    def order_worker(self, worker_id: str, order: str) -> WorkerView | None:
        def tell() -> WorkerView | None:
            worker = self._workers.order(worker_id, order)
            return None if worker is None else _view(worker)

        return self._call(tell)

    def _call(self, read: Callable[[], T]) -> T:
        """Calls a function on the event loop, whose thread alone changes the workers."""

        async def call() -> T:
            return read()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_ANSWER_S)


def _view(worker: Worker) -> WorkerView:
    state: Any = worker.order or "running"
    return {
        "id": worker.wid,
        "hostname": worker.hostname,
        "pid": worker.pid,
        "labels": list(worker.labels),
        "queues": list(worker.queues),
        "state": state,
        "connections": worker.connections,
        "memory_kb": worker.rss_kb,
        "connected_at": time_text(worker.connected_at),
        "beat_at": time_text(worker.beat_at),
    }
