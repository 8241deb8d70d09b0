"""`/v1/runs`: lists, shows, cancels and reruns runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

import orjson
from starlette.requests import Request

from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.paging import PAGING, USER, exclusive_parameter, found, page, paging
from stepwell.api.times import BETWEEN, between
from stepwell.api.v1.rerun import RERUN, read_rerun
from stepwell.api.views import models
from stepwell.api.views.runs import run_text, run_view
from stepwell.core.events.events import Event
from stepwell.core.routing.not_started import CannotStart
from stepwell.core.run.approvals import Links
from stepwell.core.run.resume import CannotResume, Restart
from stepwell.core.run.run import RunStatus
from stepwell.platform import Replayed
from stepwell.reader import Reader, RunQuery


class Control(Protocol):
    """Changes runs. Methods are called from any thread."""

    def cancel(self, run_id: str) -> None: ...

    def rerun(self, run_id: str, restart: Restart | None) -> str | None:
        """Starts a new run of the same event, from the start or from a step.

        Returns the new run's id; None if the function is not live. Raises CannotResume, CannotStart.
        """

    def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> Sequence[Replayed] | None:
        """Runs events on one version of a function; returns None if there is no such version.

        `events` are ids of stored events, or events of another server, which are stored first.
        """


@dataclass(frozen=True, slots=True)
class RunsApi:
    """`links` signs approval links."""

    reader: Reader
    control: Control
    links: Callable[[], Links]

    def list_runs(self, request: Request) -> Any:
        query = request.query_params
        status = query.get("status")
        statuses = {s.name.lower(): s for s in RunStatus}
        if status is not None and status not in statuses:
            raise Problem(400, f"status={status} is not a status; use one of {', '.join(statuses)}")
        if (event_id := exclusive_parameter(request, "event", "limit", "after")) is not None:
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
            raise Problem(409, f"run {run_id} has {status}; only a running run can be cancelled")
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
        except (CannotResume, CannotStart) as reason:
            raise Problem(409, str(reason)) from None
        if new_id is None:
            raise Problem(409, f"function {run['function_id']} is no longer live; push it to rerun a run")
        return self._run(new_id)

    def _run(self, run_id: str) -> models.RunView:
        return run_view(found(self.reader.read_run(run_id), "run", run_id), self.links)


def run_list(reader: Reader, **query: Unpack[RunQuery]) -> Any:
    """A page of runs."""
    return page(reader.read_run_texts(run_text, **query), orjson.Fragment)


_STATUS = Parameter("status", "The current status of the runs", {"enum": [s.name.lower() for s in RunStatus]})

OPERATIONS = (
    Operation("GET", "/v1/runs", "list_runs", "List runs, newest first (without logs)", models.RunList,
              (Parameter("event", "The id of the runs' event"),
               Parameter("function", "The id of the runs' function"), _STATUS, USER,
               Parameter("replay", "The id of the replay that started the runs"), *BETWEEN, *PAGING)),
    Operation("GET", "/v1/runs/{id}", "get_run", "Get a run with steps, attempts and logs", models.RunView),
    Operation("DELETE", "/v1/runs/{id}", "cancel_run", "Cancel a run", models.RunView, errors=(409, 503)),
    Operation("POST", "/v1/runs/{id}/rerun", "rerun_run", "Run the event of a run again, on the live version",
              models.RunView, status=201, errors=(409, 503), body=RERUN, needs_body=False),
)  # fmt: skip
