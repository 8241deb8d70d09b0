"""The HTTP API answers the same on every platform."""

from __future__ import annotations

import pytest

from tests.behaviour.words import Platform, Refused, function


def test_what_was_sent_over_http_is_found_over_http(platform: Platform) -> None:
    platform.deploy(function())
    (event_id,) = platform.api("POST", "/e", {"name": "go", "user": {"id": "ada"}})["ids"]
    platform.settle()
    (run,) = platform.api("GET", "/v1/runs?user=ada")["data"]
    assert (run["event_id"], run["status"]) == (event_id, "completed")


def test_what_is_not_there_is_refused_in_words(platform: Platform) -> None:
    with pytest.raises(Refused, match="there is no run 'nothing'"):
        platform.api("GET", "/v1/runs/nothing")
    answer = platform.http("GET", "/v1/nothing")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
