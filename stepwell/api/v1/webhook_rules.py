"""`/v1/webhooks`: the rules by which requests of any sender become events."""

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
    """A rule as it is kept, and when it was last changed (ms)."""

    rule: Rule
    changed_at: int


class Webhooks(Protocol):
    """What the API reads and changes of webhooks; called from any thread."""

    def read_webhooks(self) -> list[KeptRule]:
        """All, by name."""

    def read_webhook(self, name: str) -> KeptRule | None: ...

    def put_webhook(self, rule: Rule) -> bool:
        """Keep a rule that `core.webhooks.definition` has read; False if it is kept already."""

    def remove_webhook(self, name: str) -> bool:
        """False if there is none."""


# --- shapes ----------------------------------------------------------------------------------------------------------


class VerifyView(TypedDict):
    type: str
    secret: NotRequired[str]  # its name
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
    secret: str  # its name


_Conditional = TypedDict("_Conditional", {"if": NotRequired[str]})


class ChallengeView(_Conditional):
    answer: str
    sign: NotRequired[str]
    token: NotRequired[TokenView]


class WebhookView(_Conditional):
    """A rule, as schemas/webhook.schema.json describes it."""

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


_CEL = {"type": ["string", "null"], "description": "CEL over body, headers and query"}
_RULE = {
    "type": "object",
    "required": ["event"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "that of the path, if it is given"},
        "event": {"type": "string", "examples": ["github/{{ headers['x-github-event'] }}"]},
        **dict.fromkeys(("id", "data", "user", "ts", "if"), _CEL),
        "body": {"type": ["string", "null"], "description": "json, form or text, whatever the content type says"},
        "challenge": {"type": ["object", "null"], "description": "answer, if, sign, token: as in the rule's schema"},
        "verify": {"type": ["object", "null"], "description": "type, secret, ...: as in the rule's schema"},
    },
}

OPERATIONS = (
    Operation("GET", "/v1/webhooks", "list_webhooks", "The webhooks", WebhookList),
    Operation("GET", "/v1/webhooks/{id}", "get_webhook", "A webhook, by its name", WebhookView),
    Operation("PUT", "/v1/webhooks/{id}", "put_webhook", "Make or change a webhook", WebhookView, body=_RULE),
    Operation("DELETE", "/v1/webhooks/{id}", "remove_webhook", "Remove a webhook; its last rule", WebhookView),
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
    """The rule in a request. Raises Problem 400 with all that is wrong."""
    from stepwell.core.definition.definition import DefinitionError  # only who makes a rule waits for pydantic
    from stepwell.core.webhooks.definition import parse_webhook

    try:
        return parse_webhook(json_body(body), name)
    except DefinitionError as wrong:
        errors = [{"pointer": json_pointer(problem.pointer), "message": problem.message} for problem in wrong.problems]
        raise Problem(400, "; ".join(error["message"] for error in errors), errors=errors) from None


def _view(kept_rule: KeptRule) -> Mapping[str, Any]:
    return {**kept_rule.rule, "changed_at": time_text(kept_rule.changed_at)}
