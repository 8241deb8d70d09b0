"""Whether a webhook's request was signed by whom it should be, and when.

- Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
- Stripe: https://docs.stripe.com/webhooks#verify-manually
- GitHub: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries

One rule: what is secret stands in no message, and is compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

TYPES = ("standard-webhooks", "stripe", "github", "hmac")
ALGORITHMS = ("sha1", "sha256", "sha384", "sha512")
ENCODINGS = ("hex", "base64")
TIMED = frozenset({"standard-webhooks", "stripe"})
"""The kinds of signatures that say when they were made."""
HEADERS = {
    "standard-webhooks": "webhook-signature",
    "stripe": "stripe-signature",
    "github": "x-hub-signature-256",
}
_MOST = 20  # signatures that are looked at
_SEPARATORS = re.compile(r"[,\s]+")
_PREFIX = re.compile(r"^(?:sha\d+|v\d+)=", re.IGNORECASE)
_SECONDS = re.compile(r"\d{1,12}")


class BadSignature(Exception):
    """The request is not from whom it should be, or is too old; the message says why."""


class BadSecret(Exception):
    """No signature can be checked with this secret; the message says why, and not what it is."""


@dataclass(frozen=True, slots=True)
class Verify:
    """How requests are signed. `header` is in small letters; `tolerance_ms`: how far the time in a signature may be
    from now."""

    type: str
    secret: str  # its name
    header: str
    algorithm: str = "sha256"
    encoding: str = "hex"
    tolerance_ms: int = 300_000


def check_signature(verify: Verify, secret: str | None, headers: Mapping[str, str], body: bytes, now: int) -> None:
    """Whether one of the request's signatures is right. Names of headers are in small letters; `now`: ms since the
    epoch. Raises BadSignature, BadSecret."""
    if secret is None:
        raise BadSecret(
            "it is not set; set an environment variable of the server, or in AWS use `stepwell secrets set`"
        )
    sent = _header(headers, verify.header)
    if verify.type == "standard-webhooks":
        prefix = verify.header.removesuffix("signature")
        message_id, seconds = _header(headers, f"{prefix}id"), _header(headers, f"{prefix}timestamp")
        _check_time(seconds, verify.tolerance_ms, now)
        content = b".".join([message_id.encode("latin-1"), seconds.encode("latin-1"), body])
        signatures = (its.removeprefix("v1,") for its in sent.split() if its.startswith("v1,"))
        _compare(signatures, base64.b64encode(hmac.digest(_key(secret), content, "sha256")))
    elif verify.type == "stripe":
        parts = [part.strip().partition("=") for part in sent.split(",")]
        seconds = next((value for name, _, value in parts if name == "t"), "")
        _check_time(seconds, verify.tolerance_ms, now)
        content = seconds.encode("latin-1") + b"." + body
        signatures = (value for name, _, value in parts if name == "v1")
        _compare(signatures, _sha256(secret, content))
    elif verify.type == "github":
        signatures = (its.removeprefix("sha256=") for its in _several(sent) if its.startswith("sha256="))
        _compare(signatures, _sha256(secret, body))
    else:
        is_hex = verify.encoding == "hex"
        digest = hmac.digest(_bytes(secret), body, verify.algorithm)
        signatures = (_PREFIX.sub("", its) for its in _several(sent))
        _compare(
            (its.lower() if is_hex else its for its in signatures),
            digest.hex().encode() if is_hex else base64.b64encode(digest),
        )


def delivery_headers(verify: Verify | None) -> tuple[str, ...]:
    """The headers that may say which delivery a request is, so that one which is sent again is known."""
    if verify is None or verify.type == "hmac":
        return ("webhook-id", "svix-id", "x-github-delivery")
    if verify.type == "standard-webhooks":
        return (f"{verify.header.removesuffix('signature')}id",)
    return ("x-github-delivery",) if verify.type == "github" else ()


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise BadSignature(f"the header {name} is missing")
    return value


def _check_time(seconds: str, tolerance_ms: int, now: int) -> None:
    if not _SECONDS.fullmatch(seconds):
        raise BadSignature("the signature does not say when it was made, in seconds since 1970")
    age = now - int(seconds) * 1000
    if abs(age) > tolerance_ms:
        when = "too old" if age > 0 else "from the future"
        raise BadSignature(f"the signature is {when}: it may be {tolerance_ms // 1000} s away from now")


def _compare(sent: Iterable[str], right: bytes) -> None:
    found = False
    for number, its in enumerate(sent):
        if number == _MOST:
            break
        found |= hmac.compare_digest(its.encode("utf-8", "replace"), right)
    if not found:
        raise BadSignature("no signature is right: another secret, or a body that was changed on the way?")


def _several(header: str) -> Iterator[str]:
    return (its for its in _SEPARATORS.split(header) if its)


def _key(secret: str) -> bytes:
    """What Standard Webhooks sign with: the secret is written in base64, after `whsec_`. Some senders write `v1,`
    before it, or leave out the padding."""
    text = secret.strip().removeprefix("v1,").removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise BadSecret("its value is not base64, with or without whsec_ before it, as Standard Webhooks have secrets")
    return key


def _sha256(secret: str, content: bytes) -> bytes:
    return hmac.digest(_bytes(secret), content, "sha256").hex().encode()


def _bytes(secret: str) -> bytes:
    if not secret:
        raise BadSecret("its value is empty")
    return secret.encode(errors="surrogateescape")
