"""Creates an event from a webhook request by a stored rule.

If an expression of the rule has no value, or a value that an event cannot have, there is no event. The response to the
sender then contains the field and the reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from stepwell.core.cel.expressions import Bindings, Expression, Scope, compile_expression, compile_value
from stepwell.core.cel.json_fields import fields_with_json
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.webhooks.challenges import Challenge
from stepwell.core.webhooks.senders import verify_of
from stepwell.core.webhooks.signatures import Verify

EXPRESSIONS = ("id", "data", "user", "ts", "if")
MAX_EVENT = 2048  # characters of a rule's `event`
_LONGEST_ID = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Json = dict[str, Any]


class RuleError(Exception):
    """A rule cannot create an event from a request. `field`: in the rule; `expression`: of the field; `why`: the
    reason."""

    def __init__(self, field: str, expression: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field, self.expression, self.why = field, expression, why


@dataclass(frozen=True, slots=True)
class Sent:
    """A webhook request. `body` is JSON data. Header names are in lower case. `delivery`: the sender's id for this
    delivery, if there is one."""

    body: Any
    headers: Mapping[str, str]
    query: Mapping[str, Any]
    delivery: str | None = None

    def bindings(self) -> Bindings:
        return Bindings.of_request(self.body, dict(self.headers), dict(self.query))


@dataclass(frozen=True, slots=True)
class Rule:
    """A stored rule, from the plain data that `core.webhooks.definition` has checked.

    `event`: texts, and between them the expressions in {{ }}. `reading`: the format of the body, if the rule sets it.
    `fields_with_json`: the fields of a form that are parsed as JSON, because the rule reads fields in them.
    """

    name: str
    event: tuple[str, ...]
    expressions: Mapping[str, str]  # by field
    verify: Verify | None
    reading: str = ""
    challenge: Challenge | None = None
    needs_body: bool = False
    fields_with_json: frozenset[str] = frozenset()

    @classmethod
    def of(cls, raw: Json) -> Rule:
        expressions = {field: raw[field] for field in EXPRESSIONS if field in raw}
        verify = verify_of(raw["verify"]) if "verify" in raw else None
        challenge = Challenge.of(raw["challenge"]) if "challenge" in raw else None
        rule = cls(raw["name"], template(raw["event"]), expressions, verify, raw.get("body", ""), challenge)
        of_event = [part for whole in rule._compiled() for part in (whole, *whole.texts)]
        of_challenge = [part for whole in challenge.compiled() for part in (whole, *whole.texts)] if challenge else []
        names_body = any("body" in expression.variables for expression in of_event)
        fields = frozenset(
            field for expression in (*of_event, *of_challenge) for field in fields_with_json(expression.tree)
        )
        return replace(rule, needs_body=names_body or "data" not in expressions, fields_with_json=fields)

    def _compiled(self) -> Iterator[Expression]:
        for source in self.event[1::2]:
            yield compile_value(source, Scope.WEBHOOK)
        for field, source in self.expressions.items():
            yield (compile_expression if field == "if" else compile_value)(source, Scope.WEBHOOK)

    def event_of(self, sent: Sent) -> Json | None:
        """The fields of the event; None if `if` is false. Raises RuleError."""
        bindings = sent.bindings()
        if not self._wants(bindings):
            return None
        fields: Json = {"name": self._name(bindings), "data": self._data(sent, bindings)}
        values = {"user": self._user(bindings), "ts": self._ms(bindings), "id": self._id(sent, bindings)}
        return fields | {field: value for field, value in values.items() if value is not None}

    def _wants(self, bindings: Bindings) -> bool:
        source = self.expressions.get("if")
        if source is None:
            return True
        answer = compile_expression(source, Scope.WEBHOOK).evaluate(bindings)
        if answer.problem is not None:
            raise self._wrong("if", answer.problem)
        return answer.holds

    def _name(self, bindings: Bindings) -> str:
        parts = list(self.event)
        for i in range(1, len(parts), 2):
            found = compile_value(parts[i], Scope.WEBHOOK).value(bindings)
            if found.problem is not None:
                raise RuleError("event", parts[i], found.problem)
            if isinstance(found.value, bool) or not isinstance(found.value, str | int):
                why = f"the value is {_kind(found.value)}, not a text or a whole number"
                raise RuleError("event", parts[i], why)
            parts[i] = str(found.value)
        return "".join(parts)

    def _data(self, sent: Sent, bindings: Bindings) -> Json:
        data = self._value("data", bindings) if "data" in self.expressions else sent.body
        if data is None:
            return {}
        return data if isinstance(data, dict) else {"value": data}

    def _id(self, sent: Sent, bindings: Bindings) -> str | None:
        value = self._value("id", bindings)
        if value is None:
            value = sent.delivery
        elif isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong("id", f"the value is {_kind(value)}, not a text or a whole number")
        return None if value in (None, "") else event_id(self.name, str(value))

    def _user(self, bindings: Bindings) -> Json | None:
        value = self._value("user", bindings)
        if value is None or isinstance(value, dict):
            return value
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong("user", f"the value is {_kind(value)}, not an object or the text of an external_id")
        return {"external_id": value}

    def _ms(self, bindings: Bindings) -> int | None:
        """The event's time in milliseconds since the epoch, which the rule gives as a number or as RFC 3339."""
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
        found = compile_value(source, Scope.WEBHOOK).value(bindings)
        if found.problem is not None:
            raise self._wrong(field, found.problem)
        return found.value


def template(text: str) -> tuple[str, ...]:
    """The texts of a template, and between them the expressions in {{ }}. Raises ValueError if one is not closed."""
    parts: list[str] = []
    while True:
        before, opened, rest = text.partition("{{")
        parts.append(before)
        if not opened:
            return tuple(parts)
        end = _end(rest)
        if end is None:
            raise ValueError("a {{ has no }}; write an expression as in github/{{ headers['x-github-event'] }}")
        parts.append(rest[:end].strip())
        text = rest[end + 2 :]


def _end(text: str) -> int | None:
    """The offset of the }} that ends an expression. A }} inside a text or at the end of nested maps does not count."""
    quote, depth = "", 0
    for i, character in enumerate(text):
        if quote:
            if character == quote and text[i - 1] != "\\":
                quote = ""
        elif character in "'\"":
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                return i if text[i + 1 : i + 2] == "}" else None
            depth -= 1
    return None


def event_id(webhook: str, text: str) -> str:
    """The id of a webhook's event. It differs from the ids of other webhooks and of other senders."""
    plain = f"{EngineId.WEBHOOK}{webhook}:{text}"
    if len(plain) <= _LONGEST_ID and not _CONTROL.search(plain):
        return plain
    return f"{EngineId.WEBHOOK}{webhook}:sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "true or false" if isinstance(value, bool) else "a number"
