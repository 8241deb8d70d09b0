"""Checks that involve several fields of a webhook rule, and the expressions in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.core.cel.expressions import Scope
from stepwell.core.definition.problems import Problem
from stepwell.core.rules.checks import expression_problems, rule_problems
from stepwell.core.webhooks.senders import BY_TOKEN, BY_URL, SENDERS, is_timed
from stepwell.core.webhooks.signatures import places

_WITHOUT_HMAC = BY_TOKEN | {"sns", "standard-webhooks", "twilio"}  # types that cannot sign a challenge
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
"""The fields of `verify` that not all types have, with the types that have them."""


def contradictions(raw: dict[Any, Any], name: str) -> Iterator[Problem]:
    """The problems of a rule that the model does not find."""
    yield from rule_problems(raw, name, Scope.WEBHOOK, "webhook")
    if isinstance(raw.get("verify"), dict):
        yield from _verify(raw["verify"])
    if isinstance(raw.get("challenge"), dict):
        yield from _challenge(raw["challenge"], raw.get("verify"))


def _verify(verify: dict[Any, Any]) -> Iterator[Problem]:
    kind = verify.get("type")
    if not isinstance(kind, str) or kind not in SENDERS:
        return
    has = {field for field, value in verify.items() if value is not None}
    if kind == "sns":
        for field in ("secret", "header"):
            if field in has:
                yield Problem(("verify", field), f"{field}: SNS signs with a certificate, so remove this field")
        if verify.get("confirm") and "topics" not in has:
            message = "confirm: add `topics`, the topics whose subscriptions are confirmed"
            yield Problem(("verify", "confirm"), message)
    elif "secret" not in has:
        message = "`secret` is missing; add this field: the name of the secret with which requests are signed"
        yield Problem(("verify", "secret"), message)
    if kind == "hmac" and "header" not in has:
        yield Problem(("verify",), "`header` is missing; add the header in which the sender sends the signature")
    header = verify.get("header")
    if kind == "standard-webhooks" and isinstance(header, str) and not header.lower().endswith("-signature"):
        message = "header: must end with -signature; the names of the -id and -timestamp headers are derived from it"
        yield Problem(("verify", "header"), message)
    if kind == "token" and {"header", "query"} <= has:
        yield Problem(("verify", "query"), "query: the token is either in a header or in the query; remove one of them")
    for field, kinds in ONLY.items():
        if field in has and kind not in kinds:
            yield Problem(("verify", field), f"{field}: only {_listed(kinds)} has this field; remove it")
    if "tolerance" in has and not is_timed(verify):
        yield Problem(("verify", "tolerance"), "tolerance: these signatures contain no time; remove it")
    if kind == "hmac":
        yield from _over(verify)


def _over(verify: dict[Any, Any]) -> Iterator[Problem]:
    over = verify.get("over")
    if not isinstance(over, str):
        if verify.get("timestamp"):
            message = "timestamp: the time must be signed to be of use; add `over` with {{ts}}"
            yield Problem(("verify", "timestamp"), message)
        return
    try:
        named = places(over)
    except ValueError as error:
        yield Problem(("verify", "over"), f"over: {error}")
        return
    if "body" not in named:
        yield Problem(("verify", "over"), "over: {{body}} is missing, so anyone could send another body; add it")
    if ("ts" in named) != bool(verify.get("timestamp")):
        message = "over: {{ts}} needs the field `timestamp`, the place of the time, and `timestamp` needs {{ts}}"
        yield Problem(("verify", "over"), message)


def _challenge(challenge: dict[Any, Any], verify: object) -> Iterator[Problem]:
    for field in ("if", "sign", "answer"):
        source = challenge.get(field)
        if isinstance(source, str) and source:
            scope = Scope.CHALLENGE if field == "answer" else Scope.WEBHOOK
            yield from expression_problems(field, source, scope, is_condition=field == "if", within=("challenge",))
    kind = verify.get("type") if isinstance(verify, dict) else None
    if challenge.get("sign") is not None and (not isinstance(kind, str) or kind in _WITHOUT_HMAC):
        message = "sign: needs the secret of a `verify` whose type is an HMAC; add one, or remove `sign`"
        yield Problem(("challenge", "sign"), message)


def _listed(kinds: frozenset[str]) -> str:
    return " or ".join(f"`{kind}`" for kind in sorted(kinds))
