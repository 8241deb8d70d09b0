"""Sources and quarantined records: what a platform reads, the models of the answers, and how one becomes the other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NotRequired

from typing_extensions import TypedDict

from stepwell.api.views.models import Time
from stepwell.core.sources.records import Record
from stepwell.core.times import time_text

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """The lag of one partition, such as `orders/0`."""

    partition: str
    records: int | None
    seconds: float | None


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
    lag_partitions: Sequence[PartitionLag] = ()
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


class PartitionLagView(TypedDict):
    partition: str  # as in a replay: topic/partition
    records: int | None
    seconds: float | None


class LagView(TypedDict):
    """Records that are not accepted yet, and the age of the oldest of them. Null while it is not known, and while the
    source is paused or failing."""

    records: int | None
    seconds: float | None
    partitions: list[PartitionLagView]  # of Kafka


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


def source_view(source: SourceDetail) -> Json:
    return {
        "name": source.definition["name"],
        "type": source.definition["type"],
        "state": source.state,
        "error": source.error or None,
        "next_try_at": _time(source.next_try_at),
        "lag": {
            "records": source.lag_records,
            "seconds": source.lag_seconds,
            "partitions": [asdict(lag) for lag in source.lag_partitions],
        },
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


def record_summary(item: QuarantinedRecord) -> Json:
    return {
        "id": item.number,
        "record": item.record.id,
        "kind": item.kind,
        "field": item.field or None,
        "why": item.why,
        "at": time_text(item.at),
        "size": len(item.record.body or b""),
    }


def record_view(item: QuarantinedRecord) -> Json:
    record = item.record
    fields = {**record_summary(item), "headers": dict(record.headers), "place": dict(record.place)}
    if record.body is None:
        return {**fields, "body": None}
    try:
        return {**fields, "body": record.body.decode()}
    except UnicodeDecodeError:
        return {**fields, "base64": base64.b64encode(record.body).decode()}
