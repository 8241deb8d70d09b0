"""The worker processes that are connected, what they say about themselves, and what they are told to do.

A worker may have many connections, and says that it lives with BEAT, every 15 s by default:
https://github.com/contribsys/faktory/blob/main/docs/protocol-specification.md ("Client Lifecycle")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepwell.local.faktory.commands import Beat, Hello

SILENT_S = 60.0  # a worker without connections is forgotten after this time without a BEAT


@dataclass(slots=True)
class Worker:
    """A worker process. Times are in ms since the epoch. `order`: quiet or terminate, which it is told at each BEAT;
    empty while it works."""

    wid: str
    hostname: str
    pid: int
    labels: Sequence[str]
    connected_at: int
    beat_at: int
    queues: Sequence[str] = ()  # of the last FETCH
    order: str = ""
    rss_kb: int = 0
    connections: int = 0


class Workers:
    """The connected workers, by `wid`. `now` returns the time in ms since the epoch."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._workers: dict[str, Worker] = {}

    def connected(self, hello: Hello) -> Worker | None:
        """The worker of a new connection; None if the client is no worker."""
        if hello.wid is None:
            return None
        now = self._now()
        worker = self._workers.get(hello.wid)
        if worker is None:
            worker = Worker(hello.wid, hello.hostname[:256], hello.pid, hello.labels, now, now)
            self._workers[hello.wid] = worker
        worker.connections += 1
        return worker

    def disconnected(self, worker: Worker) -> None:
        worker.connections -= 1

    def beat(self, worker: Worker, beat: Beat) -> str:
        """Notes that the worker lives. Returns the state that it must enter; empty if it may go on."""
        worker.beat_at, worker.rss_kb = self._now(), beat.rss_kb or worker.rss_kb
        return worker.order

    def all(self) -> list[Worker]:
        """The workers that live, in the order in which they came."""
        silent = self._now() - SILENT_S * 1000
        for worker in list(self._workers.values()):
            if not worker.connections and worker.beat_at < silent:
                del self._workers[worker.wid]
        return list(self._workers.values())

    def order(self, wid: str, order: str) -> Worker | None:
        """Tells a worker to become quiet or to terminate. Returns None if it is not connected."""
        worker = next((worker for worker in self.all() if worker.wid == wid), None)
        if worker is not None:
            worker.order = order
        return worker
