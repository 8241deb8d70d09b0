"""Waits: an edge that pauses until an event comes, or until no event came in time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, script, statuses

PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}
UNPAID = {**PAID, "onTimeout": True}
LOOK = {"input": True}  # a step that returns its input


def awaiting(wait: Json, step: str = "a", /, **edge: Any) -> Json:
    """A step that comes after another step, or after the trigger, and waits for an event."""
    return {"after": [{"step": step, "async": wait, **edge}]}


def order(number: Any = 1, **acts: Json) -> Json:
    return {"order": number, **script(**acts)}


def edge(run: Json, step: str, index: int = 0) -> Json:
    return dict(run["steps"][step]["after"][index])


def only_run(platform: Platform, event_id: str) -> Json:
    (run,) = platform.runs(event_id)
    return run


# --- matched, not matched, timed out -------------------------------------------------------------------------------


def test_a_step_waits_until_its_event_comes(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    go = platform.send(data=order(b=LOOK))
    assert statuses(only_run(platform, go)) == {"a": "completed", "b": "waiting"}
    paid = platform.send("paid", {"order": 1, "sum": 7})
    run = only_run(platform, go)
    assert run["status"] == "completed"
    assert edge(run, "b")["event_id"] == paid
    assert run["output"]["b"]["async"]["data"] == {"order": 1, "sum": 7}


def test_an_event_that_does_not_match_leaves_the_step_waiting(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    go = platform.send(data=order(1))
    platform.send("paid", {"order": 2})
    platform.send("paid.not", {"order": 1})
    platform.send("paid")
    assert statuses(only_run(platform, go))["b"] == "waiting"


def test_an_edge_whose_wait_times_out_is_dead(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    go = platform.send(data=order())
    platform.travel("1h")
    run = only_run(platform, go)
    assert (run["status"], run["steps"]["b"]["status"]) == ("completed", "skipped")
    platform.send("paid", {"order": 1})
    assert only_run(platform, go) == run


def test_a_wait_can_come_before_the_first_step(platform: Platform) -> None:
    platform.deploy(function({"a": awaiting(PAID, "$trigger")}))
    go = platform.send(data=order())
    assert statuses(only_run(platform, go)) == {"a": "waiting"}
    platform.send("paid", {"order": 1})
    assert only_run(platform, go)["status"] == "completed"


def test_a_failed_step_can_be_followed_by_a_wait(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID, on="failure")}))
    go = platform.send(data=order(a={"raise": "no"}))
    assert statuses(only_run(platform, go)) == {"a": "failed", "b": "waiting"}
    platform.send("paid", {"order": 1})
    assert only_run(platform, go)["status"] == "completed"


def test_an_edge_whose_condition_is_false_does_not_wait(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID, **{"if": "event.data.order == 2"})}))
    assert statuses(only_run(platform, platform.send(data=order(1))))["b"] == "skipped"


def test_a_name_with_a_wildcard_cannot_be_awaited(platform: Platform) -> None:
    with pytest.raises(Refused, match="wildcard"):
        platform.deploy(function({"a": {}, "b": awaiting({**PAID, "event": "paid*"})}))


# --- pairs of async and onTimeout ----------------------------------------------------------------------------------

PAIR = {"a": {}, "ship": awaiting(PAID), "remind": awaiting(UNPAID)}


@pytest.mark.parametrize(
    ("sent_after", "runs", "does_not"),
    [
        ("0s", "ship", "remind"),
        ("59m59s999ms", "ship", "remind"),  # accepted before the deadline
        ("1h", "remind", "ship"),  # at the deadline
        ("1h1ms", "remind", "ship"),
    ],
)
def test_exactly_one_side_of_a_pair_runs(platform: Platform, sent_after: str, runs: str, does_not: str) -> None:
    platform.deploy(function(PAIR))
    go = platform.send(data=order())
    platform.settle()
    platform.travel(sent_after)
    platform.send("paid", {"order": 1})
    platform.travel("2h")
    run = only_run(platform, go)
    assert run["status"] == "completed"
    assert statuses(run) == {"a": "completed", runs: "completed", does_not: "skipped"}


def test_a_step_that_joins_both_sides_of_a_pair_runs_once(platform: Platform) -> None:
    platform.deploy(function({**PAIR, "end": ["ship", "remind"]}))
    go = platform.send(data=order())
    platform.travel("1h")
    run = only_run(platform, go)
    assert statuses(run) == {"a": "completed", "ship": "skipped", "remind": "completed", "end": "completed"}
    assert len(run["steps"]["end"]["attempts"]) == 1


# --- events that come before the wait ------------------------------------------------------------------------------


def test_an_event_that_comes_while_the_parent_runs_is_not_lost(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    gate = tmp_path / "gate"
    go = platform.send(data=order(a={"wait_for": str(gate)}))
    paid = platform.send("paid", {"order": 1})
    gate.touch()
    run = only_run(platform, go)
    assert run["status"] == "completed"
    assert edge(run, "b")["event_id"] == paid


@pytest.mark.kind("the bus keeps no order within a request")
@pytest.mark.parametrize(("names", "status"), [(("go", "paid"), "completed"), (("paid", "go"), "running")])
def test_within_a_request_only_events_after_the_trigger_count(
    platform: Platform, names: tuple[str, str], status: str
) -> None:
    platform.deploy(function({"a": awaiting(PAID, "$trigger")}))
    ids = platform.send_raw(json.dumps([{"name": name, "data": {"order": 1}} for name in names]).encode())
    assert only_run(platform, ids[names.index("go")])["status"] == status


def test_an_event_from_before_the_run_does_not_count(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    platform.send("paid", {"order": 1})
    assert statuses(only_run(platform, platform.send(data=order())))["b"] == "waiting"


def test_the_event_that_started_the_run_does_not_count(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting({**PAID, "event": "go"})}))
    go = platform.send(data=order())
    assert statuses(only_run(platform, go))["b"] == "waiting"
    platform.send(data=order())
    assert statuses(only_run(platform, go))["b"] == "completed"


def test_an_event_during_the_delay_counts_at_its_end_and_not_before(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID, wait="1h")}))
    go = platform.send(data=order())
    platform.settle()
    platform.send("paid", {"order": 1})
    platform.travel("59m")
    assert statuses(only_run(platform, go))["b"] == "waiting"
    platform.travel("1m")
    assert statuses(only_run(platform, go))["b"] == "completed"


@pytest.mark.parametrize(("sent_after", "status"), [("1h59m59s999ms", "completed"), ("2h", "skipped")])
def test_the_ttl_counts_from_the_end_of_the_delay(platform: Platform, sent_after: str, status: str) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID, wait="1h")}))
    go = platform.send(data=order())
    platform.travel(sent_after)
    platform.send("paid", {"order": 1})
    assert statuses(only_run(platform, go))["b"] == status


def test_the_event_that_was_accepted_first_wins_whatever_its_ts(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID, wait="1h")}))
    go = platform.send(data=order())
    first = platform.send("paid", {"order": 1}, ts=2_000)
    platform.send("paid", {"order": 1}, ts=1_000)
    platform.travel("1h")
    assert edge(only_run(platform, go), "b")["event_id"] == first


# --- which event, which wait ---------------------------------------------------------------------------------------

X = {"event": "x", "ttl": "1h"}
CHAIN = {
    "a": {},
    "b": awaiting(X),
    "c": awaiting(X, "b"),
}


def test_an_event_does_not_satisfy_a_wait_after_the_one_it_satisfied(platform: Platform) -> None:
    platform.deploy(function(CHAIN))
    go = platform.send()
    platform.settle()
    platform.send("x")
    assert statuses(only_run(platform, go)) == {"a": "completed", "b": "completed", "c": "waiting"}
    platform.send("x")
    assert statuses(only_run(platform, go))["c"] == "completed"


def test_two_events_satisfy_two_consecutive_waits_however_early_they_come(platform: Platform, tmp_path: Path) -> None:
    platform.deploy(function(CHAIN))
    gate = tmp_path / "gate"
    go = platform.send(data=order(a={"wait_for": str(gate)}))
    sent = [platform.send("x"), platform.send("x")]
    gate.touch()
    run = only_run(platform, go)
    assert [edge(run, step)["event_id"] for step in "bc"] == sent


def test_a_duplicate_of_an_event_wakes_nothing(platform: Platform) -> None:
    platform.deploy(function(CHAIN))
    go = platform.send()
    platform.settle()
    platform.send("x", id="x-1")
    platform.settle()
    platform.send("x", id="x-1")
    assert statuses(only_run(platform, go))["c"] == "waiting"


def test_a_wait_settles_once(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    go = platform.send(data=order())
    platform.settle()
    platform.send("paid", {"order": 1})
    run = only_run(platform, go)
    platform.send("paid", {"order": 1})
    assert only_run(platform, go) == run


def test_runs_that_wait_for_different_users_each_get_their_own_event(platform: Platform) -> None:
    its_user = {"event": "paid", "match": "async.user.email == user.email", "ttl": "1h"}
    platform.deploy(function({"a": {}, "b": awaiting(its_user)}))
    runs = {name: platform.send(user={"email": name}) for name in ("ada@x.org", "bob@x.org")}
    platform.settle()
    for name in ("bob@x.org", "ada@x.org"):
        assert statuses(only_run(platform, runs[name]))["b"] == "waiting"
        paid = platform.send("paid", user={"email": name})
        assert edge(only_run(platform, runs[name]), "b")["event_id"] == paid


def test_one_event_wakes_many_runs(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}, id="g"))
    for _ in range(3):
        platform.send(data=order())
    platform.settle()
    platform.send("paid", {"order": 1})
    assert [statuses(run)["b"] for run in platform.runs()] == ["completed"] * 6


def test_one_event_wakes_parallel_branches_of_a_run(platform: Platform) -> None:
    steps = {"a": {}, "b": {}, "c": awaiting(PAID, "a"), "d": awaiting(PAID, "b")}
    platform.deploy(function(steps))
    go = platform.send(data=order())
    platform.settle()
    paid = platform.send("paid", {"order": 1})
    run = only_run(platform, go)
    assert [edge(run, step)["event_id"] for step in "cd"] == [paid, paid]


@pytest.mark.kind("the bus keeps no order within a request")
def test_equal_waits_of_a_run_settle_together(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID), "c": awaiting(PAID)}))
    go = platform.send(data=order())
    platform.settle()
    request = [{"name": "paid", "data": {"order": 1}}, {"name": "paid", "data": {"order": 1}}]
    first, _ = platform.send_raw(json.dumps(request).encode())
    run = only_run(platform, go)
    assert [edge(run, step)["event_id"] for step in "bc"] == [first, first]


def test_an_event_may_start_one_run_and_wake_another(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    platform.deploy(function(on="paid", id="receipt"))
    go = platform.send(data=order())
    platform.settle()
    paid = platform.send("paid", {"order": 1})
    assert only_run(platform, go)["status"] == "completed"
    assert only_run(platform, paid)["function_id"] == "receipt"


def test_the_end_of_another_run_can_be_awaited(platform: Platform) -> None:
    ended = {"event": "stepwell/run.completed", "match": "async.data.event_id == event.data.other", "ttl": "1h"}
    platform.deploy(function({"a": {}, "b": awaiting(ended)}))
    platform.deploy(function(on="paid", id="receipt"))
    go = platform.send(data={"other": "p-1"})
    platform.send("paid", id="p-2")
    assert statuses(only_run(platform, go))["b"] == "waiting"
    platform.send("paid", id="p-1")
    assert statuses(only_run(platform, go))["b"] == "completed"


@pytest.mark.kind("the bus keeps no order within a request")
def test_of_many_open_waits_only_the_one_that_matches_goes_on(platform: Platform) -> None:
    platform.deploy(function({"a": awaiting(PAID, "$trigger")}))
    events = platform.send_raw(json.dumps([{"name": "go", "data": {"order": i}} for i in range(40)]).encode())
    platform.settle()
    platform.send("paid", {"order": 32})
    assert only_run(platform, events[32])["status"] == "completed"
    assert [i for i, run in enumerate(platform.runs()) if run["status"] != "running"] == [32]


# --- match ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", [None, "async.data.order > event.data.order", "async.name == 'paid'", "true"])
def test_a_match_does_not_have_to_be_an_equality(platform: Platform, match: str | None) -> None:
    wait = {"event": "paid", "ttl": "1h"} | ({"match": match} if match else {})
    platform.deploy(function({"a": {}, "b": awaiting(wait)}))
    go = platform.send(data=order(1))
    platform.settle()
    platform.send("paid", {"order": 2})
    assert statuses(only_run(platform, go))["b"] == "completed"


@pytest.mark.parametrize(
    ("known", "incoming", "matches"),
    [
        (1, 1.0, True),  # CEL compares numbers across types
        (1.5, 1.5, True),
        (0, -0.0, True),
        (2**53 + 1, 2**53 + 1, True),
        (2**63, 2**63, True),  # too large for a signed 64-bit integer
        (1, "1", False),
        (1, True, False),
        (0, None, False),
        (None, None, True),
        ("é\u0000", "é\u0000", True),
        ("é", "e\u0301", False),  # look the same, but are different strings
        ("", "", True),
        ([1, {"x": "y"}], [1.0, {"x": "y"}], True),  # lists and maps are compared too, although not indexed
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({}, [], False),
    ],
)
def test_equality_follows_cel(platform: Platform, known: Any, incoming: Any, matches: bool) -> None:
    platform.deploy(function({"a": awaiting(PAID, "$trigger")}))
    go = platform.send(data={"order": known})
    platform.settle()
    platform.send("paid", {"order": incoming})
    assert (statuses(only_run(platform, go)) == {"a": "completed"}) is matches


def test_a_match_uses_the_values_of_the_run_when_the_parent_ends(platform: Platform) -> None:
    match = (
        "async.data.id == response.id && async.data.a == steps['a'].id && async.data.order == data.order"
        " && async.user.id == event.user.id"
    )
    wait = {"event": "paid", "match": match, "ttl": "1h"}
    platform.deploy(function({"a": {}, "b": "a", "c": awaiting(wait, "b")}))
    go = platform.send(data=order(7, a={"return": {"id": "A"}}, b={"return": {"id": "B"}}), user={"id": 5})
    platform.settle()
    right: Json = {"id": "B", "a": "A", "order": 7}
    for field in right:
        platform.send("paid", {**right, field: "wrong"}, {"id": 5})
    platform.send("paid", right, {"id": 6})
    assert statuses(only_run(platform, go))["c"] == "waiting"
    platform.send("paid", right, {"id": 5})
    assert statuses(only_run(platform, go))["c"] == "completed"


def test_a_match_with_a_missing_value_of_the_run_never_matches_and_shows_why(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    go = platform.send(data={})
    platform.settle()
    platform.send("paid", {})
    platform.send("paid", {"order": 1})
    platform.send("paid", {"order": None})
    run = only_run(platform, go)
    assert statuses(run)["b"] == "waiting"
    assert "order" in edge(run, "b")["problem"]
    platform.travel("1h")
    assert statuses(only_run(platform, go))["b"] == "skipped"


@pytest.mark.parametrize("value", ["true", 1, None, {}])
def test_only_true_is_a_match(platform: Platform, value: Any) -> None:
    wait = {"event": "paid", "match": "async.data.ok", "ttl": "1h"}
    platform.deploy(function({"a": awaiting(wait, "$trigger")}))
    go = platform.send()
    platform.settle()
    platform.send("paid", {"ok": value})
    platform.send("paid", {})
    assert statuses(only_run(platform, go)) == {"a": "waiting"}
    platform.send("paid", {"ok": True})
    assert statuses(only_run(platform, go)) == {"a": "completed"}


# --- the end of a wait without event and deadline ------------------------------------------------------------------


def test_a_step_that_starts_without_its_wait_ends_the_wait(platform: Platform) -> None:
    first = {"after": ["a", {"step": "a", "async": PAID}], "join": "first"}
    platform.deploy(function({"a": {}, "b": first}))
    go = platform.send(data=order(b=LOOK))
    run = only_run(platform, go)
    assert (run["status"], edge(run, "b", 1)["status"]) == ("completed", "dead")
    assert run["output"]["b"]["async"] is None
    platform.send("paid", {"order": 1})
    platform.travel("2h")
    assert only_run(platform, go) == run


def test_a_shared_wait_continues_for_the_steps_that_have_not_started(platform: Platform) -> None:
    first = {"after": ["a", {"step": "a", "async": PAID}], "join": "first"}
    platform.deploy(function({"a": {}, "b": first, "c": awaiting(PAID)}))
    go = platform.send(data=order())
    assert statuses(only_run(platform, go)) == {"a": "completed", "b": "completed", "c": "waiting"}
    platform.send("paid", {"order": 1})
    assert only_run(platform, go)["status"] == "completed"


def test_a_cancelled_run_ends_its_waits(platform: Platform) -> None:
    platform.deploy(function(PAIR))
    go = platform.send(data=order())
    platform.cancel(only_run(platform, go)["id"])
    run = only_run(platform, go)
    assert statuses(run) == {"a": "completed", "ship": "cancelled", "remind": "cancelled"}
    platform.send("paid", {"order": 1})
    platform.travel("2h")
    assert only_run(platform, go) == run


def test_a_failed_run_ends_its_waits(platform: Platform) -> None:
    platform.deploy(function({"a": awaiting(PAID, "$trigger"), "b": {}}))
    go = platform.send(data=order(b={"raise": "no"}))
    run = only_run(platform, go)
    assert (run["status"], statuses(run)) == ("failed", {"a": "cancelled", "b": "failed"})
    platform.send("paid", {"order": 1})
    assert only_run(platform, go) == run


# --- restarts ------------------------------------------------------------------------------------------------------


def test_a_wait_survives_a_restart(platform: Platform) -> None:
    platform.deploy(function(PAIR))
    go = platform.send(data=order())
    platform.settle()
    platform.restart("30m")
    assert statuses(only_run(platform, go))["ship"] == "waiting"
    platform.send("paid", {"order": 1})
    assert statuses(only_run(platform, go))["ship"] == "completed"


def test_a_deadline_that_passes_during_downtime_takes_effect_at_the_start(platform: Platform) -> None:
    platform.deploy(function(PAIR))
    go = platform.send(data=order())
    platform.settle()
    platform.restart("2h")
    platform.send("paid", {"order": 1})
    assert statuses(only_run(platform, go)) == {"a": "completed", "ship": "skipped", "remind": "completed"}


@pytest.mark.parametrize(("sent_before", "status"), [(True, "completed"), (False, "skipped")])
def test_an_event_accepted_before_the_deadline_wins_even_if_it_is_found_later(
    platform: Platform, sent_before: bool, status: str
) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID, wait="1h")}))
    go = platform.send(data=order())
    platform.settle()
    if sent_before:
        platform.send("paid", {"order": 1})
    platform.restart("3h")  # the delay and the wait have ended meanwhile
    platform.send("paid", {"order": 1})
    assert statuses(only_run(platform, go))["b"] == status


@pytest.mark.parametrize("restarts", [False, True])
def test_a_run_of_an_older_version_receives_its_event(platform: Platform, restarts: bool) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    go = platform.send(data=order())
    platform.settle()
    assert platform.deploy(function({"a": {}})) == 2
    if restarts:
        platform.restart()
    platform.send("paid", {"order": 1})
    assert statuses(only_run(platform, go)) == {"a": "completed", "b": "completed"}


# --- the step's input, and reruns ----------------------------------------------------------------------------------


def test_async_events_lists_the_events_that_started_a_step_in_order(platform: Platform) -> None:
    edges = [{"step": "a", "async": {"event": name, "ttl": "1h"}} for name in ("x", "y", "z")]
    edges.append({"step": "a", "async": {"event": "none", "ttl": "30m", "onTimeout": True}})
    platform.deploy(function({"a": {}, "b": {"after": edges, "join": "all"}}))
    go = platform.send(data=order(b=LOOK))
    platform.settle()
    sent = [platform.send("z"), platform.send("x"), platform.send("y", {"n": 1})]
    platform.travel("30m")
    seen = only_run(platform, go)["output"]["b"]
    assert [event["id"] for event in seen["ctx"]["async_events"]] == sent
    assert seen["async"] == seen["ctx"]["async_events"][0]
    assert seen["ctx"]["async_events"][2]["data"] == {"n": 1}


def test_a_rerun_waits_for_events_from_after_it_was_made(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": awaiting(PAID)}))
    go = platform.send(data=order())
    platform.settle()
    platform.send("paid", {"order": 1})
    again = platform.rerun(only_run(platform, go)["id"])
    assert again is not None
    platform.settle()
    assert statuses(platform.run(again))["b"] == "waiting"
    platform.send("paid", {"order": 1})
    platform.settle()
    assert statuses(platform.run(again))["b"] == "completed"


def test_the_reason_why_a_match_has_no_value_is_shown(platform: Platform) -> None:
    wait = {"event": "paid", "match": "async.data.amount > event.data.limit", "ttl": "1d"}
    platform.deploy(function({"a": {"after": [{"step": "$trigger", "async": wait}]}}))
    run_id = platform.run_of(platform.send("go", {"limit": 5}))
    platform.send("paid", {"total": 7})
    (edge,) = platform.run(run_id)["steps"]["a"]["after"]
    assert "amount" in edge["problem"]
    platform.send("paid", {"amount": 7})
    (run,) = platform.runs()[:1]
    assert run["status"] == "completed"
    assert "problem" not in run["steps"]["a"]["after"][0]


def test_an_event_is_not_used_up_by_an_edge_that_never_waited(platform: Platform) -> None:
    first = {"step": "$trigger", "async": {"event": "paid", "ttl": "1h"}}
    steps = {
        "a": {"after": [first]},
        # Shares the wait of `a`, but is dead by its `if`: there is no wait before `c`.
        "b": {"after": [{**first, "if": "event.name == 'never'"}, "$trigger"]},
        "c": {"after": [{"step": "b", "async": {"event": "paid", "ttl": "2h"}}]},
    }
    platform.deploy(function(steps))
    run_id = platform.run_of(platform.send("go"))
    platform.settle()
    event = platform.send("paid")
    platform.settle()
    run = platform.run(run_id)
    assert statuses(run) == {"a": "completed", "b": "completed", "c": "completed"}
    assert [edge.get("event_id") for edge in run["steps"]["b"]["after"]] == [None, None]
    assert run["steps"]["c"]["after"][0]["event_id"] == event
