"""`/v1/functions`: live functions, and replays of events on one function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation
from stepwell.api.paging import PAGING, found, page, paging
from stepwell.api.v1.replay import REPLAY, read_replay, replay_view
from stepwell.api.v1.runs import Control
from stepwell.api.views import models
from stepwell.api.views.runs import function_view
from stepwell.reader import Page, Reader


@dataclass(frozen=True, slots=True)
class FunctionsApi:
    reader: Reader
    control: Control

    def list_functions(self, request: Request) -> Any:
        functions, bounds = self.reader.read_functions(), paging(request)
        start = bounds["before"] or 0
        end = start + bounds["limit"]
        return page(Page(functions[start:end], end if end < len(functions) else None), function_view)

    def get_function(self, request: Request) -> Any:
        function_id = request.path_params["id"]
        return function_view(found(self.reader.read_function(function_id), "function", function_id))

    def replay_events(self, request: Request) -> Any:
        function_id = request.path_params["id"]
        replay_request = read_replay(request.state.body)
        function = found(self.reader.read_function(function_id), "function", function_id)
        version = replay_request.version or function.version
        if function.routing.is_paused:
            raise Problem(409, f"function {function_id} is paused; `stepwell resume {function_id}` resumes it")
        if version is None:
            raise Problem(409, f"function {function_id} is not live; name a version, or make one live")
        replayed = self.control.replay(function_id, version, replay_request.events, replay_request.replay)
        if replayed is None:
            known = ", ".join(str(version.number) for version in function.versions)
            raise Problem(409, f"function {function_id} has no version {version}; it has {known}")
        return replay_view(replay_request.replay, function_id, version, replayed)


OPERATIONS = (
    Operation("GET", "/v1/functions", "list_functions", "List live functions", models.FunctionList, PAGING),
    Operation("GET", "/v1/functions/{id}", "get_function", "Get a function with all versions", models.FunctionView),
    Operation("POST", "/v1/functions/{id}/replay", "replay_events", "Run stored events again, on this function only",
              models.ReplayView, errors=(409, 503), body=REPLAY),
)  # fmt: skip
