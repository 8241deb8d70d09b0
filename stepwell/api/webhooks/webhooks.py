"""`POST /webhooks/{name}`: from any sender's request to an event, by a stored rule.

One rule: whoever is to know a secret shows it first; nothing of an unsigned body is read, and no answer or log has a
secret's value. Plain functions, and loaded when the first such request comes.
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
from stepwell.api.webhooks.senders import NeedsCertificate, check_sender, confirmation_url, unusable
from stepwell.core.cel.json_fields import with_json_fields
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.envelope import MAX_EVENT_BYTES
from stepwell.core.events.events import Event
from stepwell.core.events.request import MAX_BODY_BYTES, BadRequest, parse_events
from stepwell.core.webhooks.challenges import BadChallenge, Challenge, Token
from stepwell.core.webhooks.rsa import PublicKey
from stepwell.core.webhooks.senders import delivery_field, delivery_headers
from stepwell.core.webhooks.signatures import BadSecret, same_secret
from stepwell.core.webhooks.webhooks import Rule, RuleError, Sent

log = logging.getLogger("stepwell.webhooks")

ALLOWED = ("POST", "GET", "HEAD")  # senders probe with GET or HEAD before they deliver
_PLAIN = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class Hooks(Protocol):
    """What a platform knows of webhooks."""

    def rule(self, name: str) -> Rule | None: ...

    def secret(self, name: str, *, again: bool = False) -> str | None:
        """The value of a secret, if it is set; what is remembered of it may be old, but not much if asked `again`."""

    @property
    def public_url(self) -> str:
        """Where senders reach the API."""

    @property
    def certificates(self) -> Certificates: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request to a webhook. Names of headers are in small letters, and `query` is as it was sent. `base_url`: where
    the API is that it was sent to, if that is known of the request."""

    name: str
    headers: Mapping[str, str]
    query: str = ""
    body: bytes = b""
    method: str = "POST"
    base_url: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a sender is answered with status 200."""

    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """What a request became: an event, or nothing if its rule ignores it; or an answer alone. `confirm`: where the
    subscription is confirmed that it asks for, once the event is accepted."""

    event: Event | None = None
    reply: Reply | None = None
    confirm: str | None = None


def rule_of(hooks: Hooks, name: str) -> Rule:
    """Raises Problem 404."""
    rule = hooks.rule(name)
    if rule is None:
        raise Problem(404, f"there is no webhook {name[:100]!r} here; `stepwell webhooks push` makes one")
    return rule


async def receive_async(
    hooks: Hooks,
    delivery: Delivery,
    now: int,
    in_thread: Callable[[Callable[[], Received]], Awaitable[Received]] | None = None,
) -> Received:
    """The same as `receive`, without waiting for the network on this thread. `in_thread`: what reads a large one."""

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
    """What a request becomes by its rule. `now`: ms since the epoch. Raises Problem 400, 401, 403, 404, 413, 422 or
    503."""
    try:
        return _receive(hooks, delivery, now)
    except NeedsCertificate as needed:
        key = hooks.certificates.fetch(needed.url)
    return _receive(hooks, delivery, now, key)


async def confirm_async(hooks: Hooks, received: Received) -> None:
    """The same as `confirm`, without waiting for the network on this thread."""
    if received.confirm is not None:
        await asyncio.to_thread(hooks.certificates.confirm, received.confirm)


def confirm(hooks: Hooks, received: Received) -> None:
    """Confirm the subscription that a request asked for, whose event is accepted. Raises Problem 503: then its sender
    comes again, and the event is none anew."""
    if received.confirm is not None:
        hooks.certificates.confirm(received.confirm)


def made_event(
    rule: dict[str, Any], delivery: Delivery, hooks: Hooks | None = None, now: int = 0
) -> dict[str, Any] | Reply | None:
    """What an event's sender would have to send to `/e`, by a rule and a request; None if the rule ignores it, and the
    answer if that is all that it is. Without `hooks`, signatures and tokens are not looked at. Raises Problem."""
    if hooks is not None:
        received = receive(hooks, delivery, now)
        event, reply = received.event, received.reply
    else:
        value = Rule.of(rule)
        sent = _sent(value, delivery)
        challenge, reply = value.challenge, None
        if challenge is not None and challenge.is_asked(sent.bindings()):
            reply = _answer(value, challenge, sent, lambda _: "<the signature>")
        event = _made(value, sent, now) if reply is None and delivery.method == "POST" else None
    if reply is not None or delivery.method != "POST":
        return reply or Reply(accepted([]))
    if event is None:
        return None
    fields: dict[str, Any] = {"name": event.name, "data": event.data, "user": event.user}
    if not event.fresh:
        fields["id"] = event.id
    return fields | ({"ts": event.ts} if event.ts and event.ts != now else {})


def _receive(hooks: Hooks, delivery: Delivery, now: int, key: PublicKey | None = None) -> Received:
    """`key`: of the certificate that was fetched for this request."""
    rule = rule_of(hooks, delivery.name)
    if delivery.method == "HEAD":
        return Received(reply=Reply(b""))
    if len(delivery.body) > MAX_BODY_BYTES:
        raise Problem(413, f"a request may have {MAX_BODY_BYTES:,} bytes")
    if delivery.body:  # what is signed is what was compressed then
        delivery = replace(delivery, body=decoded_body(delivery.headers, delivery.body, MAX_BODY_BYTES))
    if delivery.method == "POST":
        check_sender(hooks, rule, delivery, now, key)
    sent = _sent(rule, delivery)
    reply = _challenge(hooks, rule, sent, is_signed=delivery.method == "POST" and rule.verify is not None)
    if reply is not None or delivery.method == "GET":
        return Received(reply=reply or Reply(accepted([])))
    confirm = confirmation_url(rule, sent.body)
    return Received(_made(rule, sent, now), confirm=confirm)


# --- challenges ------------------------------------------------------------------------------------------------------


def _challenge(hooks: Hooks, rule: Rule, sent: Sent, *, is_signed: bool) -> Reply | None:
    """What a challenge is answered; None if the request is none. Only who signed a request gets a signature."""

    def sign(text: str) -> str:
        assert rule.verify is not None
        secret = hooks.secret(rule.verify.secret) or ""
        return hmac.new(secret.encode(errors="surrogateescape"), text.encode(), rule.verify.algorithm).hexdigest()

    if rule.challenge is None or (rule.challenge.sign is not None and not is_signed):
        return None
    if not rule.challenge.is_asked(sent.bindings()):
        return None
    if rule.challenge.token is not None:
        _check_token(hooks, rule, rule.challenge.token, sent)
    return _answer(rule, rule.challenge, sent, sign)


def _check_token(hooks: Hooks, rule: Rule, token: Token, sent: Sent) -> None:
    try:
        secret = hooks.secret(token.secret)
        if secret is None:
            raise BadSecret("it is not set")
        asked = sent.query.get(token.query)
        if not same_secret(asked if isinstance(asked, str) else "", secret):
            raise Problem(403, f"webhook {rule.name}: the field {token.query} of the query is not the token")
    except BadSecret as error:
        raise unusable(rule, token.secret, error) from None


def _answer(rule: Rule, challenge: Challenge, sent: Sent, sign: Callable[[str], str]) -> Reply:
    try:
        answer = challenge.answer_to(sent.bindings(), sign)
    except BadChallenge as error:
        raise _refused(rule, error) from None
    if isinstance(answer, bytes):
        return Reply(answer, headers=_PLAIN)
    return Reply(answer.encode("utf-8", "replace"), "text/plain; charset=utf-8", _PLAIN)


# --- what the rule makes of it ---------------------------------------------------------------------------------------


def _sent(rule: Rule, delivery: Delivery) -> Sent:
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


def _made(rule: Rule, sent: Sent, now: int) -> Event | None:
    try:
        fields = rule.event_of(sent)
        return None if fields is None else _event(fields, now)
    except RuleError as error:
        log.warning("webhook %s made no event of a request: %s", rule.name, error)
        raise _refused(rule, error) from None


def _delivery(rule: Rule, headers: Mapping[str, str], content: Any) -> str | None:
    """What the sender calls this delivery."""
    name = delivery_field(rule.verify)
    if name and isinstance(content, dict):
        found = content.get(name)
        if isinstance(found, str | int) and not isinstance(found, bool):
            return str(found)
    return next((headers[header] for header in delivery_headers(rule.verify) if headers.get(header)), None)


def _event(fields: dict[str, Any], now: int) -> Event:
    """As one that is sent to `/e`."""
    try:
        (event,) = parse_events(_json(fields), now, new_event_id, engine_ids=(EngineId.WEBHOOK,), levels=MADE_LEVELS)
    except BadRequest as bad:
        error = bad.errors[0]
        if bad.status == 413:
            message = f"the event would have more than {MAX_EVENT_BYTES:,} bytes; let the rule's `data` take less"
            raise Problem(413, message) from None
        raise RuleError(error.pointer.split("/")[1] if error.pointer else "data", "", error.message) from None
    return event


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError as error:  # nested too deeply, or a number of more than 64 bits
        raise RuleError("data", "", f"cannot be written as JSON: {error}") from None


def _refused(rule: Rule, error: RuleError | BadChallenge) -> Problem:
    field = "event" if error.field == "name" else error.field
    expression = error.expression or rule.expressions.get(field, "")
    shown = f" `{expression}`" if expression else ""
    about = {"pointer": f"/{field}", "expression": expression, "message": error.why}
    return Problem(422, f"webhook {rule.name}: {field}{shown}: {error.why}", errors=[about])


def _query(text: str) -> dict[str, Any]:
    try:
        return fields_of(text, "replace")
    except ValueError as error:
        raise Problem(400, f"the query cannot be read: {error}") from None
