"""Clients of Inngest's event API: their requests are accepted, and a repeated request makes no second event."""

from __future__ import annotations

from base64 import b64encode

import orjson
import pytest

from tests.behaviour.words import Json, Platform, function

HEADER = "x-inngest-event-id-seed"
SEED = f"1780308030000,{b64encode(bytes(range(10))).decode()}"
LAST = f"1780308030000,{b64encode(bytes([255] * 10)).decode()}"


def send(platform: Platform, seed: str, *events: Json) -> list[str]:
    headers = {HEADER: seed, "content-type": "application/json", "x-inngest-sdk": "py:v0.5.0"}
    ids: list[str] = platform.http("POST", "/e", orjson.dumps(events), headers).json()["ids"]
    return ids


def event(n: int = 0, **fields: object) -> Json:
    """An event in the form that Inngest's SDKs send."""
    return {"name": "go", "data": {"n": n}, "ts": 1780308030000, **fields}


def test_a_repeated_request_makes_no_second_events(platform: Platform) -> None:
    platform.deploy(function())
    first = send(platform, SEED, event(1), event(2))
    assert send(platform, SEED, event(1), event(2)) == first
    assert len(set(first)) == 2
    assert len(platform.runs()) == 2


def test_a_different_seed_gives_different_ids_and_the_largest_one_wraps_around(platform: Platform) -> None:
    ids = [*send(platform, SEED, event(), event()), *send(platform, LAST, event(), event())]
    assert len(set(ids)) == 4
    assert len(platform.events("go")) == 4


def test_an_events_own_id_overrides_the_seed(platform: Platform) -> None:
    assert send(platform, SEED, event(id="mine"), event())[0] == "mine"


@pytest.mark.parametrize(
    "seed",
    [
        "",
        "now",
        "1780308030000",
        "1780308030000,",
        f"-1,{SEED[14:]}",
        f"1780308030000,{SEED[14:-4]}",
        f"{'9' * 16},{SEED[14:]}",
        f"999999999999999,{SEED[14:]}",  # more than 48 bits
    ],
)
def test_an_invalid_seed_is_ignored(platform: Platform, seed: str) -> None:
    assert send(platform, seed, event()) != send(platform, seed, event())
    assert len(platform.events("go")) == 2
