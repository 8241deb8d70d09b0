"""What the rule of a webhook may say, and what is wrong with one that says something else.

One rule: as with definitions of functions, what is kept and used is plain data, and reading that back needs no pydantic
(`core.webhooks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from stepwell.core import values
from stepwell.core.definition import Cel, DefinitionError, Duration, Id, Model, Variable
from stepwell.core.expressions import ExpressionError, Scope, compile_expression, compile_value
from stepwell.core.problems import Problem, in_words, nearest
from stepwell.core.signatures import TIMED
from stepwell.core.webhooks import EXPRESSIONS, MAX_EVENT, template


class Verify(Model):
    """How a request shows that it is from whom it says."""

    type: Literal["standard-webhooks", "stripe", "github", "hmac"] = Field(
        description="`hmac`: the body's HMAC stands in `header`; the others are as their senders say."
    )
    secret: Variable = Field(description="The name of the secret that requests are signed with.")
    header: Annotated[str, AfterValidator(values.header_name)] | None = Field(
        default=None, description="The header that has the signature, if it is not the usual one."
    )
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] | None = Field(
        default=None, description="Of `hmac`; sha256 if not given."
    )
    encoding: Literal["hex", "base64"] | None = Field(default=None, description="Of `hmac`; hex if not given.")
    tolerance: Duration | None = Field(
        default=None,
        description="How far from now the time in the signature may be, 5m if not given; of those that have one.",
    )


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
    verify: Verify | None = Field(default=None, description="How requests are signed. Absent: anybody may send.")


def parse_webhook(raw: object, name: str) -> dict[str, Any]:
    """The rule of this name as it is kept, from plain JSON data. Raises DefinitionError with all that is wrong."""
    if not isinstance(raw, dict):
        raise DefinitionError([Problem((), "a rule is an object, with the name of an `event`")])
    problems = []
    rule: dict[str, Any] = {}
    try:
        rule = Webhook.model_validate(raw).model_dump(by_alias=True, exclude_none=True, exclude={"schema_", "name"})
    except ValidationError as refused:
        problems = [_problem(error) for error in refused.errors(include_url=False)]
    problems += _contradictions(raw, name)
    if problems:
        raise DefinitionError(problems)
    return {"name": name, **rule}


def warnings(rule: dict[str, Any]) -> list[Problem]:
    """What is allowed, and probably not meant."""
    if "verify" in rule:
        return []
    return [Problem((), "checks no signature, so that anybody may send it; add `verify`")]


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a rule, for editors; the checks across fields are not in it."""
    model = Webhook.model_json_schema(by_alias=True)
    model["properties"]["name"].pop("default")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model, "title": "Stepwell webhook"}


def _contradictions(raw: dict[Any, Any], name: str) -> Iterator[Problem]:
    try:
        values.identifier(name)
    except ValueError as error:
        yield Problem(("name",), f"name: {error}")
    if raw.get("name") not in (None, name):
        yield Problem(("name",), f"name: is another than that of the webhook, {name}; leave it out")
    if isinstance(raw.get("event"), str):
        yield from _event(raw["event"])
    for field in EXPRESSIONS:
        if isinstance(raw.get(field), str) and raw[field]:
            yield from _compiled(field, raw[field], is_condition=field == "if")
    if isinstance(raw.get("verify"), dict):
        yield from _misplaced(raw["verify"])


def _event(text: str) -> Iterator[Problem]:
    try:
        parts = template(text)
    except ValueError as error:
        yield Problem(("event",), f"event: {error}")
        return
    if len(parts) == 1 and (len(text) > 256 or "*" in text or not text.isprintable() or text != text.strip()):
        message = "event: a name has at most 256 characters, no * or control character, and no spaces at its ends"
        yield Problem(("event",), message)
    if parts[0].startswith("stepwell/") and text != "stepwell/identify":
        yield Problem(("event",), "event: names that begin with stepwell/ are the engine's own; choose another")
    for source in parts[1::2]:
        yield from _compiled("event", source, is_condition=False)


def _compiled(field: str, source: str, *, is_condition: bool) -> Iterator[Problem]:
    try:
        (compile_expression if is_condition else compile_value)(source, Scope.WEBHOOK)
    except ExpressionError as error:
        place = f" (line {error.line}, column {error.column} of `{source[:60]}`)"
        yield Problem((field,), f"{field}: {error.message}{place}")


def _misplaced(verify: dict[Any, Any]) -> Iterator[Problem]:
    kind = verify.get("type")
    if kind == "hmac":
        if not verify.get("header"):
            yield Problem(("verify",), "`header` is missing; hmac has no usual one, so name the sender's")
    else:
        header = verify.get("header")
        if kind == "standard-webhooks" and isinstance(header, str) and not header.lower().endswith("-signature"):
            yield Problem(("verify", "header"), "header: must end with -signature, as its -id and -timestamp do")
        for field in ("algorithm", "encoding"):
            if verify.get(field) is not None:
                yield Problem(("verify", field), f"{field}: only `hmac` has it; leave it out")
    if kind not in TIMED and verify.get("tolerance") is not None:
        yield Problem(("verify", "tolerance"), "tolerance: these signatures do not say when they were made")


def _problem(error: Any) -> Problem:
    pointer = error["loc"]
    model = Verify if len(pointer) > 1 else Webhook
    match error["type"]:
        case "extra_forbidden":
            names = [field.alias or name for name, field in model.model_fields.items()]
            return Problem(pointer, f"unknown field `{str(pointer[-1])[:100]}`; {nearest(str(pointer[-1]), names)}")
        case "missing":
            return Problem(
                pointer, f"`{pointer[-1]}` is missing; add it: {model.model_fields[pointer[-1]].description}"
            )
    return in_words(pointer, error)
