"""`/v1/workers`: the workers of Faktory that are connected to a server on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from starlette.requests import Request
from typing_extensions import TypedDict

from stepwell.api.openapi import Operation
from stepwell.api.paging import found
from stepwell.api.views.models import Time


class WorkerView(TypedDict):
    """A worker process. `state`: what it has been told to do. `queues`: of its last FETCH."""

    id: str
    hostname: str
    pid: int
    labels: list[str]
    queues: list[str]
    state: Literal["running", "quiet", "terminate"]
    connections: int
    memory_kb: int
    connected_at: Time
    beat_at: Time


class WorkerList(TypedDict):
    data: list[WorkerView]
    next: None


class Workers(Protocol):
    """The connected workers. Methods are called from any thread."""

    def read_workers(self) -> Sequence[WorkerView]: ...

    def order_worker(self, worker_id: str, order: str) -> WorkerView | None:
        """Tells a worker at the next heartbeat to become `quiet` or to `terminate`. None if it is not connected."""


class NoWorkers:
    """Implements `Workers` for servers to which workers cannot connect."""

    def read_workers(self) -> Sequence[WorkerView]:
        return ()

    def order_worker(self, worker_id: str, order: str) -> WorkerView | None:
        return None


OPERATIONS = (
    Operation("GET", "/v1/workers", "list_workers", "List the Faktory workers that are connected", WorkerList),
    Operation("POST", "/v1/workers/{id}/quiet", "quiet_worker", "Tell a worker to fetch no more jobs", WorkerView),
    Operation("POST", "/v1/workers/{id}/terminate", "end_worker", "Tell a worker to end within 30 s", WorkerView),
)


@dataclass(frozen=True, slots=True)
class WorkersApi:
    workers: Workers

    def list_workers(self, request: Request) -> WorkerList:
        return {"data": list(self.workers.read_workers()), "next": None}

    def quiet_worker(self, request: Request) -> Any:
        return self._order(request, "quiet")

    def end_worker(self, request: Request) -> Any:
        return self._order(request, "terminate")

    def _order(self, request: Request, order: str) -> Any:
        name = request.path_params["id"]
        return found(self.workers.order_worker(name, order), "worker", name)
