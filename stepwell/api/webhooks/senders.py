"""Verifies the signature of webhook requests.

Before the signature is verified, only the certificate's URL is read from the body. No response and no log line contains
the value of a secret.
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

_RETRY_AFTER = {"retry-after": "30"}


class NeedsCertificate(Exception):
    """The certificate at this URL must be fetched before the request can be verified."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


def check_sender(hooks: Hooks, rule: Rule, delivery: Delivery, now: int, key: PublicKey | None) -> None:
    """Verifies that a request is signed as the rule requires. `key` is a fetched key of SNS.

    Raises Problem 401 or 503, and NeedsCertificate.
    """
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
        raise unusable_secret(rule, verify.secret, error) from None


def _check_with_secret(hooks: Hooks, verify: Verify, signed: Signed, now: int) -> None:
    secret = hooks.secret(verify.secret)
    try:
        check_signature(verify, secret, signed, now)
    except BadSignature:
        newer = hooks.secret(verify.secret, again=True)  # the cached secret may be outdated
        if newer == secret:
            raise
        check_signature(verify, newer, signed, now)


def _check_sns(hooks: Hooks, verify: Verify, delivery: Delivery, now: int, key: PublicKey | None) -> None:
    try:
        message = read_body("application/json", delivery.body)
    except ValueError as error:
        raise BadSignature(f"the body is not a message of SNS: {error}") from None
    url = sns.certificate_url(message)
    key = key or hooks.certificates.key(url)
    if key is None:
        raise NeedsCertificate(url)
    sns.check_message(verify, message, key, now)


def confirmation_url(rule: Rule, message: Any) -> str | None:
    """The URL that confirms the subscription, if a verified message of SNS requests a confirmation. Raises Problem
    401."""
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


def unusable_secret(rule: Rule, secret: str, error: BadSecret) -> Problem:
    """The 503 response if the server's secret is missing or wrong. The reason is only logged."""
    log.error("webhook %s cannot check signatures with the secret %s: %s", rule.name, secret, error)
    message = f"webhook {rule.name} cannot check signatures now; the server's log has the reason; try again later"
    return Problem(503, message, _RETRY_AFTER)
