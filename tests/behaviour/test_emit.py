"""Steps of type `emit`: they send an event, once, and end with the event's id."""

from __future__ import annotations

from typing import Any

import pytest

from tests.behaviour.words import START, Json, Platform, Refused, function, moment, script, statuses

TYPE: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def emit(after: Any = (), event: str = "packed", **fields: Any) -> Json:
    """A step that sends an event. `fields`: data, user, ts."""
    edges = [after] if isinstance(after, str | dict) else list(after)
    return {"path": None, "runtime": {"type": "emit", "event": event, **fields}, "after": edges}


def emitted(platform: Platform, name: str = "packed") -> Json:
    """The only event with this name."""
    platform.settle()
    (event,) = platform.events(name)
    return event


def failed(platform: Platform, step: Json, **sent: Any) -> Json:
    """The error of a step that sends nothing."""
    platform.deploy(function({"tell": step, "b": {"after": {"step": "tell", "on": "failure"}}}))
    (run,) = platform.runs(platform.send(**sent))
    assert (run["status"], statuses(run)) == ("completed", {"tell": "failed", "b": "completed"})
    assert [attempt["status"] for attempt in run["steps"]["tell"]["attempts"]] == ["failed"]
    assert platform.events("packed") == []
    error: Json = run["steps"]["tell"]["error"]
    return error


# --- the event -------------------------------------------------------------------------------------------------------


def test_a_step_sends_an_event_and_ends_with_its_id(platform: Platform) -> None:
    data = "{'order': data.order, 'boxes': steps.pack.boxes}"
    platform.deploy(function({"pack": {}, "tell": emit("pack", data=data), "b": "tell"}))
    sent = platform.send(data={"order": 7, **script(pack={"return": {"boxes": 2}}, b={"input": True})})
    (run,) = platform.runs(sent)
    assert statuses(run) == {"pack": "completed", "tell": "completed", "b": "completed"}
    event = emitted(platform)
    assert event["data"] == {"order": 7, "boxes": 2}
    assert (event["name"], event["ts"], event["v"]) == ("packed", round(START.timestamp() * 1000), None)
    assert run["steps"]["tell"]["output"] == {"id": event["id"]}
    assert run["output"]["b"]["steps"]["tell"] == {"id": event["id"]}
    assert event["id"] == f"emit:{run['id']}:tell"


def test_the_event_starts_functions_and_wakes_waits(platform: Platform) -> None:
    platform.deploy(function({"tell": emit(data="{'n': data.n}")}, id="sender"))
    platform.deploy(function(id="receiver", on={"event": "packed", "expression": "data.n > 1"}))
    waits = {"event": "packed", "match": "async.data.n == event.data.n", "ttl": "1d"}
    platform.deploy(function({"a": {"after": {"step": "$trigger", "async": waits}}}, id="waiter", on="wait"))
    waiting = platform.send("wait", {"n": 2})
    platform.settle()
    platform.send(data={"n": 2})
    event = emitted(platform)
    (received,) = platform.runs(event["id"])
    (woken,) = platform.runs(waiting)
    assert (received["function_id"], received["status"]) == ("receiver", "completed")
    assert (woken["status"], woken["steps"]["a"]["after"][0]["event_id"]) == ("completed", event["id"])


def test_an_event_that_starts_nothing_is_stored(platform: Platform) -> None:
    platform.deploy(function({"tell": emit()}))
    platform.send(data={"n": 1})
    event = emitted(platform)
    assert (event["data"], platform.runs(event["id"])) == ({}, [])


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, {"id": "ada", "plan": "pro"}),
        ("user", {"id": "ada", "plan": "pro"}),
        ("data.customer", {"id": "bob"}),
        ("{'email': 'eve@example.com'}", {"email": "eve@example.com"}),
        ("{}", {}),
    ],
)
def test_the_user_is_that_of_the_run_unless_the_step_names_another(
    platform: Platform, user: str | None, expected: Json
) -> None:
    platform.deploy(function({"tell": emit(user=user)}))
    platform.send(user={"id": "ada", "plan": "pro"}, data={"customer": "bob"})
    assert emitted(platform)["user"] == expected


@pytest.mark.parametrize(
    "ts", ["timestamp('2027-01-01T00:00:00Z')", "data.at", "data.ms", "timestamp(data.at) - duration('0s')"]
)
def test_ts_is_a_timestamp_a_text_or_milliseconds_and_delays_nothing(platform: Platform, ts: str) -> None:
    """An event whose `ts` lies in the future is accepted and starts functions at once, as any other."""
    platform.deploy(function({"tell": emit(ts=ts)}, id="sender"))
    platform.deploy(function(id="receiver", on="packed"))
    platform.send(data={"at": "2027-01-01T01:00:00+01:00", "ms": 1798761600000})
    event = emitted(platform)
    assert event["ts"] == 1798761600000
    (run,) = platform.runs(event["id"])
    assert (run["status"], moment(run["created_at"])) == ("completed", START)


def test_a_step_sees_the_event_that_it_waited_for_and_the_errors_before_it(platform: Platform) -> None:
    waits = {"event": "paid", "ttl": "1h"}
    data = "{'paid': async.data.n, 'why': errors.a.kind}"
    steps = {"a": {}, "tell": emit({"step": "a", "on": "failure", "async": waits}, data=data)}
    platform.deploy(function(steps))
    platform.send(data=script(a={"status": 404}))
    platform.settle()
    platform.send("paid", {"n": 3})
    assert emitted(platform)["data"] == {"paid": 3, "why": "status"}


# --- once ------------------------------------------------------------------------------------------------------------


def test_each_run_and_each_rerun_sends_an_event_of_its_own(platform: Platform) -> None:
    platform.deploy(function({"tell": emit()}))
    (first,) = platform.runs(platform.send())
    platform.runs(platform.send())
    again = platform.rerun(first["id"])
    platform.settle()
    ids = [event["id"] for event in platform.events("packed")]
    assert (len(ids), len(set(ids))) == (3, 3)
    assert f"emit:{again}:tell" in ids


def test_a_rerun_from_a_later_step_sends_nothing_again(platform: Platform) -> None:
    platform.deploy(function({"tell": emit(), "b": "tell"}))
    (run,) = platform.runs(platform.send())
    event = emitted(platform)
    again = platform.api("POST", f"/v1/runs/{run['id']}/rerun", {"from_step": "b"})["id"]
    kept = platform.run(again)["steps"]["tell"]
    assert (kept["kept"], kept["output"]) == (True, {"id": event["id"]})
    assert emitted(platform) == event


def test_several_steps_of_a_run_each_send_an_event(platform: Platform) -> None:
    steps = {f"tell-{n}": emit(data=f"{{'n': {n}}}") for n in range(20)}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send())
    assert run["status"] == "completed"
    assert sorted(event["data"]["n"] for event in platform.events("packed")) == list(range(20))


def test_a_restart_changes_nothing(platform: Platform) -> None:
    platform.deploy(function({"tell": emit(), "b": {"after": {"step": "tell", "wait": "1h"}}, "again": emit("b")}))
    (run,) = platform.runs(platform.send())
    platform.restart("2h")
    assert platform.run(run["id"])["status"] == "completed"
    assert len(platform.events("packed")) == 2


def test_a_skipped_or_cancelled_step_sends_nothing(platform: Platform) -> None:
    skipped = emit({"step": "$trigger", "if": "false"})
    platform.deploy(function({"skipped": skipped, "later": emit({"step": "$trigger", "wait": "1h"})}))
    (run,) = platform.runs(platform.send())
    platform.cancel(run["id"])
    platform.travel("2h")
    assert platform.events("packed") == []


def test_a_chain_of_events_goes_on_as_long_as_functions_continue_it(platform: Platform) -> None:
    """Nothing bounds a chain: an expression ends it."""
    platform.deploy(
        function({"tell": emit(event="go", data="{'n': data.n + 1}")}, on={"event": "go", "expression": "data.n < 30"})
    )
    platform.send(data={"n": 0})
    platform.settle()
    assert [event["data"]["n"] for event in platform.events("go")] == list(range(31))


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "{'n': data.missing}"}, '`data` has no value: there is no key "missing"'),
        ({"data": "data.text"}, '`data` is "later", but must be a map'),
        ({"data": "{'at': timestamp('2026-01-01T00:00:00Z')}"}, "which JSON cannot represent"),
        ({"user": "data.n"}, "`user` is 7, but must be a map, or the user's id as text"),
        ({"user": "data.long"}, "/user/id: id of a user must have at most 256 characters"),
        ({"ts": "data.text"}, "`ts` has no value: the value is the text 'later'; a time is"),
        ({"ts": "data.missing"}, '`ts` has no value: there is no key "missing"'),
        ({"ts": "data.n - 8"}, "/ts: ts must be a whole number of milliseconds since 1970"),
        ({"data": "{'x': data.large + data.large}"}, "bytes, more than 262,144"),
    ],
)
def test_a_step_whose_event_cannot_be_made_fails_and_is_not_retried(
    platform: Platform, fields: Json, message: str
) -> None:
    data = {"text": "later", "n": 7, "long": "x" * 300, "large": "x" * 140_000}
    error = failed(platform, emit(**fields), data=data)
    assert (error["kind"], message in error["message"]) == ("emit_failed", True), error


def test_a_step_whose_event_a_type_refuses_fails_with_the_errors(platform: Platform) -> None:
    platform.api("POST", "/v1/types", {"name": "packed", "version": "1", "schema": TYPE, "policy": "reject"})
    error = failed(platform, emit(data="{'n': 'seven'}"))
    assert error["kind"] == "event_refused"
    assert error["message"].startswith("the event packed does not match its schema: /data/n: ")
    assert [place["pointer"] for place in error["output"]["errors"]] == ["/data/n"]
    assert platform.events("stepwell/event.invalid") == []


def test_an_event_that_a_type_only_warns_about_is_sent_and_marked(platform: Platform) -> None:
    platform.api("POST", "/v1/types", {"name": "packed", "version": "1", "schema": TYPE, "policy": "warn"})
    platform.deploy(function({"tell": emit(data="{'n': 'seven'}")}))
    (run,) = platform.runs(platform.send())
    assert run["status"] == "completed"
    assert [error["pointer"] for error in emitted(platform)["invalid"]] == ["/data/n"]


@pytest.mark.parametrize(
    ("step", "pointer"),
    [
        (emit(event="stepwell/run.failed"), "/runtime/event"),
        (emit(event="stepwell/identify"), "/runtime/event"),
        (emit(event="order/*"), "/runtime/event"),
        (emit(event=""), "/runtime/event"),
        (emit(data="steps.b.x"), "/runtime/data"),
        (emit(data="1 +"), "/runtime/data"),
        (emit(ts="duration('1h')"), "/runtime/ts"),
        (emit(ts="'tomorrow'"), "/runtime/ts"),
        (emit(when="now"), "/runtime/when"),
        ({**emit(), "path": "file://steps"}, "/path"),
        ({**emit(), "env": {"A": "b"}}, "/env"),
        ({**emit(), "retries": {"attempts": 2}}, "/retries"),
        ({**emit(), "timeout": "1h"}, "/timeout"),
    ],
)
def test_an_invalid_step_is_refused_with_a_pointer(platform: Platform, step: Json, pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function({"tell": step, "b": {}}))
    assert [error["pointer"] for error in refused.value.errors] == [f"/steps/tell{pointer}"]


def test_senders_cannot_use_the_ids_of_such_events(platform: Platform) -> None:
    with pytest.raises(Refused, match="reserved"):
        platform.send("packed", id="emit:x:tell")
