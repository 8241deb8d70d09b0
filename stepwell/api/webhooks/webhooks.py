"""`POST /webhooks/{name}`: turns requests of any sender into events, by a stored rule.

The signature is verified before anything else of the body is read, and no response or log line contains a secret. This
module is imported at the first webhook request.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from stepwell.api.http.encoding import decoded_body
from stepwell.api.http.problem import Problem
from stepwell.api.ingest.event_ids import new_event_id
from stepwell.api.ingest.ingest import MADE_LEVELS, accepted
from stepwell.api.webhooks.body import fields_of, is_form, read_body
from stepwell.api.webhooks.certificates import Certificates
from stepwell.api.webhooks.senders import NeedsCertificate, check_sender, confirmation_url, unusable_secret
from stepwell.core.cel.json_fields import with_json_fields
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.envelope import MAX_EVENT_BYTES
from stepwell.core.events.events import Event
from stepwell.core.events.request import MAX_BODY_BYTES, BadRequest, parse_events
from stepwell.core.rules.event_rule import RuleError
from stepwell.core.webhooks.challenges import BadChallenge, Challenge, Token
from stepwell.core.webhooks.rsa import PublicKey
from stepwell.core.webhooks.senders import delivery_field, delivery_headers
from stepwell.core.webhooks.signatures import BadSecret, same_secret
from stepwell.core.webhooks.webhooks import Rule, Sent

log = logging.getLogger("stepwell.webhooks")

ALLOWED = ("POST", "GET", "HEAD")  # senders probe with GET or HEAD before they deliver
_PLAIN = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class Hooks(Protocol):
    """The webhook rules and secrets of a platform."""

    def rule(self, name: str) -> Rule | None: ...

    def secret(self, name: str, *, again: bool = False) -> str | None:
        """The value of a secret, or None. The value may be cached; with `again`, it is read again."""

    @property
    def public_url(self) -> str:
        """The address of the API for senders."""

    @property
    def certificates(self) -> Certificates: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request to a webhook. Header names are in lower case, `query` is the raw query string.

    `base_url` is the address of the API that the request was sent to, if known.
    """

    name: str
    headers: Mapping[str, str]
    query: str = ""
    body: bytes = b""
    method: str = "POST"
    base_url: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response with status 200."""

    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """The result of a request: an event, nothing if the rule ignores the request, or only a reply.

    `confirm` is the URL that confirms a subscription; call it when the event is accepted.
    """

    event: Event | None = None
    reply: Reply | None = None
    confirm: str | None = None


def rule_of(hooks: Hooks, name: str) -> Rule:
    """The rule of a webhook. Raises Problem 404."""
    rule = hooks.rule(name)
    if rule is None:
        raise Problem(404, f"there is no webhook {name[:100]!r}; `stepwell webhooks push` creates one")
    return rule


async def receive_async(
    hooks: Hooks,
    delivery: Delivery,
    now: int,
    in_thread: Callable[[Callable[[], Received]], Awaitable[Received]] | None = None,
) -> Received:
    """Does the same as `receive`, without blocking this thread. `in_thread` runs the parsing of a large body."""

    async def read(key: PublicKey | None) -> Received:
        if in_thread is None:
            return _receive(hooks, delivery, now, key)
        return await in_thread(lambda: _receive(hooks, delivery, now, key))

    try:
        return await read(None)
    except NeedsCertificate as needed:
        key = await asyncio.to_thread(hooks.certificates.fetch, needed.url)
    return await read(key)


def receive(hooks: Hooks, delivery: Delivery, now: int) -> Received:
    """Verifies a request and applies the webhook's rule. `now` is in ms since the epoch.

    Raises Problem 400, 401, 403, 404, 413, 422 or 503.
    """
    try:
        return _receive(hooks, delivery, now)
    except NeedsCertificate as needed:
        key = hooks.certificates.fetch(needed.url)
    return _receive(hooks, delivery, now, key)


async def confirm_async(hooks: Hooks, received: Received) -> None:
    """Does the same as `confirm`, without blocking this thread."""
    if received.confirm is not None:
        await asyncio.to_thread(hooks.certificates.confirm, received.confirm)


def confirm(hooks: Hooks, received: Received) -> None:
    """Confirms the subscription that a request asked for, after the event is accepted.

    Raises Problem 503: then the sender repeats the request, which does not create a second event.
    """
    if received.confirm is not None:
        hooks.certificates.confirm(received.confirm)


def made_event(
    rule: dict[str, Any], delivery: Delivery, hooks: Hooks | None = None, now: int = 0
) -> dict[str, Any] | Reply | None:
    """Applies a rule to a request, for a test of the rule.

    Returns the event in the form of `POST /e`, None if the rule ignores the request, or the reply to a challenge.
    Without `hooks`, signatures and tokens are not checked. Raises Problem.
    """
    if hooks is not None:
        received = receive(hooks, delivery, now)
        event, reply = received.event, received.reply
    else:
        parsed = Rule.of(rule)
        sent = _parsed(parsed, delivery)
        challenge, reply = parsed.challenge, None
        if challenge is not None and challenge.is_challenge(sent.bindings()):
            reply = _answer(parsed, challenge, sent, lambda _: "<the signature>")
        event = _event_by_rule(parsed, sent, now) if reply is None and delivery.method == "POST" else None
    if reply is not None or delivery.method != "POST":
        return reply or Reply(accepted([]))
    if event is None:
        return None
    fields: dict[str, Any] = {"name": event.name, "data": event.data, "user": event.user}
    if not event.fresh:
        fields["id"] = event.id
    return fields | ({"ts": event.ts} if event.ts and event.ts != now else {})


def _receive(hooks: Hooks, delivery: Delivery, now: int, key: PublicKey | None = None) -> Received:
    """`key` is the key of a certificate that was fetched for this request."""
    rule = rule_of(hooks, delivery.name)
    if delivery.method == "HEAD":
        return Received(reply=Reply(b""))
    if len(delivery.body) > MAX_BODY_BYTES:
        raise Problem(413, f"the request has more than {MAX_BODY_BYTES:,} bytes")
    if delivery.body:  # senders sign the uncompressed body
        delivery = replace(delivery, body=decoded_body(delivery.headers, delivery.body, MAX_BODY_BYTES))
    if delivery.method == "POST":
        check_sender(hooks, rule, delivery, now, key)
    sent = _parsed(rule, delivery)
    reply = _challenge(hooks, rule, sent, is_signed=delivery.method == "POST" and rule.verify is not None)
    if reply is not None or delivery.method == "GET":
        return Received(reply=reply or Reply(accepted([])))
    confirm = confirmation_url(rule, sent.body)
    return Received(_event_by_rule(rule, sent, now), confirm=confirm)


# --- challenges ------------------------------------------------------------------------------------------------------


def _challenge(hooks: Hooks, rule: Rule, sent: Sent, *, is_signed: bool) -> Reply | None:
    """The reply to a challenge; None if the request is not one. Only signed requests get a signature."""

    def sign(text: str) -> str:
        assert rule.verify is not None
        secret = hooks.secret(rule.verify.secret) or ""
        return hmac.new(secret.encode(errors="surrogateescape"), text.encode(), rule.verify.algorithm).hexdigest()

    if rule.challenge is None or (rule.challenge.sign is not None and not is_signed):
        return None
    if not rule.challenge.is_challenge(sent.bindings()):
        return None
    if rule.challenge.token is not None:
        _check_token(hooks, rule, rule.challenge.token, sent)
    return _answer(rule, rule.challenge, sent, sign)


def _check_token(hooks: Hooks, rule: Rule, token: Token, sent: Sent) -> None:
    try:
        secret = hooks.secret(token.secret)
        if secret is None:
            raise BadSecret("it is not set")
        sent_token = sent.query.get(token.query)
        if not same_secret(sent_token if isinstance(sent_token, str) else "", secret):
            raise Problem(403, f"webhook {rule.name}: the query parameter {token.query} is not the token")
    except BadSecret as error:
        raise unusable_secret(rule, token.secret, error) from None


def _answer(rule: Rule, challenge: Challenge, sent: Sent, sign: Callable[[str], str]) -> Reply:
    try:
        answer = challenge.answer_to(sent.bindings(), sign)
    except BadChallenge as error:
        raise _refused(rule, error) from None
    if isinstance(answer, bytes):
        return Reply(answer, headers=_PLAIN)
    return Reply(answer.encode("utf-8", "replace"), "text/plain; charset=utf-8", _PLAIN)


# --- the rule --------------------------------------------------------------------------------------------------------


def _parsed(rule: Rule, delivery: Delivery) -> Sent:
    kind = delivery.headers.get("content-type", "")
    try:
        content = read_body(kind, delivery.body, rule.reading)
        if is_form(kind, rule.reading):
            content = with_json_fields(content, rule.fields_with_json)
    except ValueError as error:
        if rule.needs_body:
            raise Problem(400, f"webhook {rule.name}: {error}") from None
        content = None
    return Sent(content, delivery.headers, _query(delivery.query), _delivery(rule, delivery.headers, content))


def _event_by_rule(rule: Rule, sent: Sent, now: int) -> Event | None:
    try:
        fields = rule.event_of(sent)
        return None if fields is None else _event(fields, now)
    except RuleError as error:
        log.warning("webhook %s refused a request, the rule failed: %s", rule.name, error)
        raise _refused(rule, error) from None


def _delivery(rule: Rule, headers: Mapping[str, str], content: Any) -> str | None:
    """The sender's id of the delivery, or None."""
    name = delivery_field(rule.verify)
    if name and isinstance(content, dict):
        found = content.get(name)
        if isinstance(found, str | int) and not isinstance(found, bool):
            return str(found)
    return next((headers[header] for header in delivery_headers(rule.verify) if headers.get(header)), None)


def _event(fields: dict[str, Any], now: int) -> Event:
    """Makes an event from the rule's fields, with the same checks as `POST /e`."""
    try:
        (event,) = parse_events(_json(fields), now, new_event_id, engine_ids=(EngineId.WEBHOOK,), levels=MADE_LEVELS)
    except BadRequest as bad:
        error = bad.errors[0]
        if bad.status == 413:
            message = f"the event would have more than {MAX_EVENT_BYTES:,} bytes; select less in the rule's `data`"
            raise Problem(413, message) from None
        raise RuleError(error.pointer.split("/")[1] if error.pointer else "data", "", error.message) from None
    return event


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError as error:  # nested too deeply, or a number with more than 64 bits
        raise RuleError("data", "", f"cannot be written as JSON: {error}") from None


def _refused(rule: Rule, error: RuleError | BadChallenge) -> Problem:
    field = "event" if error.field == "name" else error.field
    expression = error.expression or rule.expressions.get(field, "")
    expression_text = f" `{expression}`" if expression else ""
    details = {"pointer": f"/{field}", "expression": expression, "message": error.why}
    return Problem(422, f"webhook {rule.name}: {field}{expression_text}: {error.why}", errors=[details])


def _query(text: str) -> dict[str, Any]:
    try:
        return fields_of(text, "replace")
    except ValueError as error:
        raise Problem(400, f"the query cannot be read: {error}") from None
