"""What the rule of a webhook may say, and what is wrong with one that says something else.

One rule: as with definitions of functions, what is kept and used is plain data, and reading that back needs no pydantic
(`core.webhooks.webhooks`).
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
from stepwell.core.definition.suggestions import in_words_with_cures
from stepwell.core.webhooks.checks import ONLY, contradictions
from stepwell.core.webhooks.webhooks import MAX_EVENT

_TOPIC = r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:([A-Za-z0-9_.-]+\*?|\*)$"
_TIMESTAMP = rf"^[A-Za-z0-9_]{{1,20}}=$|{field_validators.HEADER}"


def _topic(text: str) -> str:
    if not re.fullmatch(_TOPIC, text):
        raise ValueError("a topic is an ARN as in arn:aws:sns:eu-west-1:123456789012:orders; `*` may stand at its end")
    return text


def _timestamp(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_]{1,20}=", text) else field_validators.header_name(text)


Topic = Annotated[str, AfterValidator(_topic), Field(json_schema_extra={"pattern": rules.whole(_TOPIC)})]
Timestamp = Annotated[str, AfterValidator(_timestamp), Field(json_schema_extra={"pattern": _TIMESTAMP})]


class Verify(Model):
    """How a request shows that it is from whom it says."""

    type: Literal[
        "standard-webhooks", "stripe", "github", "slack", "zoom", "shopify", "square", "zendesk", "intercom", "twilio",
        "gitlab", "telegram", "sns", "hmac", "token",
    ] = Field(
        description="`hmac`: an HMAC stands in `header`; `token`: a secret itself; the others are as their senders say."
    )  # fmt: skip
    secret: Variable | None = Field(
        default=None, description="The name of the secret that requests are signed with; all have one but `sns`."
    )
    header: HeaderName | None = Field(
        default=None, description="The header that has the signature or token, if it is not the usual one."
    )
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] | None = Field(
        default=None, description="Of `hmac`; sha256 if not given."
    )
    encoding: Literal["hex", "base64"] | None = Field(default=None, description="Of `hmac`; hex if not given.")
    prefix: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Of `hmac` and `token`: what stands before the signature, as in `v0=`."
    )
    over: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None,
        description="Of `hmac`: what is signed, the body if not given; with {{ts}}, {{body}}, {{url}}, {{method}} and "
        "{{headers['x-name']}}.",
        examples=["v0:{{ts}}:{{body}}"],
    )
    timestamp: Timestamp | None = Field(
        default=None,
        description="Of `hmac`: the header that says when it was signed; or a part of the signature's, as in `t=`.",
    )
    tolerance: Duration | None = Field(
        default=None,
        description="How far from now the time in the signature may be, 5m if not given; of those that have one.",
    )
    query: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="Of `token`: the field of the query that has it, in place of a header."
    )
    url: (
        Annotated[str, AfterValidator(field_validators.url), Field(json_schema_extra={"pattern": rules.URL})] | None
    ) = Field(
        default=None, description="The address that the sender sends to, if it is signed; the server's own if absent."
    )
    topics: Annotated[list[Topic], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="Of `sns`: the ARNs of the topics that may send; `*` may be an ARN's end."
    )
    confirm: bool | None = Field(
        default=None, description="Of `sns`: whether subscriptions to these topics are confirmed when SNS asks."
    )


class Token(Model):
    """A field of the query that must be equal to a secret."""

    query: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="The field's name.", examples=["hub.verify_token"]
    )
    secret: Variable = Field(description="The name of the secret.")


class Challenge(Model):
    """Which requests ask whether this address is meant for their sender, and what they are answered."""

    answer: Cel = Field(
        description="CEL: a text, or an object that is answered as JSON; it has `signature`, too.",
        examples=["query['hub.challenge']"],
    )
    if_: Cel | None = Field(
        default=None,
        alias="if",
        description="CEL: which requests these are; if absent, those for which `answer` has a value.",
    )
    sign: Cel | None = Field(
        default=None, description="CEL: a text that is signed with the secret of `verify`, in hex, for `signature`."
    )
    token: Token | None = Field(default=None, description="What the query must have, or the answer is 403.")


class Webhook(Model):
    """What becomes of requests to `/webhooks/<name>`: an event. CEL has `body`, `headers` and `query`."""

    schema_: str | None = Field(default=None, alias="$schema", description="The address of this schema, for editors.")
    name: Id = Field(
        default="", description="The webhook's name, a-z, 0-9 and -; the file's if absent.", validate_default=False
    )
    event: Annotated[str, Field(min_length=1, max_length=MAX_EVENT)] = Field(
        description="The event's name: text, with CEL in {{ }}.", examples=["github/{{ headers['x-github-event'] }}"]
    )
    id: Cel | None = Field(
        default=None, description="CEL: what tells one event from another. If absent, what the sender calls it."
    )
    data: Cel | None = Field(default=None, description="CEL: the event's data; the body if absent.")
    user: Cel | None = Field(default=None, description="CEL: the event's user, an object or an external_id.")
    ts: Cel | None = Field(default=None, description="CEL: when it was, in milliseconds or RFC 3339; now if absent.")
    if_: Cel | None = Field(default=None, alias="if", description="CEL: requests for which it is false are ignored.")
    body: Literal["json", "form", "text"] | None = Field(
        default=None, description="What the body is, whatever its content type says."
    )
    challenge: Challenge | None = Field(default=None, description="Requests that ask whether the address is right.")
    verify: Verify | None = Field(default=None, description="How requests are signed. Absent: anybody may send.")


def parse_webhook(raw: object, name: str, written: Mapping[Pointer, str] | None = None) -> dict[str, Any]:
    """The rule of this name as it is kept, from plain JSON data. `written`: as `parse_definition` has it. Raises
    DefinitionError with all that is wrong."""
    if not isinstance(raw, dict):
        raise DefinitionError([Problem((), "a rule is an object, with the name of an `event`")])
    webhook, errors = _validated(raw)
    problems = [problem for problem in map(_problem, errors) if problem is not None]
    plain = [(error["loc"], error) for error in errors if _problem(error) is None]
    wrong = lambda data: _wrong_places(data, name)  # noqa: E731
    problems += in_words_with_cures(raw, plain, written or {}, wrong)
    problems += contradictions(raw, name)
    if problems or webhook is None:
        raise DefinitionError(problems)
    return {"name": name, **webhook.model_dump(by_alias=True, exclude_none=True, exclude={"schema_", "name"})}


def _validated(raw: Any) -> tuple[Webhook | None, list[Any]]:
    """The rule, or pydantic's errors."""
    try:
        return Webhook.model_validate(raw), []
    except ValidationError as refused:
        return None, list(refused.errors(include_url=False))


def _wrong_places(raw: Any, name: str) -> set[Pointer]:
    errors = _validated(raw)[1]
    return {*(error["loc"] for error in errors), *(problem.pointer for problem in contradictions(raw, name))}


def warnings(rule: dict[str, Any]) -> list[Problem]:
    """What is allowed, and probably not meant."""
    if "verify" not in rule:
        return [Problem((), "checks no signature, so that anybody may send it; add `verify`")]
    if rule["verify"]["type"] == "sns" and not rule["verify"].get("topics"):
        message = "takes messages of any topic, so that anybody with an AWS account may send it; name the `topics`"
        return [Problem(("verify",), message)]
    return []


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a rule, for editors: as strict as reading one, where a schema can say it."""
    model = Webhook.model_json_schema(by_alias=True)
    model["properties"]["name"].pop("default")
    model["$defs"]["Verify"] |= rules.of_verify(ONLY)
    return rules.of_model(model, "Stepwell webhook")


def _problem(error: Any) -> Problem | None:
    """The problem, if it is about what fields there are; None if it is about a value."""
    pointer = error["loc"]
    model = _MODELS.get(pointer[:-1], Webhook)
    match error["type"]:
        case "extra_forbidden":
            names = [field.alias or name for name, field in model.model_fields.items()]
            return Problem(pointer, f"unknown field `{str(pointer[-1])[:100]}`; {nearest(str(pointer[-1]), names)}")
        case "missing":
            return Problem(
                pointer, f"`{pointer[-1]}` is missing; add it: {model.model_fields[pointer[-1]].description}"
            )
    return None


_MODELS: dict[tuple[Any, ...], type[Model]] = {
    ("verify",): Verify,
    ("challenge",): Challenge,
    ("challenge", "token"): Token,
}
