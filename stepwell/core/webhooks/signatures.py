"""Checks the signatures of webhook requests, and the time of signing.

- Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
- Twilio: https://www.twilio.com/docs/usage/security#validating-requests
- all others use HMACs or secret texts, with the details in `core.webhooks.senders`

Secrets never appear in messages, and are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from urllib.parse import urlsplit

from stepwell.core.webhooks.form import form_fields

ALGORITHMS = ("sha1", "sha256", "sha384", "sha512")
ENCODINGS = ("hex", "base64")
_MOST = 20  # signatures of one request that are checked
_SEPARATORS = re.compile(r"[,;\s]+")
_ANY_PREFIX = re.compile(r"^(?:sha\d+|v\d+)=", re.IGNORECASE)
_EPOCH = re.compile(r"[0-9]{1,15}")
_SECONDS_DIGITS = 11  # a number with more digits is in milliseconds
_PLACE = re.compile(r"\{\{\s*(ts|body|url|method|headers\['([A-Za-z0-9-]+)'\])\s*\}\}")
_FORM = "application/x-www-form-urlencoded"


class BadSignature(Exception):
    """The request is not signed correctly, or is too old. The message contains the reason."""


class BadSecret(Exception):
    """The secret cannot be used to check signatures. The message contains the reason, but not the secret."""


@dataclass(frozen=True, slots=True)
class Verify:
    """How requests are signed. Header names are in lower case. `tolerance_ms`: the maximum difference between the time
    in a signature and now."""

    type: str
    secret: str  # the name of the secret
    header: str
    algorithm: str = "sha256"
    encoding: str = "hex"
    tolerance_ms: int = 300_000
    prefix: str = ""  # the text before a signature; the parts of the header with this prefix are signatures
    over: str = "{{body}}"  # the template of the signed text
    timestamp: str = ""  # the header with the time of signing; or `t=`, a part of the signature's header
    query: str = ""  # for `token`: the field of the query with the token, in place of a header
    url: str = ""  # the address that the sender sends to, if the signature covers it
    topics: tuple[str, ...] = ()  # for `sns`: the ARNs of the topics that may send
    confirm: bool = False  # for `sns`: whether subscriptions to these topics are confirmed


@dataclass(frozen=True, slots=True)
class Signed:
    """The parts of a request that a signature may cover. Header names are in lower case. `url`: the address that the
    sender sent the request to, with the query."""

    headers: Mapping[str, str]
    body: bytes
    url: str = ""
    method: str = "POST"

    @property
    def query(self) -> dict[str, str]:
        """The fields of the query. If a field is repeated, the first one counts."""
        return dict(reversed(form_fields(urlsplit(self.url).query, "replace")))


def check_signature(verify: Verify, secret: str | None, signed: Signed, now: int) -> None:
    """Raises BadSignature if no signature of the request is right, BadSecret if the secret cannot be used.

    `now`: ms since the epoch.
    """
    if secret is None:
        raise BadSecret(
            "it is not set; set it as an environment variable of the server, or on AWS with `stepwell secrets set`"
        )
    if verify.type == "standard-webhooks":
        _check_standard(verify, secret, signed, now)
    elif verify.type == "twilio":
        _check_twilio(verify, secret, signed)
    elif verify.type in ("token", "gitlab", "telegram"):
        _check_token(verify, secret, signed)
    else:
        _check_hmac(verify, secret, signed, now)


def places(over: str) -> list[str]:
    """The names in the template of a signed text: ts, body, url, method, headers. Raises ValueError for others."""
    rest = _PLACE.sub("", over)
    if "{{" in rest or "}}" in rest:
        raise ValueError(
            "only {{ts}}, {{body}}, {{url}}, {{method}} and {{headers['x-name']}} are allowed in the signed text"
        )
    return ["headers" if match[2] else match[1] for match in _PLACE.finditer(over)]


def check_time(text: str, tolerance_ms: int, now: int) -> None:
    """Raises BadSignature if a time is too far from now. `text`: seconds or milliseconds since 1970, or RFC 3339."""
    at = _ms(text)
    if at is None:
        raise BadSignature("the signature contains no time in seconds since 1970")
    if abs(now - at) > tolerance_ms:
        when = "too old" if now > at else "from the future"
        raise BadSignature(f"the signature is {when}: it may differ from now by at most {tolerance_ms // 1000} s")


# --- each kind -------------------------------------------------------------------------------------------------------


def _check_hmac(verify: Verify, secret: str, signed: Signed, now: int) -> None:
    sent = _header(signed.headers, verify.header)
    parts = [item for item in _SEPARATORS.split(sent) if item]
    when = ""
    if verify.timestamp:
        if verify.timestamp.endswith("="):
            when = next((part[len(verify.timestamp) :] for part in parts if part.startswith(verify.timestamp)), "")
        else:
            when = _header(signed.headers, verify.timestamp)
        check_time(when, verify.tolerance_ms, now)
    if verify.prefix:
        signatures = [part.removeprefix(verify.prefix) for part in parts if part.startswith(verify.prefix)]
    else:
        signatures = [_ANY_PREFIX.sub("", part) for part in parts]
    digest = hmac.digest(_bytes(secret), _content(verify.over, signed, when), verify.algorithm)
    if verify.encoding == "hex":
        _compare((signature.lower() for signature in signatures), digest.hex().encode())
    else:
        _compare(signatures, base64.b64encode(digest))


def _check_standard(verify: Verify, secret: str, signed: Signed, now: int) -> None:
    sent = _header(signed.headers, verify.header)
    prefix = verify.header.removesuffix("signature")
    message_id, when = _header(signed.headers, f"{prefix}id"), _header(signed.headers, f"{prefix}timestamp")
    check_time(when, verify.tolerance_ms, now)
    content = b".".join([message_id.encode("latin-1"), when.encode("latin-1"), signed.body])
    signatures = (name.removeprefix("v1,") for name in sent.split() if name.startswith("v1,"))
    _compare(signatures, base64.b64encode(hmac.digest(_standard_key(secret), content, "sha256")))


def _check_token(verify: Verify, secret: str, signed: Signed) -> None:
    if verify.query:
        sent = signed.query.get(verify.query, "")
        if not sent:
            raise BadSignature(f"the field {verify.query} of the query is missing")
    else:
        sent = _header(signed.headers, verify.header)
        if not sent.startswith(verify.prefix):
            raise BadSignature(f"the header {verify.header} does not begin with {verify.prefix!r}")
        sent = sent.removeprefix(verify.prefix)
    if not same_secret(sent, secret):
        raise BadSignature("the token is wrong")


def same_secret(sent: str, secret: str) -> bool:
    """Whether a text from a request is the secret. Raises BadSecret."""
    return hmac.compare_digest(sent.encode("utf-8", "replace"), _bytes(secret.strip()))


def _check_twilio(verify: Verify, secret: str, signed: Signed) -> None:
    """Checks a signature of Twilio. It covers the URL and a form; other bodies have a hash in the query."""
    sent = _header(signed.headers, verify.header)
    fields = ""
    if signed.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        try:
            pairs = form_fields(signed.body.decode("utf-8", "replace"), "replace")
        except ValueError as error:
            raise BadSignature(f"the form cannot be read: {error}") from None
        fields = "".join(name + value for name, value in sorted(set(pairs)))
    elif signed.body:
        digest = signed.query.get("bodySHA256", "").lower()
        if not hmac.compare_digest(digest.encode("utf-8", "replace"), hashlib.sha256(signed.body).hexdigest().encode()):
            raise BadSignature("the hash of the body differs from bodySHA256 in the query")
    key = _bytes(secret)
    right = [
        base64.b64encode(hmac.digest(key, (url + fields).encode("utf-8", "surrogateescape"), "sha1"))
        for url in _with_and_without_port(signed.url)
    ]
    try:
        _compare([sent], *right)
    except BadSignature:
        where = signed.url.partition("?")[0]
        raise BadSignature(
            f"the signature is wrong for {where}; check that the sender uses this address, and the right token is set"
        ) from None


def _with_and_without_port(url: str) -> Iterator[str]:
    """A URL with and without the default port: Twilio signs some addresses with the port, and others without."""
    yield url
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.netloc.removesuffix(f":{usual}")
    yield url.replace(parts.netloc, host if host != parts.netloc else f"{host}:{usual}", 1)


def _content(over: str, signed: Signed, when: str) -> bytes:
    """The signed bytes. `over`: the template; `when`: the value of {{ts}}."""

    def value(place: re.Match[str]) -> bytes:
        if place[2]:
            return _header(signed.headers, place[2].lower()).encode("latin-1", "replace")
        if place[1] == "body":
            return signed.body
        text = {"ts": when, "url": signed.url, "method": signed.method}[place[1]]
        return text.encode("utf-8", "surrogateescape")

    content, end = b"", 0
    for place in _PLACE.finditer(over):
        content += over[end : place.start()].encode() + value(place)
        end = place.end()
    return content + over[end:].encode()


# --- helpers ---------------------------------------------------------------------------------------------------------


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise BadSignature(f"the header {name} is missing")
    return value


def _ms(text: str) -> int | None:
    if _EPOCH.fullmatch(text):
        return int(text) * (1000 if len(text) <= _SECONDS_DIGITS else 1)
    try:
        at = datetime.fromisoformat(text) if len(text) <= 40 else None
    except ValueError:
        return None
    return None if at is None or at.tzinfo is None else round(at.timestamp() * 1000)


def _compare(sent: Iterable[str], *right: bytes) -> None:
    found = False
    for signature in islice(sent, _MOST):
        for content in right:
            found |= hmac.compare_digest(signature.encode("utf-8", "replace"), content)
    if not found:
        raise BadSignature("no signature is right; check the secret, and that no proxy changes the body")


def _standard_key(secret: str) -> bytes:
    """The key for Standard Webhooks: the secret is written in base64, after `whsec_`.

    Some senders write `v1,` before it, or leave out the padding.
    """
    text = secret.strip().removeprefix("v1,").removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise BadSecret("it is not base64 (with or without whsec_ in front), as Standard Webhooks require")
    return key


def _bytes(secret: str) -> bytes:
    if not secret:
        raise BadSecret("it is empty")
    return secret.encode(errors="surrogateescape")
