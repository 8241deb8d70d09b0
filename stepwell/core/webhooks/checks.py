"""What is wrong between the fields of a webhook's rule, each of which may be right for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.core.cel.expressions import ExpressionError, Scope, compile_expression, compile_value
from stepwell.core.definition import field_validators
from stepwell.core.definition.problems import Problem
from stepwell.core.webhooks.senders import BY_TOKEN, BY_URL, SENDERS, is_timed
from stepwell.core.webhooks.signatures import places
from stepwell.core.webhooks.webhooks import EXPRESSIONS, template

_CALCULATED = BY_TOKEN | {"sns", "standard-webhooks", "twilio"}  # the others are HMACs
ONLY = {
    "algorithm": frozenset({"hmac"}),
    "encoding": frozenset({"hmac"}),
    "over": frozenset({"hmac"}),
    "timestamp": frozenset({"hmac"}),
    "prefix": frozenset({"hmac", "token"}),
    "query": frozenset({"token"}),
    "url": frozenset({"hmac", *BY_URL}),
    "topics": frozenset({"sns"}),
    "confirm": frozenset({"sns"}),
}
"""Which types have a field that not all have."""


def contradictions(raw: dict[Any, Any], name: str) -> Iterator[Problem]:
    """All that is wrong with a rule beside what its model says."""
    try:
        field_validators.identifier(name)
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
        yield from _verify(raw["verify"])
    if isinstance(raw.get("challenge"), dict):
        yield from _challenge(raw["challenge"], raw.get("verify"))


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


def _compiled(
    field: str, source: str, *, is_condition: bool, scope: Scope = Scope.WEBHOOK, within: tuple[str, ...] = ()
) -> Iterator[Problem]:
    try:
        (compile_expression if is_condition else compile_value)(source, scope).check()
    except ExpressionError as error:
        place = f" (line {error.line}, column {error.column} of `{source[:60]}`)"
        yield Problem((*within, field), f"{field}: {error.message}{place}")


def _verify(verify: dict[Any, Any]) -> Iterator[Problem]:
    kind = verify.get("type")
    if not isinstance(kind, str) or kind not in SENDERS:
        return
    has = {field for field, value in verify.items() if value is not None}
    if kind == "sns":
        for field in ("secret", "header"):
            if field in has:
                yield Problem(("verify", field), f"{field}: SNS signs with a certificate of its own; leave it out")
        if verify.get("confirm") and "topics" not in has:
            yield Problem(("verify", "confirm"), "confirm: name the `topics` whose subscriptions are confirmed")
    elif "secret" not in has:
        yield Problem(
            ("verify", "secret"), "`secret` is missing; add it: the name of the secret that requests are signed with"
        )
    if kind == "hmac" and "header" not in has:
        yield Problem(("verify",), "`header` is missing; hmac has no usual one, so name the sender's")
    header = verify.get("header")
    if kind == "standard-webhooks" and isinstance(header, str) and not header.lower().endswith("-signature"):
        yield Problem(("verify", "header"), "header: must end with -signature, as its -id and -timestamp do")
    if kind == "token" and {"header", "query"} <= has:
        yield Problem(("verify", "query"), "query: the token stands in a header or in the query; name one of them")
    for field, kinds in ONLY.items():
        if field in has and kind not in kinds:
            yield Problem(("verify", field), f"{field}: only {_listed(kinds)} has it; leave it out")
    if "tolerance" in has and not is_timed(verify):
        yield Problem(("verify", "tolerance"), "tolerance: these signatures do not say when they were made")
    if kind == "hmac":
        yield from _over(verify)


def _over(verify: dict[Any, Any]) -> Iterator[Problem]:
    over = verify.get("over")
    if not isinstance(over, str):
        if verify.get("timestamp"):
            yield Problem(
                ("verify", "timestamp"), "timestamp: a time that is not signed proves nothing; say {{ts}} in `over`"
            )
        return
    try:
        named = places(over)
    except ValueError as error:
        yield Problem(("verify", "over"), f"over: {error}")
        return
    if "body" not in named:
        yield Problem(("verify", "over"), "over: {{body}} is missing, so that anybody could send another body")
    if ("ts" in named) != bool(verify.get("timestamp")):
        message = "over: {{ts}} and the field `timestamp`, which says where the time stands, go together"
        yield Problem(("verify", "over"), message)


def _challenge(challenge: dict[Any, Any], verify: object) -> Iterator[Problem]:
    for field in ("if", "sign", "answer"):
        source = challenge.get(field)
        if isinstance(source, str) and source:
            scope = Scope.CHALLENGE if field == "answer" else Scope.WEBHOOK
            yield from _compiled(field, source, is_condition=field == "if", scope=scope, within=("challenge",))
    kind = verify.get("type") if isinstance(verify, dict) else None
    if challenge.get("sign") is not None and (not isinstance(kind, str) or kind in _CALCULATED):
        message = "sign: it is signed with the secret of `verify`, which must be there and be one of an HMAC"
        yield Problem(("challenge", "sign"), message)


def _listed(kinds: frozenset[str]) -> str:
    return " or ".join(f"`{kind}`" for kind in sorted(kinds))
