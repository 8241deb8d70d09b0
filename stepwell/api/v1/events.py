"""`/v1/events`: accepted events, and the runs that they started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from stepwell.api.openapi import Operation, Parameter
from stepwell.api.paging import PAGING, USER, exclusive_parameter, found, page, paging
from stepwell.api.times import BETWEEN, between
from stepwell.api.v1.runs import run_list
from stepwell.api.views import models
from stepwell.api.views.runs import event_view
from stepwell.core.run.approvals import Links
from stepwell.reader import EventDetail, Page, Reader


@dataclass(frozen=True, slots=True)
class EventsApi:
    """`links` signs the approval links that some events contain."""

    reader: Reader
    links: Callable[[], Links]

    def list_events(self, request: Request) -> Any:
        query = request.query_params
        if (event_id := exclusive_parameter(request, "id")) is not None:
            event = self.reader.read_event(event_id)
            return page(Page([] if event is None else [event], None), self._event_view)
        events = self.reader.read_events(
            name=query.get("name"), user=query.get("user"), **between(query), **paging(request)
        )
        return page(events, self._event_view)

    def get_event(self, request: Request) -> Any:
        event_id = request.path_params["id"]
        return self._event_view(found(self.reader.read_event(event_id), "event", event_id))

    def _event_view(self, detail: EventDetail) -> Any:
        return event_view(detail, self.links)

    def list_event_runs(self, request: Request) -> Any:
        event_id = request.path_params["id"]
        found(self.reader.read_event(event_id), "event", event_id)
        return run_list(self.reader, event=event_id, **paging(request))


OPERATIONS = (
    Operation("GET", "/v1/events", "list_events", "List events, newest first", models.EventList,
              (Parameter("id", "The id of the event"), Parameter("name", "The name of the events"), USER,
               *BETWEEN, *PAGING)),
    Operation("GET", "/v1/events/{id}/runs", "list_event_runs", "List the runs that an event started", models.RunList,
              PAGING),
    Operation("GET", "/v1/events/{id}", "get_event", "Get an event, and the functions that it did not start",
              models.EventView),
)  # fmt: skip
