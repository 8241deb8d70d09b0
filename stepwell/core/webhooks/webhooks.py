"""A webhook's rule, and the events that it creates from requests.

If an expression of the rule has no value, or a value that an event cannot have, there is no event. The response to the
sender then contains the field and the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stepwell.core.cel.expressions import Bindings, Scope
from stepwell.core.cel.json_fields import fields_with_json
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.rules.event_rule import Defaults, EventRule
from stepwell.core.webhooks.challenges import Challenge
from stepwell.core.webhooks.senders import verify_of
from stepwell.core.webhooks.signatures import Verify

Json = dict[str, Any]


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

    `reading`: the format of the body, if the rule sets it. `fields_with_json`: the fields of a form that are parsed as
    JSON, because the rule reads fields in them.
    """

    name: str
    of_event: EventRule
    verify: Verify | None
    reading: str = ""
    challenge: Challenge | None = None
    needs_body: bool = False
    fields_with_json: frozenset[str] = frozenset()

    @classmethod
    def of(cls, raw: Json) -> Rule:
        of_event = EventRule.of(raw, Scope.WEBHOOK, EngineId.WEBHOOK)
        verify = verify_of(raw["verify"]) if "verify" in raw else None
        challenge = Challenge.of(raw["challenge"]) if "challenge" in raw else None
        rule = cls(raw["name"], of_event, verify, raw.get("body", ""), challenge)
        parts = [part for whole in of_event.compiled() for part in (whole, *whole.texts)]
        of_challenge = [part for whole in challenge.compiled() for part in (whole, *whole.texts)] if challenge else []
        names_body = any("body" in expression.variables for expression in parts)
        fields = frozenset(
            field for expression in (*parts, *of_challenge) for field in fields_with_json(expression.tree)
        )
        needs_body = names_body or "data" not in of_event.expressions
        return replace(rule, needs_body=needs_body, fields_with_json=fields)

    @property
    def expressions(self) -> Mapping[str, str]:
        """The expressions of the event's fields, by field."""
        return self.of_event.expressions

    def event_of(self, sent: Sent) -> Json | None:
        """The fields of the event; None if `if` is false. Raises RuleError."""
        return self.of_event.event_fields(sent.bindings(), Defaults(data=sent.body, id=sent.delivery))
