"""`/v1/sources`: queues and topics of other systems whose records become events, and the quarantine of records."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol

from starlette.requests import Request
from typing_extensions import TypedDict

from stepwell.api.http.body import check_object, json_body
from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation
from stepwell.api.paging import PAGING, found, page, paging
from stepwell.api.views.models import Time
from stepwell.core.sources.records import Record
from stepwell.core.times import time_text
from stepwell.event_types.validation import json_pointer
from stepwell.reader import Page

_MOST = 1000  # records of a request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourceDetail:
    """A source and what it does. Times are in ms. The counts are since the server started."""

    definition: Json
    changed_at: int
    state: str
    error: str = ""
    next_try_at: int | None = None
    lag_records: int | None = None
    lag_seconds: float | None = None
    records: int = 0
    events: int = 0
    quarantined: int = 0
    last_record_at: int | None = None
    last_read_at: int | None = None


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """A record that made no event. `number` is the id in the API."""

    number: int
    at: int
    kind: str
    field: str
    why: str
    record: Record


class NotPossible(Exception):
    """The source cannot do this. The message has the reason."""


class Sources(Protocol):
    """Reads and changes sources. Methods are called from any thread."""

    def read_sources(self) -> list[SourceDetail]:
        """All sources, ordered by name."""

    def read_source(self, name: str) -> SourceDetail | None: ...

    def put_source(self, definition: Json) -> None:
        """Stores and starts a source that `core.sources.definition` has parsed."""

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


# --- shapes ----------------------------------------------------------------------------------------------------------


class LagView(TypedDict):
    records: int | None
    seconds: float | None


class SourceView(TypedDict):
    """A source. schemas/source.schema.json describes the fields of `definition`. The counts are since the start."""

    name: str
    type: str
    state: str  # starting, running, failing, paused
    error: str | None  # why it is failing
    next_try_at: Time | None
    lag: LagView
    records: int
    events: int
    quarantined: int
    last_record_at: Time | None
    last_read_at: Time | None
    changed_at: Time
    definition: dict[str, Any]


class SourceList(TypedDict):
    data: list[SourceView]
    next: None


class RecordView(TypedDict):
    """A record that made no event. `body`: its text, or `base64` if it is not UTF-8."""

    id: int
    record: str
    kind: str  # unreadable, too_large, rule, refused
    field: str | None
    why: str
    at: Time
    size: int
    headers: NotRequired[dict[str, str]]
    place: NotRequired[dict[str, Any]]
    body: NotRequired[str | None]
    base64: NotRequired[str]


class RecordList(TypedDict):
    data: list[RecordView]
    next: str | None


class RetriedView(TypedDict):
    accepted: list[int]
    left: list[int]


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
    Operation("PUT", _OF, "put_source", "Create or update a source", SourceView, body=_DEFINITION),
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
        return {"data": [_view(source) for source in self.sources.read_sources()], "next": None}

    def get_source(self, request: Request) -> Any:
        return _view(self._found(request))

    def put_source(self, request: Request) -> Any:
        self.sources.put_source(read_definition(request.state.body, request.path_params["id"]))
        return _view(self._found(request))

    def remove_source(self, request: Request) -> Any:
        source = self._found(request)
        self.sources.remove_source(request.path_params["id"])
        return _view(source)

    def pause_source(self, request: Request) -> Any:
        self.sources.pause_source(self._name(request))
        return _view(self._found(request))

    def resume_source(self, request: Request) -> Any:
        self.sources.resume_source(self._name(request))
        return _view(self._found(request))

    def replay_source(self, request: Request) -> Any:
        body = json_body(request.state.body)
        check_object(body, _REPLAY)
        try:
            self.sources.replay_source(self._name(request), body["from"])
        except ValueError as error:
            raise Problem(400, str(error), errors=[{"pointer": "/from", "message": str(error)}]) from None
        except NotPossible as reason:
            raise Problem(409, str(reason)) from None
        return _view(self._found(request))

    def list_quarantine(self, request: Request) -> Any:
        return page(self.sources.read_quarantine(self._name(request), **paging(request)), _summary)

    def get_quarantined(self, request: Request) -> Any:
        text = request.path_params["record"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
        item: QuarantinedRecord = found(self.sources.read_quarantined(self._name(request), number), "record", text)
        return _whole(item)

    def retry_quarantined(self, request: Request) -> Any:
        numbers = self._numbers(request)
        accepted = self.sources.retry_quarantined(self._name(request), numbers)
        return {"accepted": accepted, "left": [number for number in numbers if number not in set(accepted)]}

    def discard_quarantined(self, request: Request) -> Any:
        self.sources.discard_quarantined(self._name(request), self._numbers(request))
        return _view(self._found(request))

    def _numbers(self, request: Request) -> list[int]:
        body = json_body(request.state.body)
        check_object(body, _RECORDS)
        return list(body["ids"])

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


def _view(source: SourceDetail) -> Json:
    return {
        "name": source.definition["name"],
        "type": source.definition["type"],
        "state": source.state,
        "error": source.error or None,
        "next_try_at": _time(source.next_try_at),
        "lag": {"records": source.lag_records, "seconds": source.lag_seconds},
        "records": source.records,
        "events": source.events,
        "quarantined": source.quarantined,
        "last_record_at": _time(source.last_record_at),
        "last_read_at": _time(source.last_read_at),
        "changed_at": time_text(source.changed_at),
        "definition": {field: value for field, value in source.definition.items() if field not in ("name", "type")},
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else time_text(ms)


def _summary(item: QuarantinedRecord) -> Json:
    return {
        "id": item.number,
        "record": item.record.id,
        "kind": item.kind,
        "field": item.field or None,
        "why": item.why,
        "at": time_text(item.at),
        "size": len(item.record.body or b""),
    }


def _whole(item: QuarantinedRecord) -> Json:
    record = item.record
    fields = {**_summary(item), "headers": dict(record.headers), "place": dict(record.place)}
    if record.body is None:
        return {**fields, "body": None}
    try:
        return {**fields, "body": record.body.decode()}
    except UnicodeDecodeError:
        return {**fields, "base64": base64.b64encode(record.body).decode()}
