"""`POST /webhooks/{name}`: from any sender's request to an event, by a stored rule.

One rule: whoever is to know a secret shows it first; nothing of an unsigned body is read, and no answer or log has a
secret's value. Plain functions, and loaded when the first such request comes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson

from stepwell.api.encoding import decoded_body
from stepwell.api.event_ids import new_event_id
from stepwell.api.ingest import MADE_LEVELS
from stepwell.api.problem import Problem
from stepwell.core.engine_ids import EngineId
from stepwell.core.events import MAX_BODY_BYTES, MAX_EVENT_BYTES, BadRequest, Event, parse_events
from stepwell.core.json_input import BadJson, large_integers, parse_json
from stepwell.core.signatures import BadSecret, BadSignature, check_signature, delivery_headers
from stepwell.core.webhooks import Rule, RuleError, Sent

log = logging.getLogger("stepwell.webhooks")

_MOST_FIELDS = 1000  # of a form or a query
_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "iso-8859-1": "latin-1"}
_CHARSET = re.compile(r";\s*charset=\"?([^\s;\"]+)", re.IGNORECASE)
_IS_JSON = re.compile(r"[^;]*[/+]json\s*(;|$)")
_FORM = "application/x-www-form-urlencoded"
_AGAIN = {"retry-after": "30"}
ALLOWED = ("POST", "GET", "HEAD")  # senders probe with GET or HEAD before they deliver


class Hooks(Protocol):
    """What a platform knows of webhooks."""

    def rule(self, name: str) -> Rule | None: ...

    def secret(self, name: str, *, again: bool = False) -> str | None:
        """The value of a secret, if it is set; what is remembered of it may be old, but not much if asked `again`."""


def rule_of(hooks: Hooks, name: str) -> Rule:
    """Raises Problem 404."""
    rule = hooks.rule(name)
    if rule is None:
        raise Problem(404, f"there is no webhook {name[:100]!r} here; `stepwell webhooks push` makes one")
    return rule


def event_of_request(
    hooks: Hooks, name: str, headers: Mapping[str, str], query: str, body: bytes, now: int
) -> Event | None:
    """The event that a rule makes of a request; None if the rule ignores it. Names of headers are in small letters,
    and `query` is as it was sent. Raises Problem 400, 401, 404, 413, 422 or 503."""
    rule = rule_of(hooks, name)
    if len(body) > MAX_BODY_BYTES:
        raise Problem(413, f"a request may have {MAX_BODY_BYTES:,} bytes")
    body = decoded_body(headers, body, MAX_BODY_BYTES)  # what is signed is what was compressed then
    _check_signature(hooks, rule, headers, body, now)
    return _made(rule, headers, query, body, now)


def made_event(rule: dict[str, Any], headers: Mapping[str, str], query: str, body: bytes) -> dict[str, Any] | None:
    """What an event's sender would have to send to `/e`, by a rule and a request whose signature is not looked at; None
    if the rule ignores it. Raises Problem 400, 413 or 422."""
    event = _made(Rule.of(rule), headers, query, body, 0)
    if event is None:
        return None
    fields: dict[str, Any] = {"name": event.name, "data": event.data, "user": event.user}
    if not event.fresh:
        fields["id"] = event.id
    return fields | ({"ts": event.ts} if event.ts else {})


def _made(rule: Rule, headers: Mapping[str, str], query: str, body: bytes, now: int) -> Event | None:
    try:
        content = read_body(headers.get("content-type", ""), body)
    except ValueError as error:
        if rule.needs_body:
            raise Problem(400, f"webhook {rule.name}: {error}") from None
        content = None
    sent = Sent(content, headers, _query(query), _delivery(rule, headers, content))
    try:
        fields = rule.event_of(sent)
        return None if fields is None else _event(fields, now)
    except RuleError as error:
        log.warning("webhook %s made no event of a request: %s", rule.name, error)
        raise _refused(rule, error) from None


def read_body(content_type: str, body: bytes) -> Any:
    """The body as JSON data: of JSON, a form, or text. Raises ValueError."""
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = _IS_JSON.match(content_type.lower()) is not None
    if not body:
        return {} if media_type == _FORM else None
    if is_json or not media_type:
        try:
            content = parse_json(body)
        except BadJson as error:
            if is_json:
                raise ValueError(f"the body is not JSON, as its content type says: {error}") from None
        else:
            for pointer in large_integers(body):
                raise ValueError(f"{pointer or 'the body'}: the number does not fit into 64 bits; send it as a text")
            return content
    text = _text(content_type, body)
    return _fields(text, "strict") if media_type == _FORM else text


def _check_signature(hooks: Hooks, rule: Rule, headers: Mapping[str, str], body: bytes, now: int) -> None:
    verify = rule.verify
    if verify is None:
        return
    try:
        secret = hooks.secret(verify.secret)
        try:
            check_signature(verify, secret, headers, body, now)
        except BadSignature:
            newer = hooks.secret(verify.secret, again=True)  # was it changed a moment ago?
            if newer == secret:
                raise
            check_signature(verify, newer, headers, body, now)
    except BadSignature as error:
        log.info("webhook %s refused a request: %s", rule.name, error)
        raise Problem(401, f"webhook {rule.name}: {error}") from None
    except BadSecret as error:
        log.error("webhook %s cannot check signatures with the secret %s: %s", rule.name, verify.secret, error)
        message = f"webhook {rule.name} cannot check signatures now, its server's log says why; send it again later"
        raise Problem(503, message, _AGAIN) from None


def _delivery(rule: Rule, headers: Mapping[str, str], content: Any) -> str | None:
    """What the sender calls this delivery."""
    if rule.verify is not None and rule.verify.type == "stripe":
        its = content.get("id") if isinstance(content, dict) else None
        return its if isinstance(its, str) else None
    return next((headers[its] for its in delivery_headers(rule.verify) if headers.get(its)), None)


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


def _refused(rule: Rule, error: RuleError) -> Problem:
    field = "event" if error.field == "name" else error.field
    expression = error.expression or rule.expressions.get(field, "")
    shown = f" `{expression}`" if expression else ""
    about = {"pointer": f"/{field}", "expression": expression, "message": error.why}
    return Problem(422, f"webhook {rule.name}: {field}{shown}: {error.why}", errors=[about])


def _text(content_type: str, body: bytes) -> str:
    named = _CHARSET.search(content_type)
    charset = _CHARSETS.get(named[1].lower()) if named else "utf-8"
    if charset is None:
        raise ValueError("the body's charset is not read here; send it in UTF-8")
    try:
        return body.decode(charset)
    except UnicodeDecodeError:
        raise ValueError("the body is not in UTF-8") from None


def _query(text: str) -> dict[str, Any]:
    try:
        return _fields(text, "replace")
    except ValueError as error:
        raise Problem(400, f"the query cannot be read: {error}") from None


def _fields(text: str, errors: str) -> dict[str, Any]:
    """Of a form or a query, by name: a text, or a list of texts if it is there more than once."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors=errors, max_num_fields=_MOST_FIELDS):
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found
