"""`/v1/runs`: what was executed, cancel and rerun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

import orjson
from starlette.requests import Request

from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.paging import PAGING, USER, alone, found, page, paging
from stepwell.api.times import BETWEEN, between
from stepwell.api.v1.rerun import RERUN, read_rerun
from stepwell.api.views import models
from stepwell.api.views.runs import run_text, run_view
from stepwell.core.events.events import Event
from stepwell.core.run.approvals import Links
from stepwell.core.run.resume import CannotResume, Restart
from stepwell.core.run.run import RunStatus
from stepwell.platform import Replayed
from stepwell.reader import Reader, RunQuery


class Control(Protocol):
    """What the API can do to runs; called from any thread."""

    def cancel(self, run_id: str) -> None: ...

    def rerun(self, run_id: str, restart: Restart | None) -> str | None:
        """From the start, or from a step. The new run's id; None if the function is not live. Raises CannotResume."""

    def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> Sequence[Replayed] | None:
        """Run stored events, or others that are stored for this, on one version; None if there is no such version."""


@dataclass(frozen=True, slots=True)
class RunsApi:
    """`links`: those by which people decide on approvals."""

    reader: Reader
    control: Control
    links: Callable[[], Links]

    def list_runs(self, request: Request) -> Any:
        query = request.query_params
        status = query.get("status")
        statuses = {s.name.lower(): s for s in RunStatus}
        if status is not None and status not in statuses:
            raise Problem(400, f"status={status} is unknown; it is one of {', '.join(statuses)}")
        if (event_id := alone(request, "event", "limit", "after")) is not None:
            return run_list(self.reader, event=event_id, **paging(request))
        return run_list(
            self.reader,
            function=query.get("function"),
            status=None if status is None else statuses[status],
            user=query.get("user"),
            replay=query.get("replay"),
            **between(query),
            **paging(request),
        )

    def get_run(self, request: Request) -> Any:
        run_id = request.path_params["id"]
        return run_view(found(self.reader.read_run(run_id), "run", run_id), self.links, read=orjson.Fragment)

    def cancel_run(self, request: Request) -> Any:
        run_id = request.path_params["id"]
        status = self._run(run_id)["status"]
        if status == "running":
            self.control.cancel(run_id)
            status = self._run(run_id)["status"]
        if status != "cancelled":
            raise Problem(409, f"run {run_id} has {status}; only a running one can be cancelled")
        return self._run(run_id)

    def rerun_run(self, request: Request) -> Any:
        run_id = request.path_params["id"]
        run = self._run(run_id)
        event = self.reader.read_event(run["event_id"])
        if event is not None and event.event.erased:
            raise Problem(409, f"the event of run {run_id} was erased, so it cannot run again")
        restart = read_rerun(request.state.body)
        try:
            new_id = self.control.rerun(run_id, restart)
        except CannotResume as reason:
            raise Problem(409, str(reason)) from None
        if new_id is None:
            raise Problem(409, f"function {run['function_id']} is not live any more, so its runs cannot run again")
        return self._run(new_id)

    def _run(self, run_id: str) -> models.RunView:
        return run_view(found(self.reader.read_run(run_id), "run", run_id), self.links)


def run_list(reader: Reader, **query: Unpack[RunQuery]) -> Any:
    """A page of runs."""
    return page(reader.read_run_texts(run_text, **query), orjson.Fragment)


_STATUS = Parameter("status", "only runs that are now", {"enum": [s.name.lower() for s in RunStatus]})

OPERATIONS = (
    Operation("GET", "/v1/runs", "list_runs", "Runs, newest first (without logs)", models.RunList,
              (Parameter("event", "only runs of the event with this id"),
               Parameter("function", "only runs of this function"), _STATUS, USER,
               Parameter("replay", "only runs of this replay"), *BETWEEN, *PAGING)),
    Operation("GET", "/v1/runs/{id}", "get_run", "A run with its steps, attempts and logs", models.RunView),
    Operation("DELETE", "/v1/runs/{id}", "cancel_run", "Cancel a run", models.RunView, errors=(409, 503)),
    Operation("POST", "/v1/runs/{id}/rerun", "rerun_run", "Run the same event again on the live version",
              models.RunView, status=201, errors=(409, 503), body=RERUN, needs_body=False),
)  # fmt: skip
