"""Rules of `cancel`: events that end a function's running runs."""

from __future__ import annotations

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, has, script, statuses

NEVER = {"wait_for": "/nonexistent"}
SAME_ORDER = "async.data.order == event.data.order"
WAITS = {"a": {}, "b": {"after": {"step": "a", "wait": "30d"}}}


def rule(event: str = "order/cancelled", if_: str | None = None, timeout: str | None = None) -> Json:
    fields = {"event": event, "if": if_, "timeout": timeout}
    return {name: value for name, value in fields.items() if value is not None}


def only_run(platform: Platform, event: str) -> Json:
    (run,) = platform.runs(event)
    return run


# --- which runs ------------------------------------------------------------------------------------------------------


def test_an_event_ends_the_running_runs_of_a_function(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule()]))
    platform.deploy(function(WAITS, id="other"))
    first, second = platform.send(), platform.send()
    platform.settle()
    cancels = platform.send("order/cancelled")
    for event in (first, second):
        fields = {run["function_id"]: run for run in platform.runs(event)}
        assert (fields["f"]["status"], fields["f"]["cancelled_by"]) == ("cancelled", cancels)
        assert statuses(fields["f"]) == {"a": "completed", "b": "cancelled"}
        assert (fields["other"]["status"], fields["other"]["cancelled_by"]) == ("running", None)
        assert fields["other"]["cancel"] == []
    ends = platform.events("stepwell/run.cancelled")
    assert [end["data"]["cancelled_by"] for end in ends] == [cancels] * 2


def test_a_condition_compares_the_event_with_the_run(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule(if_=f"{SAME_ORDER} && async.data.reason != 'mistake'")]))
    events = [platform.send(data={"order": number}) for number in (1, 2, "1")]
    platform.settle()
    platform.send("order/cancelled", {"order": 1, "reason": "mistake"})
    platform.send("order/cancelled", {"order": 3, "reason": "none"})
    cancels = platform.send("order/cancelled", {"order": 1.0, "reason": "none"})
    assert [only_run(platform, event)["cancelled_by"] for event in events] == [cancels, None, None]


def test_a_condition_can_use_the_short_forms_user_and_data(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule(if_="async.user.id == user.id && data.n == 1")]))
    of_ada, of_bob = platform.send(user={"id": "ada"}, data={"n": 1}), platform.send(user={"id": "bob"}, data={"n": 1})
    platform.settle()
    platform.send("order/cancelled", user={"id": "ada"})
    assert [only_run(platform, event)["status"] for event in (of_ada, of_bob)] == ["cancelled", "running"]


def test_a_condition_without_an_equality_is_evaluated_for_every_run(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule(if_="async.data.least > event.data.n")]))
    events = [platform.send(data={"n": n}) for n in (1, 5, 9)]
    platform.settle()
    platform.send("order/cancelled", {"least": 6})
    assert [only_run(platform, event)["status"] for event in events] == ["cancelled", "cancelled", "running"]


def test_each_of_several_rules_cancels(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule("order/cancelled", SAME_ORDER), rule("shop/closed")]))
    first, second = platform.send(data={"order": 1}), platform.send(data={"order": 2})
    platform.settle()
    by_order, by_shop = platform.send("order/cancelled", {"order": 1}), platform.send("shop/closed")
    assert [only_run(platform, event)["cancelled_by"] for event in (first, second)] == [by_order, by_shop]
    rules = only_run(platform, second)["cancel"]
    assert [(rule["event"], rule["state"], rule["event_id"]) for rule in rules] == [
        ("order/cancelled", "dropped", None),
        ("shop/closed", "matched", by_shop),
    ]


def test_a_trigger_can_cancel_a_users_earlier_runs(platform: Platform) -> None:
    """The trigger event never cancels the run that it starts."""
    platform.deploy(function(WAITS, cancel=[rule("go", "async.user.id == event.user.id")]))
    events = []
    for _ in range(3):
        events.append(platform.send(user={"id": "ada"}))
        platform.settle()
    runs = [only_run(platform, event) for event in events]
    assert [run["status"] for run in runs] == ["cancelled", "cancelled", "running"]
    assert [run["cancelled_by"] for run in runs] == [events[1], events[2], None]


def test_the_end_of_another_run_can_cancel(platform: Platform) -> None:
    steps = {"later": {"after": {"step": "$trigger", "wait": "30d"}}}
    platform.deploy(function(steps, id="long", cancel=[rule("stepwell/run.failed", "async.data.event_id == event.id")]))
    platform.deploy(function(id="check"))
    bad, good = platform.send(data=script(a={"raise": "no"})), platform.send()
    ends = [{run["function_id"]: run["status"] for run in platform.runs(event)} for event in (bad, good)]
    assert ends == [{"check": "failed", "long": "cancelled"}, {"check": "completed", "long": "running"}]


# --- when ------------------------------------------------------------------------------------------------------------


def test_running_steps_are_stopped_and_their_outcome_changes_nothing(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": "a"}, cancel=[rule()]))
    run_id = platform.run_of(platform.send(data=script(a=NEVER)))
    platform.wait(run_id, has("a", "running"))
    cancels = platform.send("order/cancelled")
    run = platform.wait(run_id, lambda run: run["status"] == "cancelled")
    assert statuses(run) == {"a": "cancelled", "b": "cancelled"}
    assert (run["cancelled_by"], run["output"], run["error"]) == (cancels, None, None)
    platform.settle()
    platform.travel("1h")
    assert platform.run(run_id) == run


def test_an_event_before_the_trigger_cancels_nothing(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule()]))
    platform.send("order/cancelled")
    assert only_run(platform, platform.send())["status"] == "running"


def test_an_event_right_after_the_trigger_cancels(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule(if_=SAME_ORDER)]))
    first, cancels = platform.send_raw(
        b'[{"name": "go", "data": {"order": 7}}, {"name": "order/cancelled", "data": {"order": 7}}]'
    )
    assert only_run(platform, first)["cancelled_by"] == cancels


def test_a_rule_applies_until_its_timeout_to_the_millisecond(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule(timeout="1h")]))
    event = platform.send()
    run = only_run(platform, event)
    assert run["cancel"][0]["until"].startswith("2026-06-01T11:00:30")
    platform.travel("1h")
    platform.travel("1m")
    platform.send("order/cancelled")
    run = only_run(platform, event)
    assert (run["status"], run["cancel"][0]["state"]) == ("running", "expired")
    second = platform.send()
    platform.settle()
    platform.travel("59m")
    cancels = platform.send("order/cancelled")
    assert only_run(platform, second)["cancelled_by"] == cancels
    assert only_run(platform, event)["status"] == "running"


def test_a_rule_without_a_timeout_applies_until_the_run_ends(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": {"step": "$trigger", "wait": "366d"}}}, cancel=[rule(if_=SAME_ORDER)]))
    event = platform.send(data={"order": 1})
    platform.settle()
    platform.travel("365d")
    cancels = platform.send("order/cancelled", {"order": 1})
    run = only_run(platform, event)
    assert run["cancelled_by"] == cancels
    assert "until" not in run["cancel"][0]


def test_a_rule_does_not_keep_a_run_open_or_change_an_ended_run(platform: Platform) -> None:
    platform.deploy(function(cancel=[rule()]))
    done, failed = platform.send(), platform.send(data=script(a={"raise": "no"}))
    runs = [only_run(platform, event) for event in (done, failed)]
    assert [run["status"] for run in runs] == ["completed", "failed"]
    assert [run["cancel"] for run in runs] == 2 * [[{"event": "order/cancelled", "event_id": None, "state": "dropped"}]]
    platform.send("order/cancelled")
    platform.settle()
    assert [only_run(platform, event) for event in (done, failed)] == runs


def test_a_run_whose_steps_are_all_skipped_completes_despite_a_rule(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": {"step": "$trigger", "if": "false"}}}, cancel=[rule()]))
    run = only_run(platform, platform.send())
    assert (run["status"], statuses(run)) == ("completed", {"a": "skipped"})
    assert run["cancel"][0]["state"] == "dropped"


def test_a_rule_survives_a_restart(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule(if_=SAME_ORDER, timeout="2d")]))
    event = platform.send(data={"order": 1})
    platform.settle()
    platform.restart("1d")
    cancels = platform.send("order/cancelled", {"order": 1})
    assert only_run(platform, event)["cancelled_by"] == cancels


def test_a_duplicate_event_changes_nothing(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule()]))
    event = platform.send()
    platform.settle()
    for _ in range(2):
        platform.send("order/cancelled", id="once")
    run = only_run(platform, event)
    assert run["cancelled_by"] == "once"
    later = platform.send()
    platform.settle()
    platform.send("order/cancelled", id="once")
    assert only_run(platform, later)["status"] == "running"


def test_a_rerun_is_cancelled_by_later_events_only(platform: Platform) -> None:
    platform.deploy(function(WAITS, cancel=[rule()]))
    event = platform.send()
    first = only_run(platform, event)
    platform.send("order/cancelled")
    platform.settle()
    again = platform.rerun(first["id"])
    assert again is not None
    platform.settle()
    assert platform.run(again)["status"] == "running"
    cancels = platform.send("order/cancelled")
    platform.settle()
    assert platform.run(again)["cancelled_by"] == cancels


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("if_", "problem"),
    [
        ("async.data.order == event.data.order", "order"),  # missing in the run's event
        ("async.data.sum > 1", "sum"),  # missing in the incoming event
    ],
)
def test_a_condition_without_a_value_is_no_match_and_the_run_shows_the_reason(
    platform: Platform, if_: str, problem: str
) -> None:
    platform.deploy(function(WAITS, cancel=[rule(if_=if_)]))
    event = platform.send()
    platform.settle()
    platform.send("order/cancelled", {"other": 1})
    run = only_run(platform, event)
    assert run["status"] == "running"
    assert problem in run["cancel"][0]["problem"]


@pytest.mark.parametrize(
    ("cancel", "pointer", "message"),
    [
        ([{"event": "order/*"}], "/cancel/0/event", "wildcard"),
        ([{"if": "true"}], "/cancel/0", "event"),
        ([rule(), rule(if_="steps.a.x == async.data.x")], "/cancel/1/if", "steps"),
        ([rule(if_="async.data.x ==")], "/cancel/0/if", "column"),
        ([rule(timeout="367d")], "/cancel/0/timeout", "366 days"),
        ([{"event": "x", "match": "true"}], "/cancel/0/match", "unknown field"),
        ("order/cancelled", "/cancel", "list"),
        ([rule()] * 11, "/cancel", "10"),
    ],
)
def test_an_invalid_rule_is_refused_with_a_pointer(
    platform: Platform, cancel: object, pointer: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(cancel=cancel))
    (error,) = refused.value.errors
    assert (error["pointer"].startswith(pointer), message in error["message"]) == (True, True), error
