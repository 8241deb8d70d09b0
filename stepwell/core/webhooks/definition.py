"""The models of a webhook rule, and the checks of one.

As with function definitions, plain data is stored and used. Reading it back (`core.webhooks.webhooks`) needs no
pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from stepwell.core.definition import field_validators
from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.definition import DefinitionError
from stepwell.core.definition.fields import Cel, Duration, HeaderName, Id, Model, Variable
from stepwell.core.definition.problems import Pointer, Problem, nearest
from stepwell.core.definition.suggestions import problems_with_fixes
from stepwell.core.rules.template import MAX_EVENT
from stepwell.core.webhooks.checks import ONLY, contradictions

_TOPIC = r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:([A-Za-z0-9_.-]+\*?|\*)$"
_TIMESTAMP = rf"^[A-Za-z0-9_]{{1,20}}=$|{field_validators.HEADER}"


def _topic(text: str) -> str:
    if not re.fullmatch(_TOPIC, text):
        raise ValueError(
            "a topic must be an ARN as in arn:aws:sns:eu-west-1:123456789012:orders, which may end with `*`"
        )
    return text


def _timestamp(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_]{1,20}=", text) else field_validators.header_name(text)


Topic = Annotated[str, AfterValidator(_topic), Field(json_schema_extra={"pattern": rules.whole(_TOPIC)})]
Timestamp = Annotated[str, AfterValidator(_timestamp), Field(json_schema_extra={"pattern": _TIMESTAMP})]


class Verify(Model):
    """How requests are signed, to prove who sent them."""

    type: Literal[
        "standard-webhooks", "stripe", "github", "slack", "zoom", "shopify", "square", "zendesk", "intercom", "twilio",
        "gitlab", "telegram", "sns", "hmac", "token",
    ] = Field(
        description="How the sender signs. `hmac`: an HMAC in `header`. `token`: the secret itself, in a header or in"
        " the query. The others follow the documentation of these senders."
    )  # fmt: skip
    secret: Variable | None = Field(
        default=None, description="The name of the secret with which requests are signed. Required, except for `sns`."
    )
    header: HeaderName | None = Field(
        default=None, description="The header with the signature or the token. Default: the sender's usual one."
    )
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] | None = Field(
        default=None, description="For `hmac`: the hash algorithm. Default: sha256."
    )
    encoding: Literal["hex", "base64"] | None = Field(
        default=None, description="For `hmac`: the encoding of the signature. Default: hex."
    )
    prefix: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="For `hmac` and `token`: the text before the signature, as in `v0=`."
    )
    over: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None,
        description="For `hmac`: the text that is signed, with {{ts}}, {{body}}, {{url}}, {{method}} and "
        "{{headers['x-name']}}. Default: {{body}}.",
        examples=["v0:{{ts}}:{{body}}"],
    )
    timestamp: Timestamp | None = Field(
        default=None,
        description="For `hmac`: the header with the time of signing; or a part of the signature's header, as in `t=`.",
    )
    tolerance: Duration | None = Field(
        default=None,
        description="The maximum difference between the time in the signature and now. Default: 5m; for `sns` 1h.",
    )
    query: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="For `token`: the field of the query with the token, in place of a header."
    )
    url: (
        Annotated[str, AfterValidator(field_validators.url), Field(json_schema_extra={"pattern": rules.URL})] | None
    ) = Field(
        default=None,
        description="The address that the sender sends to, if the signature covers it. Default: the server's address.",
    )
    topics: Annotated[list[Topic], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="For `sns`: the ARNs of the topics that may send. An ARN may end with `*`."
    )
    confirm: bool | None = Field(
        default=None, description="For `sns`: whether subscriptions to these topics are confirmed automatically."
    )


class Token(Model):
    """A field of the query that must be equal to a secret."""

    query: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="The name of the field.", examples=["hub.verify_token"]
    )
    secret: Variable = Field(description="The name of the secret.")


class Challenge(Model):
    """Requests with which a sender verifies this address, and the answer to them."""

    answer: Cel = Field(
        description="A CEL expression for the answer: a text, or an object, which is sent as JSON. It may use"
        " `signature`.",
        examples=["query['hub.challenge']"],
    )
    if_: Cel | None = Field(
        default=None,
        alias="if",
        description="A CEL expression that is true for these requests. Default: those for which `answer` has a value.",
    )
    sign: Cel | None = Field(
        default=None,
        description="A CEL expression for a text to sign with the secret of `verify`. `signature` has the result in"
        " hex.",
    )
    token: Token | None = Field(
        default=None, description="A secret that the query must contain. Without it, the response is 403."
    )


class Webhook(Model):
    """How an event is created from a request to `/webhooks/<name>`. CEL expressions can use `body`, `headers` and
    `query`."""

    schema_: str | None = Field(default=None, alias="$schema", description="The address of this schema, for editors.")
    name: Id = Field(
        default="",
        description="The name of the webhook: a-z, 0-9 and -. Default: the name of the file.",
        validate_default=False,
    )
    event: Annotated[str, Field(min_length=1, max_length=MAX_EVENT)] = Field(
        description="The name of the event: a text that may contain CEL expressions in {{ }}.",
        examples=["github/{{ headers['x-github-event'] }}"],
    )
    id: Cel | None = Field(
        default=None,
        description="A CEL expression for the event's id, to recognise duplicates. Default: the sender's delivery id.",
    )
    data: Cel | None = Field(
        default=None, description="A CEL expression for the event's data. Default: the body of the request."
    )
    user: Cel | None = Field(
        default=None, description="A CEL expression for the event's user: an object, or a text as the external_id."
    )
    ts: Cel | None = Field(
        default=None,
        description="A CEL expression for the event's time: milliseconds since 1970 or RFC 3339. Default: now.",
    )
    if_: Cel | None = Field(
        default=None, alias="if", description="A CEL expression. Requests for which it is false are ignored."
    )
    body: Literal["json", "form", "text"] | None = Field(
        default=None, description="The format of the body. Default: as in the content type."
    )
    challenge: Challenge | None = Field(
        default=None, description="How to answer requests with which the sender verifies the address."
    )
    verify: Verify | None = Field(
        default=None, description="How requests are signed. Without it, anyone may send requests."
    )


def parse_webhook(raw: object, name: str, written: Mapping[Pointer, str] | None = None) -> dict[str, Any]:
    """The rule with this name in its stored form, from plain JSON data. Raises DefinitionError with all problems.

    `written`: as for `parse_definition`.
    """
    if not isinstance(raw, dict):
        raise DefinitionError([Problem((), "a rule must be an object that has at least an `event`")])
    webhook, errors = _validated(raw)
    problems = [problem for problem in map(_problem, errors) if problem is not None]
    plain = [(error["loc"], error) for error in errors if _problem(error) is None]
    wrong = lambda data: _wrong_places(data, name)  # noqa: E731
    problems += problems_with_fixes(raw, plain, written or {}, wrong)
    problems += contradictions(raw, name)
    if problems or webhook is None:
        raise DefinitionError(problems)
    return {"name": name, **webhook.model_dump(by_alias=True, exclude_none=True, exclude={"schema_", "name"})}


def _validated(raw: Any) -> tuple[Webhook | None, list[Any]]:
    """The rule and no errors, or None and pydantic's errors."""
    try:
        return Webhook.model_validate(raw), []
    except ValidationError as refused:
        return None, list(refused.errors(include_url=False))


def _wrong_places(raw: Any, name: str) -> set[Pointer]:
    errors = _validated(raw)[1]
    return {*(error["loc"] for error in errors), *(problem.pointer for problem in contradictions(raw, name))}


def warnings(rule: dict[str, Any]) -> list[Problem]:
    """The parts of a rule that are allowed, but probably a mistake."""
    if "verify" not in rule:
        return [Problem((), "the rule checks no signature, so anyone can send requests; add `verify`")]
    if rule["verify"]["type"] == "sns" and not rule["verify"].get("topics"):
        message = "the rule accepts any topic, so anyone with an AWS account can send messages; add `topics`"
        return [Problem(("verify",), message)]
    return []


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a rule, for editors. It is as strict as a schema can be."""
    model = Webhook.model_json_schema(by_alias=True)
    model["properties"]["name"].pop("default")
    model["$defs"]["Verify"] |= rules.of_verify(ONLY)
    return rules.of_model(model, "Stepwell webhook")


def _problem(error: Any) -> Problem | None:
    """The problem, if the error is about the name of a field; None if it is about a value."""
    pointer = error["loc"]
    model = _MODELS.get(pointer[:-1], Webhook)
    match error["type"]:
        case "extra_forbidden":
            names = [field.alias or name for name, field in model.model_fields.items()]
            return Problem(pointer, f"unknown field `{str(pointer[-1])[:100]}`; {nearest(str(pointer[-1]), names)}")
        case "missing":
            return Problem(
                pointer, f"`{pointer[-1]}` is missing; add this field: {model.model_fields[pointer[-1]].description}"
            )
    return None


_MODELS: dict[tuple[Any, ...], type[Model]] = {
    ("verify",): Verify,
    ("challenge",): Challenge,
    ("challenge", "token"): Token,
}
