"""Approval links in events, as they are stored: without their signatures, so that who reads a store cannot decide.

A link is `<url>/approvals/<text>.<signature>`. What is stored of it ends before the signature's digits, and so still
names the signature's key; the signature is made again for the step that is to send the link to somebody.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from stepwell.core.events.events import Event
from stepwell.core.signing import SIGNATURE, UNNAMED, Signer

REQUESTED = "stepwell/approval.requested"
TEXT = r"([a-z2-7]{26})\.(\d{1,4})\.(\d{1,4})\.([ad])\.(\d{1,15})"
"""What a link's token says: run, step, attempt, decision, expiry."""
_WHOLE = re.compile(rf"{TEXT}\.{SIGNATURE}", re.ASCII)
_CUT = re.compile(rf"(?P<text>{TEXT})\.(?:(?P<key>[a-z2-7]{{8}})\.)?", re.ASCII)
_DIGITS = 32  # of a signature


def signed_text(text: str) -> bytes:
    """What the signature of a link is of. The keys sign other texts too: none of them begins like this."""
    return b"approval:" + text.encode()


def stored_body(event: Event) -> bytes:
    """The body of an event, without signatures of approval links."""
    return _with_urls(event, lambda url: url[:-_DIGITS] if _WHOLE.fullmatch(url.rpartition("/")[2]) else url)


def whole_body(event: Event, keys: Callable[[], Signer]) -> bytes:
    """The body of an event as it was before `stored_body`. Raises KeysUnreadable."""
    if not _tells(event):
        return event.body
    return _with_urls(event, lambda url: _signed_again(url, keys))


def whole_data(event: Event, keys: Callable[[], Signer]) -> dict[str, Any]:
    """Its data likewise. Raises KeysUnreadable."""
    return _with_other_urls(event.data, lambda url: _signed_again(url, keys)) if _tells(event) else event.data


def _signed_again(url: str, keys: Callable[[], Signer]) -> str:
    address, _, cut = url.rpartition("/")
    found = _CUT.fullmatch(cut)
    if found is None:
        return url
    signature = keys().sign(signed_text(found["text"]), found["key"] or UNNAMED)
    return f"{address}/{found['text']}.{signature}"


def _with_urls(event: Event, change: Callable[[str], str]) -> bytes:
    if not _tells(event):
        return event.body
    return orjson.dumps({**event.as_json(), "data": _with_other_urls(event.data, change)})


def _with_other_urls(data: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {**data, **{name: change(data[name]) for name in ("approve_url", "decline_url")}}


def _tells(event: Event) -> bool:
    """Whether it is one that tells that people are asked."""
    return event.name == REQUESTED and not event.erased
