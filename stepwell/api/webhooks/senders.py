"""Who sent a request to a webhook: whether it is signed as its rule says.

One rule: nothing of an unsigned body is read but where its certificate is, and no answer or log has a secret's value.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from stepwell.api.http.problem import Problem
from stepwell.api.ingest.ingest import WEBHOOKS
from stepwell.api.webhooks.body import read_body
from stepwell.core.webhooks import sns
from stepwell.core.webhooks.rsa import PublicKey
from stepwell.core.webhooks.senders import needs_url
from stepwell.core.webhooks.signatures import BadSecret, BadSignature, Signed, Verify, check_signature
from stepwell.core.webhooks.webhooks import Rule

if TYPE_CHECKING:
    from stepwell.api.webhooks.webhooks import Delivery, Hooks

log = logging.getLogger("stepwell.webhooks")

_AGAIN = {"retry-after": "30"}


class NeedsCertificate(Exception):
    """The request can be checked once this has been fetched."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


def check_sender(hooks: Hooks, rule: Rule, delivery: Delivery, now: int, key: PublicKey | None) -> None:
    """Raises Problem 401 or 503, NeedsCertificate."""
    verify = rule.verify
    if verify is None:
        return
    try:
        if verify.type == "sns":
            _check_sns(hooks, verify, delivery, now, key)
        else:
            _check_with_secret(hooks, verify, _signed(hooks, rule, verify, delivery), now)
    except BadSignature as error:
        log.info("webhook %s refused a request: %s", rule.name, error)
        raise Problem(401, f"webhook {rule.name}: {error}") from None
    except BadSecret as error:
        raise unusable(rule, verify.secret, error) from None


def _check_with_secret(hooks: Hooks, verify: Verify, signed: Signed, now: int) -> None:
    secret = hooks.secret(verify.secret)
    try:
        check_signature(verify, secret, signed, now)
    except BadSignature:
        newer = hooks.secret(verify.secret, again=True)  # was it changed a moment ago?
        if newer == secret:
            raise
        check_signature(verify, newer, signed, now)


def _check_sns(hooks: Hooks, verify: Verify, delivery: Delivery, now: int, key: PublicKey | None) -> None:
    try:
        message = read_body("application/json", delivery.body)
    except ValueError as error:
        raise BadSignature(f"the body is no message of SNS: {error}") from None
    url = sns.certificate_url(message)
    key = key or hooks.certificates.key(url)
    if key is None:
        raise NeedsCertificate(url)
    sns.check_message(verify, message, key, now)


def confirmation_url(rule: Rule, message: Any) -> str | None:
    """Where the subscription is confirmed that a checked request asks for. Raises Problem 401."""
    if rule.verify is None or rule.verify.type != "sns":
        return None
    try:
        return sns.confirmation_url(rule.verify, message)
    except BadSignature as error:
        raise Problem(401, f"webhook {rule.name}: {error}") from None


def _signed(hooks: Hooks, rule: Rule, verify: Verify, delivery: Delivery) -> Signed:
    url = ""
    if needs_url(verify) or verify.query:
        url = verify.url or f"{(delivery.base_url or hooks.public_url).rstrip('/')}{WEBHOOKS}{rule.name}"
        url += f"?{delivery.query}" if delivery.query else ""
    return Signed(delivery.headers, delivery.body, url, delivery.method)


def unusable(rule: Rule, secret: str, error: BadSecret) -> Problem:
    """The server's own fault; its log says what is wrong with the secret."""
    log.error("webhook %s cannot check signatures with the secret %s: %s", rule.name, secret, error)
    message = f"webhook {rule.name} cannot check signatures now, its server's log says why; send it again later"
    return Problem(503, message, _AGAIN)
