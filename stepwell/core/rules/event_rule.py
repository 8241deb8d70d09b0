"""The part of a rule that makes an event: a template for the name, and CEL expressions for the other fields.

If an expression has no value, or a value that an event cannot have, there is no event.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepwell.core.cel.expressions import Bindings, Expression, Scope, compile_expression, compile_value
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.rules.template import template

EXPRESSIONS = ("id", "data", "user", "ts", "if")
_LONGEST_ID = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Json = dict[str, Any]


class RuleError(Exception):
    """A rule cannot create an event. `field`: in the rule; `expression`: of the field; `why`: the reason."""

    def __init__(self, field: str, expression: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field, self.expression, self.why = field, expression, why


@dataclass(frozen=True, slots=True)
class Defaults:
    """The fields of an event that a rule does not set. `id`: the text that the event's id is made of, None for an id
    that is generated."""

    name: str = ""
    data: Any = None
    id: str | None = None
    user: Json | None = None
    ts: int | None = None
    v: str | None = None


@dataclass(frozen=True, slots=True)
class EventRule:
    """The expressions of a rule. `event`: texts, and between them the expressions in {{ }}; without it, the name is the
    default's. `prefix` and `owner` begin the ids of the events."""

    event: tuple[str, ...]
    expressions: Mapping[str, str]  # by field
    scope: Scope
    prefix: EngineId
    owner: str  # the name of the webhook or the source

    @classmethod
    def of(cls, raw: Json, scope: Scope, prefix: EngineId) -> EventRule:
        """From the plain data of a rule that has been checked."""
        expressions = {field: raw[field] for field in EXPRESSIONS if field in raw}
        return cls(template(raw.get("event", "")), expressions, scope, prefix, raw["name"])

    @property
    def names_event(self) -> bool:
        """Whether the rule sets the event's name."""
        return self.event != ("",)

    def compiled(self) -> Iterator[Expression]:
        for source in self.event[1::2]:
            yield compile_value(source, self.scope)
        for field, source in self.expressions.items():
            yield (compile_expression if field == "if" else compile_value)(source, self.scope)

    def event_fields(self, bindings: Bindings, defaults: Defaults) -> Json | None:
        """The fields of the event; None if `if` is false. Raises RuleError."""
        if not self._wants(bindings):
            return None
        fields: Json = {
            "name": self._name(bindings) if self.names_event else defaults.name,
            "data": self._data(bindings, defaults),
        }
        values = {
            "user": self._user(bindings, defaults),
            "ts": self._ms(bindings, defaults),
            "id": self._id(bindings, defaults),
            "v": defaults.v,
        }
        return fields | {field: value for field, value in values.items() if value is not None}

    def _wants(self, bindings: Bindings) -> bool:
        source = self.expressions.get("if")
        if source is None:
            return True
        answer = compile_expression(source, self.scope).evaluate(bindings)
        if answer.problem is not None:
            raise self._wrong("if", answer.problem)
        return answer.holds

    def _name(self, bindings: Bindings) -> str:
        parts = list(self.event)
        for i in range(1, len(parts), 2):
            found = compile_value(parts[i], self.scope).value(bindings)
            if found.problem is not None:
                raise RuleError("event", parts[i], found.problem)
            if isinstance(found.value, bool) or not isinstance(found.value, str | int):
                why = f"the value is {_kind(found.value)}, not a text or a whole number"
                raise RuleError("event", parts[i], why)
            parts[i] = str(found.value)
        return "".join(parts)

    def _data(self, bindings: Bindings, defaults: Defaults) -> Json:
        data = self._value("data", bindings) if "data" in self.expressions else defaults.data
        if data is None:
            return {}
        return data if isinstance(data, dict) else {"value": data}

    def _id(self, bindings: Bindings, defaults: Defaults) -> str | None:
        value = self._value("id", bindings)
        if value is None:
            value = defaults.id
        elif isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong("id", f"the value is {_kind(value)}, not a text or a whole number")
        return None if value in (None, "") else made_id(self.prefix, self.owner, str(value))

    def _user(self, bindings: Bindings, defaults: Defaults) -> Json | None:
        if "user" not in self.expressions:
            return defaults.user
        value = self._value("user", bindings)
        if value is None or isinstance(value, dict):
            return value
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong("user", f"the value is {_kind(value)}, not an object or the text of an external_id")
        return {"external_id": value}

    def _ms(self, bindings: Bindings, defaults: Defaults) -> int | None:
        """The event's time in milliseconds since the epoch, which the rule gives as a number or as RFC 3339."""
        if "ts" not in self.expressions:
            return defaults.ts
        value = self._value("ts", bindings)
        if value is None or type(value) is int:
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            moment = None
        if moment is None or moment.tzinfo is None:
            why = "the value is not a time: milliseconds since 1970, or a text such as 2026-11-23T10:00:00Z"
            raise self._wrong("ts", why)
        return round(moment.timestamp() * 1000)

    def _wrong(self, field: str, why: str) -> RuleError:
        return RuleError(field, self.expressions[field], why)

    def _value(self, field: str, bindings: Bindings) -> Any:
        """The value of a field's expression; None if the rule does not have the field. Raises RuleError."""
        source = self.expressions.get(field)
        if source is None:
            return None
        found = compile_value(source, self.scope).value(bindings)
        if found.problem is not None:
            raise self._wrong(field, found.problem)
        return found.value


def made_id(prefix: EngineId, owner: str, text: str) -> str:
    """The id of an event that a rule makes. It differs from the ids of other rules and of other senders."""
    plain = f"{prefix}{owner}:{text}"
    if len(plain) <= _LONGEST_ID and not _CONTROL.search(plain):
        return plain
    return f"{prefix}{owner}:sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "true or false" if isinstance(value, bool) else "a number"
