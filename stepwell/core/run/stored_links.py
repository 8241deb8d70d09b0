"""Removes the signatures of approval links from stored events, so that read access to a store allows no decision.

A link is `<url>/approvals/<text>.<signature>`. The stored link ends before the digits of the signature, so it contains
the key id. The signature is created again for the step that sends the link to people.
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
"""The text of a link's token: run, step, attempt, decision, expiry."""
_WHOLE = re.compile(rf"{TEXT}\.{SIGNATURE}", re.ASCII)
_CUT = re.compile(rf"(?P<text>{TEXT})\.(?:(?P<key>[a-z2-7]{{8}})\.)?", re.ASCII)
_DIGITS = 32  # the length of a signature without the key id


def signed_text(text: str) -> bytes:
    """The bytes that the signature of a link covers. No other text that the keys sign begins with this prefix."""
    return b"approval:" + text.encode()


def stored_body(event: Event) -> bytes:
    """The body of an event for the store, without the signatures of approval links."""
    return _with_urls(event, lambda url: url[:-_DIGITS] if _WHOLE.fullmatch(url.rpartition("/")[2]) else url)


def whole_body(event: Event, keys: Callable[[], Signer]) -> bytes:
    """The body of a stored event, with the signatures of approval links. Raises KeysUnreadable."""
    if not _has_links(event):
        return event.body
    return _with_urls(event, lambda url: _signed_again(url, keys))


def whole_data(event: Event, keys: Callable[[], Signer]) -> dict[str, Any]:
    """The data of a stored event, with the signatures of approval links. Raises KeysUnreadable."""
    return _with_other_urls(event.data, lambda url: _signed_again(url, keys)) if _has_links(event) else event.data


def _signed_again(url: str, keys: Callable[[], Signer]) -> str:
    address, _, cut = url.rpartition("/")
    found = _CUT.fullmatch(cut)
    if found is None:
        return url
    signature = keys().sign(signed_text(found["text"]), found["key"] or UNNAMED)
    return f"{address}/{found['text']}.{signature}"


def _with_urls(event: Event, change: Callable[[str], str]) -> bytes:
    if not _has_links(event):
        return event.body
    return orjson.dumps({**event.as_json(), "data": _with_other_urls(event.data, change)})


def _with_other_urls(data: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {**data, **{name: change(data[name]) for name in ("approve_url", "decline_url")}}


def _has_links(event: Event) -> bool:
    """Whether the event contains approval links."""
    return event.name == REQUESTED and not event.erased
