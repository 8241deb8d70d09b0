"""Tests signatures and signing keys."""

from __future__ import annotations

import orjson
import pytest

from stepwell.core.events.events import Event, internal_event
from stepwell.core.run.approvals import Link, Links
from stepwell.core.run.stored_links import REQUESTED, stored_body, whole_body, whole_data
from stepwell.core.signing import UNNAMED, SigningKeys, key_of, single_key

OLD, NEW = b"old secret", b"new secret"
KEYS = SigningKeys("newkey22", {"newkey22": NEW, UNNAMED: OLD})
LINK = Link("abcdefghijklmnopqrstuvwxyz", 0, 1, "approved", 1_780_000_000_000)


def test_a_signature_contains_the_key_id_unless_the_key_has_none() -> None:
    assert key_of(KEYS.sign(b"text")) == "newkey22"
    assert KEYS.sign(b"text") == f"newkey22.{single_key(NEW).sign(b'text')}"
    assert key_of(single_key(OLD).sign(b"text")) == UNNAMED


def test_all_listed_keys_are_valid() -> None:
    assert KEYS.is_signature(KEYS.sign(b"text"), b"text")
    assert KEYS.is_signature(single_key(OLD).sign(b"text"), b"text")
    assert not SigningKeys("newkey22", {"newkey22": NEW}).is_signature(single_key(OLD).sign(b"text"), b"text")


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "0",
        single_key(NEW).sign(b"text"),  # of the newest key, without the key id
        f"newkey22.{single_key(OLD).sign(b'text')}",
        f"{UNNAMED}.{single_key(OLD).sign(b'text')}",
        KEYS.sign(b"text").upper(),
        KEYS.sign(b"text") + "0",
        KEYS.sign(b"other"),
        f"otherkey.{single_key(NEW).sign(b'text')}",
    ],
)
def test_nothing_else_is_a_signature(signature: str) -> None:
    assert not KEYS.is_signature(signature, b"text")


def test_a_link_is_valid_while_its_key_is_listed() -> None:
    before, after = Links("", single_key(OLD)), Links("", KEYS)
    assert after.read(before.token(LINK)) == LINK
    assert after.read(after.token(LINK)) == LINK
    assert Links("", SigningKeys("newkey22", {"newkey22": NEW})).read(before.token(LINK)) is None


def test_a_signed_engine_message_is_not_a_link() -> None:
    text, _, signature = Links("", KEYS).token(LINK).partition(".newkey22")
    assert Links("", KEYS).read(f"{text}.{KEYS.sign(text.encode())}") is None
    assert Links("", KEYS).read(f"{text}.newkey22{signature}") == LINK


def test_a_stored_link_is_invalid_and_can_be_restored() -> None:
    for keys in (KEYS, single_key(OLD)):
        links = Links("https://stepwell.example", keys)
        url = f"https://stepwell.example/approvals/{links.token(LINK)}"
        urls = {"approve_url": url, "decline_url": url}
        event = internal_event(REQUESTED, {"run_id": LINK.run_id, **urls}, {"name": "Ad\u00e4"}, "approval:1", 5)
        stored = Event.stored(7, stored_body(event))
        cut = stored.data["approve_url"].rpartition("/")[2]
        assert links.read(cut) is None
        assert links.token(LINK).removeprefix(cut).isalnum()
        assert whole_body(stored, lambda keys=keys: keys) == event.body
        assert whole_body(event, lambda keys=keys: keys) == event.body
        assert whole_data(stored, lambda keys=keys: keys) == event.data


def test_a_link_whose_key_was_removed_is_signed_with_the_current_key() -> None:
    before = Links("https://stepwell.example", single_key(OLD))
    url = f"https://stepwell.example/approvals/{before.token(LINK)}"
    event = internal_event(REQUESTED, {"approve_url": url, "decline_url": url}, {}, "approval:1", 5)
    after = SigningKeys("newkey22", {"newkey22": NEW})
    body = whole_body(Event.stored(7, stored_body(event)), lambda: after)
    link = orjson.loads(body)["data"]["approve_url"].rpartition("/")[2]
    assert Links("", after).read(link) == LINK


def test_other_events_are_stored_unchanged() -> None:
    event = internal_event("paid", {"approve_url": "https://x/approvals/a.b"}, {}, "1", 5)
    assert stored_body(event) is event.body
