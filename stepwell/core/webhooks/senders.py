"""The known senders of webhooks: how each signs requests, and where the id of a delivery is.

This is data from the documentation of each sender.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stepwell.core.duration import parse_duration
from stepwell.core.webhooks.signatures import Verify, places


@dataclass(frozen=True, slots=True)
class Sender:
    """A sender of webhooks. `signs`: the fields of Verify that differ from the defaults. The id of a delivery is in one
    of `delivery_headers`, or in the field `delivery_field` of the body."""

    signs: Mapping[str, Any] = field(default_factory=dict)
    delivery_headers: tuple[str, ...] = ()
    delivery_field: str = ""


ANY = ("webhook-id", "svix-id", "x-github-delivery")
"""The headers with the id of a delivery, for unknown senders."""

SENDERS = {
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    "standard-webhooks": Sender({"header": "webhook-signature"}),
    # https://docs.stripe.com/webhooks#verify-manually
    "stripe": Sender(
        {"header": "stripe-signature", "prefix": "v1=", "timestamp": "t=", "over": "{{ts}}.{{body}}"},
        delivery_field="id",
    ),
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    "github": Sender({"header": "x-hub-signature-256", "prefix": "sha256="}, ("x-github-delivery",)),
    # https://api.slack.com/authentication/verifying-requests-from-slack
    "slack": Sender(
        {
            "header": "x-slack-signature",
            "prefix": "v0=",
            "timestamp": "x-slack-request-timestamp",
            "over": "v0:{{ts}}:{{body}}",
        },
        delivery_field="event_id",
    ),
    # https://developers.zoom.us/docs/api/webhooks/#verify-with-zooms-header
    "zoom": Sender(
        {
            "header": "x-zm-signature",
            "prefix": "v0=",
            "timestamp": "x-zm-request-timestamp",
            "over": "v0:{{ts}}:{{body}}",
        }
    ),
    # https://shopify.dev/docs/apps/build/webhooks/subscribe/https
    "shopify": Sender({"header": "x-shopify-hmac-sha256", "encoding": "base64"}, ("x-shopify-webhook-id",)),
    # https://developer.squareup.com/docs/webhooks/step3validate
    "square": Sender(
        {"header": "x-square-hmacsha256-signature", "encoding": "base64", "over": "{{url}}{{body}}"},
        delivery_field="event_id",
    ),
    # https://developer.zendesk.com/documentation/webhooks/verifying/
    "zendesk": Sender(
        {
            "header": "x-zendesk-webhook-signature",
            "encoding": "base64",
            "timestamp": "x-zendesk-webhook-signature-timestamp",
            "over": "{{ts}}{{body}}",
        },
        ("x-zendesk-webhook-invocation-id",),
    ),
    # https://developers.intercom.com/docs/webhooks/webhook-notifications
    "intercom": Sender({"header": "x-hub-signature", "prefix": "sha1=", "algorithm": "sha1"}, delivery_field="id"),
    # https://www.twilio.com/docs/usage/security#validating-requests
    "twilio": Sender({"header": "x-twilio-signature"}, ("i-twilio-idempotency-token",)),
    # https://docs.gitlab.com/user/project/integrations/webhooks/
    "gitlab": Sender({"header": "x-gitlab-token"}, ("idempotency-key",)),
    # https://core.telegram.org/bots/api#setwebhook
    "telegram": Sender({"header": "x-telegram-bot-api-secret-token"}, delivery_field="update_id"),
    # https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
    "sns": Sender({"tolerance_ms": 3_600_000}, delivery_field="MessageId"),
    "hmac": Sender(delivery_headers=ANY),
    "token": Sender({"header": "authorization", "prefix": "Bearer "}, ANY),
}
BY_TOKEN = frozenset({"token", "gitlab", "telegram"})
BY_URL = frozenset({"twilio", "square"})


def verify_of(raw: Mapping[str, Any]) -> Verify:
    """How requests are signed, from the `verify` of a rule."""
    kind = raw["type"]
    usual = replace(Verify(kind, raw.get("secret", ""), ""), **SENDERS[kind].signs)
    if "header" in raw and kind == "token":
        usual = replace(usual, prefix="")  # the default prefix is only for the header `authorization`
    given = {name: raw[name] for name in _SAME if name in raw}
    if "tolerance" in raw:
        given["tolerance_ms"] = parse_duration(raw["tolerance"])
    if "topics" in raw:
        given["topics"] = tuple(raw["topics"])
    for name in ("header", "timestamp"):
        if name in given:
            given[name] = given[name].lower() if not given[name].endswith("=") else given[name]
    return replace(usual, **given)


def is_timed(raw: Mapping[str, Any]) -> bool:
    """Whether signatures contain the time of signing. `raw`: the `verify` of a rule."""
    kind = raw.get("type")
    if kind in ("standard-webhooks", "sns") or raw.get("timestamp"):
        return True
    return kind in SENDERS and "timestamp" in SENDERS[kind].signs


def needs_url(verify: Verify) -> bool:
    """Whether signatures cover the address that requests are sent to."""
    return verify.type in BY_URL or "url" in places(verify.over)


def delivery_headers(verify: Verify | None) -> tuple[str, ...]:
    """The headers that may contain the id of a delivery, to recognise a repeated delivery."""
    if verify is not None and verify.type == "standard-webhooks":
        return (f"{verify.header.removesuffix('signature')}id",)
    return ANY if verify is None else SENDERS[verify.type].delivery_headers


def delivery_field(verify: Verify | None) -> str:
    """The field of the body with the id of a delivery; empty if there is none."""
    return "" if verify is None else SENDERS[verify.type].delivery_field


_SAME = ("header", "algorithm", "encoding", "prefix", "over", "timestamp", "query", "url", "confirm")
