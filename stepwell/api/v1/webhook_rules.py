"""`/v1/webhooks`: the rules that turn requests of any sender into events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, Protocol

from starlette.requests import Request
from typing_extensions import TypedDict

from stepwell.api.http.body import json_body
from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation
from stepwell.api.paging import found
from stepwell.api.views.models import Time
from stepwell.core.times import time_text
from stepwell.event_types.validation import json_pointer

Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeptRule:
    """A stored rule, and the time (ms) of the last change."""

    rule: Rule
    changed_at: int


class Webhooks(Protocol):
    """Reads and changes webhook rules. Methods are called from any thread."""

    def read_webhooks(self) -> list[KeptRule]:
        """All rules, ordered by name."""

    def read_webhook(self, name: str) -> KeptRule | None: ...

    def put_webhook(self, rule: Rule) -> bool:
        """Stores a rule that `core.webhooks.definition` has parsed. Returns False if it is stored already."""

    def remove_webhook(self, name: str) -> bool:
        """Removes a rule. Returns False if there is none."""


# --- shapes ----------------------------------------------------------------------------------------------------------


class VerifyView(TypedDict):
    type: str
    secret: NotRequired[str]  # the name of the secret
    header: NotRequired[str]
    algorithm: NotRequired[str]
    encoding: NotRequired[str]
    prefix: NotRequired[str]
    over: NotRequired[str]
    timestamp: NotRequired[str]
    tolerance: NotRequired[str]
    query: NotRequired[str]
    url: NotRequired[str]
    topics: NotRequired[list[str]]
    confirm: NotRequired[bool]


class TokenView(TypedDict):
    query: str
    secret: str  # the name of the secret


_Conditional = TypedDict("_Conditional", {"if": NotRequired[str]})


class ChallengeView(_Conditional):
    answer: str
    sign: NotRequired[str]
    token: NotRequired[TokenView]


class WebhookView(_Conditional):
    """A webhook rule. schemas/webhook.schema.json describes the fields."""

    name: str
    event: str
    id: NotRequired[str]
    data: NotRequired[str]
    user: NotRequired[str]
    ts: NotRequired[str]
    body: NotRequired[Literal["json", "form", "text"]]
    challenge: NotRequired[ChallengeView]
    verify: NotRequired[VerifyView]
    changed_at: Time


class WebhookList(TypedDict):
    data: list[WebhookView]
    next: None


_CEL = {"type": ["string", "null"], "description": "A CEL expression over body, headers and query."}
_RULE = {
    "type": "object",
    "required": ["event"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "If given, the same name as in the path."},
        "event": {"type": "string", "examples": ["github/{{ headers['x-github-event'] }}"]},
        **dict.fromkeys(("id", "data", "user", "ts", "if"), _CEL),
        "body": {"type": ["string", "null"], "description": "json, form or text; overrides the content type."},
        "challenge": {
            "type": ["object", "null"],
            "description": "answer, if, sign, token: see the JSON Schema of webhook rules.",
        },
        "verify": {
            "type": ["object", "null"],
            "description": "type, secret, ...: see the JSON Schema of webhook rules.",
        },
    },
}

OPERATIONS = (
    Operation("GET", "/v1/webhooks", "list_webhooks", "List webhooks", WebhookList),
    Operation("GET", "/v1/webhooks/{id}", "get_webhook", "Get a webhook by name", WebhookView),
    Operation("PUT", "/v1/webhooks/{id}", "put_webhook", "Create or update a webhook", WebhookView, body=_RULE),
    Operation(
        "DELETE", "/v1/webhooks/{id}", "remove_webhook", "Remove a webhook, and get the removed rule", WebhookView
    ),
)


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WebhooksApi:
    webhooks: Webhooks

    def list_webhooks(self, request: Request) -> Any:
        return {"data": [_view(webhook) for webhook in self.webhooks.read_webhooks()], "next": None}

    def get_webhook(self, request: Request) -> Any:
        return _view(self._found(request))

    def put_webhook(self, request: Request) -> Any:
        self.webhooks.put_webhook(read_rule(request.state.body, request.path_params["id"]))
        return _view(self._found(request))

    def remove_webhook(self, request: Request) -> Any:
        kept_rule = self._found(request)
        self.webhooks.remove_webhook(request.path_params["id"])
        return _view(kept_rule)

    def _found(self, request: Request) -> KeptRule:
        name = request.path_params["id"]
        kept_rule: KeptRule = found(self.webhooks.read_webhook(name), "webhook", name)
        return kept_rule


def read_rule(body: bytes, name: str) -> Rule:
    """Parses the rule in a request. Raises Problem 400 with all errors."""
    from stepwell.core.definition.definition import DefinitionError  # imported late: it imports pydantic
    from stepwell.core.webhooks.definition import parse_webhook

    try:
        return parse_webhook(json_body(body), name)
    except DefinitionError as wrong:
        errors = [{"pointer": json_pointer(problem.pointer), "message": problem.message} for problem in wrong.problems]
        raise Problem(400, "; ".join(error["message"] for error in errors), errors=errors) from None


def _view(kept_rule: KeptRule) -> Mapping[str, Any]:
    return {**kept_rule.rule, "changed_at": time_text(kept_rule.changed_at)}
