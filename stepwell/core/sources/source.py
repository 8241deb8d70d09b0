"""Makes events of the records of a source, by the source's rule.

Records that are CloudEvents give the event's fields, unless the rule sets them. Kafka:
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md, AMQP:
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from stepwell.core import exact_json
from stepwell.core.cel.expressions import Bindings, Scope
from stepwell.core.cel.json_fields import read_json
from stepwell.core.events.cloudevents import MEDIA_TYPE, binary_event, structured_event
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.envelope import MAX_EVENT_BYTES, InvalidEnvelope, new_event
from stepwell.core.events.events import Event
from stepwell.core.events.request import MAX_BODY_BYTES, BadRequest
from stepwell.core.rules.event_rule import Defaults, EventRule, RuleError
from stepwell.core.sources.plain_rule import PlainRule
from stepwell.core.sources.records import CLOUDEVENT_PREFIXES, Record

Json = dict[str, Any]


class Kind(StrEnum):
    """Why a record makes no event."""

    UNREADABLE = "unreadable"  # not JSON, not UTF-8, a wrong CloudEvent
    TOO_LARGE = "too_large"
    RULE = "rule"  # an expression has no value, or a value that an event cannot have
    REFUSED = "refused"  # the event does not match the schema of its type


class NoEvent(Exception):
    """A record makes no event. `field`: of the rule, if it is about one; `why`: the reason."""

    def __init__(self, kind: Kind, why: str, field: str = "") -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.kind, self.field, self.why = kind, field, why


@dataclass(frozen=True, slots=True)
class SourceRule:
    """The stored rule of a source, from the plain data that `core.sources.definition` has checked."""

    name: str
    of_event: EventRule
    reading: str  # json, text, base64
    needs_body: bool
    plain: PlainRule | None  # the short path

    @classmethod
    def of(cls, raw: Json) -> SourceRule:
        rule = EventRule.of(raw, Scope.RECORD, EngineId.SOURCE)
        parts = [part for whole in rule.compiled() for part in (whole, *whole.texts)]
        names_body = any("body" in expression.variables for expression in parts)
        reading = raw.get("body", "json")
        return cls(raw["name"], rule, reading, names_body, PlainRule.of(rule, reading))

    def event_of(self, record: Record, now: int, replay: str = "") -> Event | None:
        """The event of a record; None if `if` is false. Raises NoEvent.

        `replay`: makes the event's id differ from that of the event that the record has made before.
        """
        if self.plain is not None and (event := self.plain.event_of(record, now, replay)) is not None:
            return event
        if record.problem:
            raise NoEvent(Kind.UNREADABLE, record.problem)
        if record.body is not None and len(record.body) > MAX_BODY_BYTES:
            raise NoEvent(Kind.TOO_LARGE, f"the record has more than {MAX_BODY_BYTES:,} bytes")
        cloudevent = self._cloudevent(record)
        if cloudevent is None and not self.of_event.names_event:
            raise NoEvent(Kind.UNREADABLE, "the record is not a CloudEvent, and the source has no `event`", "event")
        is_default = "data" not in self.of_event.expressions and cloudevent is None
        body = self._body(record) if self.needs_body or is_default else None
        bindings = Bindings.of_record(body, dict(record.headers), record.place)
        defaults = _defaults(record, body, cloudevent, replay)
        try:
            fields = self.of_event.event_fields(bindings, defaults)
        except RuleError as error:
            expression = f" `{error.expression}`" if error.expression else ""
            raise NoEvent(Kind.RULE, f"{error.why}{expression}", error.field) from None
        return None if fields is None else _event(fields, now)

    def _cloudevent(self, record: Record) -> Json | None:
        media_type = record.headers.get("content-type", "")
        kind = media_type.partition(";")[0].strip().lower()
        try:
            if kind.startswith(MEDIA_TYPE):
                return structured_event(kind, record.body or b"")
            attributes = _attributes(record.headers)
            return binary_event(attributes, media_type, record.body or b"") if attributes else None
        except BadRequest as error:
            raise NoEvent(Kind.UNREADABLE, f"not a valid CloudEvent: {error.errors[0].message}") from None

    def _body(self, record: Record) -> Any:
        if not record.body:
            return None
        if self.reading == "base64":
            return base64.b64encode(record.body).decode()
        try:
            text = record.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NoEvent(Kind.UNREADABLE, "the body is not UTF-8; `body: base64` reads any bytes") from None
        if self.reading == "text":
            return text
        try:
            return read_json(text)
        except exact_json.Unusable as error:
            raise NoEvent(Kind.UNREADABLE, f"the JSON body cannot be stored exactly: {error}") from None
        except ValueError as error:
            raise NoEvent(Kind.UNREADABLE, f"the body is not JSON: {error}; `body: text` reads any text") from None


def _attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes of a CloudEvent in binary mode; none if the headers have no `specversion`."""
    for prefix in CLOUDEVENT_PREFIXES:
        if f"{prefix}specversion" in headers:
            return {name[len(prefix) :]: value for name, value in headers.items() if name.startswith(prefix)}
    return {}


def _defaults(record: Record, body: Any, cloudevent: Json | None, replay: str) -> Defaults:
    suffix = f"/replay/{replay}" if replay else ""
    if cloudevent is None:
        return Defaults(data=body, id=record.id + suffix, ts=record.at)
    return Defaults(
        cloudevent["name"],
        cloudevent["data"],
        cloudevent["id"] + suffix,
        cloudevent.get("user"),
        cloudevent.get("ts", record.at),
        cloudevent.get("v"),
    )


def _event(fields: Json, now: int) -> Event:
    """The event, with the same checks as `POST /e`."""
    try:
        return new_event(fields, now, _missing_id, (EngineId.SOURCE,), False)
    except InvalidEnvelope as refused:
        pointer, message = refused.problems[0]
        if refused.status == 413:
            why = f"the event would have more than {MAX_EVENT_BYTES:,} bytes; select less in `data`"
            raise NoEvent(Kind.TOO_LARGE, why) from None
        field = pointer.split("/")[1] if pointer else "data"
        raise NoEvent(Kind.RULE, message, "event" if field == "name" else field) from None


def _missing_id() -> str:
    raise NoEvent(Kind.RULE, "the value is empty; without `id`, the id is made of the record's place", "id")
