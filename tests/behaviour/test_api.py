"""The HTTP API gives the same answers on every platform."""

from __future__ import annotations

import pytest

from tests.behaviour.words import Platform, Refused, function


def test_sent_events_and_their_runs_can_be_read_over_http(platform: Platform) -> None:
    platform.deploy(function())
    (event_id,) = platform.api("POST", "/e", {"name": "go", "user": {"id": "ada"}})["ids"]
    platform.settle()
    (run,) = platform.api("GET", "/v1/runs?user=ada")["data"]
    assert (run["event_id"], run["status"]) == (event_id, "completed")


def test_unknown_ids_are_refused_with_a_message(platform: Platform) -> None:
    with pytest.raises(Refused, match="there is no run 'nothing'"):
        platform.api("GET", "/v1/runs/nothing")
    answer = platform.http("GET", "/v1/nothing")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
