"""Steps that send events, with limits: their attempts take and give back permits as others do."""

from __future__ import annotations

from tests.behaviour.words import Json, Platform, function

TELL: Json = {"path": None, "runtime": {"type": "emit", "event": "told", "data": "{'n': data.n}"}}


def test_steps_that_send_events_obey_the_limits_of_their_function(platform: Platform) -> None:
    platform.deploy(function({"tell": TELL, "b": "tell"}, concurrency={"limit": 1}))
    for n in range(5):
        platform.send(data={"n": n})
    assert [run["status"] for run in platform.runs()] == ["completed"] * 5
    assert [event["data"]["n"] for event in platform.events("told")] == list(range(5))
