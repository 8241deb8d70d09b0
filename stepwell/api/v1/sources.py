"""`/v1/sources`: queues and topics of other systems whose records become events, and the quarantine of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from stepwell.api.http.body import check_object, json_body
from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation
from stepwell.api.paging import PAGING, found, page, paging
from stepwell.api.views.sources import (
    QuarantinedRecord,
    RecordList,
    RecordView,
    RetriedView,
    SourceDetail,
    SourceList,
    SourceView,
    record_summary,
    record_view,
    source_view,
)
from stepwell.event_types.validation import json_pointer
from stepwell.reader import Page

_MOST = 1000  # records of a request

Json = dict[str, Any]


class NotPossible(Exception):
    """The source cannot do this. The message has the reason."""


class Sources(Protocol):
    """Reads and changes sources. Methods are called from any thread."""

    def read_sources(self) -> list[SourceDetail]:
        """All sources, ordered by name."""

    def read_source(self, name: str) -> SourceDetail | None: ...

    def put_source(self, definition: Json) -> None:
        """Stores and starts a source that `core.sources.definition` has parsed. Raises NotPossible if the server lacks
        the library."""

    def remove_source(self, name: str) -> None: ...

    def pause_source(self, name: str) -> None: ...

    def resume_source(self, name: str) -> None: ...

    def replay_source(self, name: str, place: str) -> None:
        """Reads records again. Raises ValueError for a wrong place, NotPossible."""

    def read_quarantine(self, name: str, before: int | None, limit: int) -> Page[QuarantinedRecord]:
        """Records that made no event, newest first."""

    def read_quarantined(self, name: str, number: int) -> QuarantinedRecord | None: ...

    def retry_quarantined(self, name: str, numbers: Sequence[int]) -> list[int]:
        """Makes events of records by the present rule. Returns the numbers of those that have left the quarantine."""

    def discard_quarantined(self, name: str, numbers: Sequence[int]) -> None: ...


_DEFINITION = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"type": "string", "description": "The kind of broker."}},
    "description": "The fields of a source: see the JSON Schema of sources.",
}
_REPLAY = {
    "type": "object",
    "required": ["from"],
    "additionalProperties": False,
    "properties": {
        "from": {
            "type": "string",
            "description": "earliest, a time (RFC 3339), how long ago (2h), or a position in the broker's words.",
        }
    },
}
_RECORDS = {
    "type": "object",
    "required": ["ids"],
    "additionalProperties": False,
    "properties": {"ids": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": _MOST}},
}
_OF = "/v1/sources/{id}"

OPERATIONS = (
    Operation("GET", "/v1/sources", "list_sources", "List sources, with state and lag (not on AWS)", SourceList),
    Operation("GET", _OF, "get_source", "Get a source by name", SourceView),
    Operation("PUT", _OF, "put_source", "Create or update a source", SourceView, errors=(409,),
              body=_DEFINITION),
    Operation("DELETE", _OF, "remove_source", "Remove a source and the quarantine of it", SourceView),
    Operation("POST", f"{_OF}/pause", "pause_source", "Pause a source: it reads nothing until resumed", SourceView),
    Operation("POST", f"{_OF}/resume", "resume_source", "Resume a source", SourceView),
    Operation("POST", f"{_OF}/replay", "replay_source", "Read records again, which make new events", SourceView,
              errors=(409,), body=_REPLAY),
    Operation("GET", f"{_OF}/quarantine", "list_quarantine", "List the records that made no event, newest first",
              RecordList, PAGING),
    Operation("GET", f"{_OF}/quarantine/{{record}}", "get_quarantined", "Get a quarantined record", RecordView),
    Operation("POST", f"{_OF}/quarantine/retry", "retry_quarantined", "Make events of quarantined records again",
              RetriedView, body=_RECORDS),
    Operation("POST", f"{_OF}/quarantine/discard", "discard_quarantined", "Delete quarantined records", SourceView,
              body=_RECORDS),
)  # fmt: skip


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourcesApi:
    sources: Sources

    def list_sources(self, request: Request) -> Any:
        return {"data": [source_view(source) for source in self.sources.read_sources()], "next": None}

    def get_source(self, request: Request) -> Any:
        return source_view(self._found(request))

    def put_source(self, request: Request) -> Any:
        definition = read_definition(request.state.body, request.path_params["id"])
        try:
            self.sources.put_source(definition)
        except NotPossible as reason:
            raise Problem(409, str(reason)) from None
        return source_view(self._found(request))

    def remove_source(self, request: Request) -> Any:
        source = self._found(request)
        self.sources.remove_source(request.path_params["id"])
        return source_view(source)

    def pause_source(self, request: Request) -> Any:
        self.sources.pause_source(self._name(request))
        return source_view(self._found(request))

    def resume_source(self, request: Request) -> Any:
        self.sources.resume_source(self._name(request))
        return source_view(self._found(request))

    def replay_source(self, request: Request) -> Any:
        body = json_body(request.state.body)
        check_object(body, _REPLAY)
        try:
            self.sources.replay_source(self._name(request), body["from"])
        except ValueError as error:
            raise Problem(400, str(error), errors=[{"pointer": "/from", "message": str(error)}]) from None
        except NotPossible as reason:
            raise Problem(409, str(reason)) from None
        return source_view(self._found(request))

    def list_quarantine(self, request: Request) -> Any:
        return page(self.sources.read_quarantine(self._name(request), **paging(request)), record_summary)

    def get_quarantined(self, request: Request) -> Any:
        text = request.path_params["record"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
        item: QuarantinedRecord = found(self.sources.read_quarantined(self._name(request), number), "record", text)
        return record_view(item)

    def retry_quarantined(self, request: Request) -> Any:
        numbers = self._numbers(request)
        accepted = self.sources.retry_quarantined(self._name(request), numbers)
        return {"accepted": accepted, "left": [number for number in numbers if number not in set(accepted)]}

    def discard_quarantined(self, request: Request) -> Any:
        self.sources.discard_quarantined(self._name(request), self._numbers(request))
        return source_view(self._found(request))

    def _numbers(self, request: Request) -> list[int]:
        """The ids of records in the body. Raises Problem 404 if one is not in the quarantine: then nothing is done."""
        body = json_body(request.state.body)
        check_object(body, _RECORDS)
        name, numbers = self._name(request), list(body["ids"])
        missing = [str(n) for n in numbers if self.sources.read_quarantined(name, n) is None]
        if missing:
            raise Problem(404, f"the quarantine of {name} has no record {', '.join(missing)}")
        return numbers

    def _name(self, request: Request) -> str:
        """The name of a source that exists. Raises Problem 404."""
        return str(self._found(request).definition["name"])

    def _found(self, request: Request) -> SourceDetail:
        name = request.path_params["id"]
        source: SourceDetail = found(self.sources.read_source(name), "source", name)
        return source


def read_definition(body: bytes, name: str) -> Json:
    """Parses the source in a request. Raises Problem 400 with all errors."""
    from stepwell.core.definition.definition import DefinitionError  # imported late: it imports pydantic
    from stepwell.core.sources.definition import parse_source

    try:
        return parse_source(json_body(body), name)
    except DefinitionError as wrong:
        errors = [{"pointer": json_pointer(problem.pointer), "message": problem.message} for problem in wrong.problems]
        raise Problem(400, "; ".join(error["message"] for error in errors), errors=errors) from None
