"""Expressions on edges: what they may see, and that only `true` is a match. (Those of triggers: `test_triggers.py`.)"""

from __future__ import annotations

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, script, statuses

DATA = {"n": 1, "text": "true", "list": [1, 2], "nothing": None, "a-b": {"c.d": 5}}


def edge_runs(platform: Platform, condition: str, acts: Json | None = None, parent: str = "a") -> tuple[bool, Json]:
    """Whether a step after `parent` runs, and how its edge is shown. `a` comes after `first-step`."""
    steps = {"first-step": {}, "a": "first-step", "aside": {}, "b": {"after": {"step": parent, "if": condition}}}
    platform.deploy(function(steps))
    (run,) = platform.runs(platform.send(data={**DATA, **script(**(acts or {}))}, user={"id": "u", "vip": True}))
    assert run["status"] == "completed"
    return statuses(run)["b"] == "completed", run["steps"]["b"]["after"][0]


# --- what they see ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        "event.name == 'go' && event.data.n == 1 && event.user.id == 'u'",
        "data.n == 1 && user.vip",
        "event.v == null",
        "response.step == 'a'",
        "steps.a.step == 'a' && steps['a'] == response",
        "steps['first-step'].step == 'first-step'",
        "'first-step' in steps && !('b' in steps)",
        "errors == {}",
        "has(data.n) && !has(data.missing)",
        "data['a-b']['c.d'] == 5",
        "data.list.exists(x, x == 2) && data.list.all(x, x > 0)",
        "data.n == 1.0",  # numbers compare by value
        "data.text.matches('^t.*e$')",
        "timestamp('2026-06-01T00:00:00Z') < timestamp('2026-06-02T00:00:00Z')",
    ],
)
def test_a_condition_sees_the_event_and_the_steps_before_it(platform: Platform, condition: str) -> None:
    runs, edge = edge_runs(platform, condition)
    assert "problem" not in edge
    assert (runs, edge["status"]) == (True, "satisfied")


def test_a_condition_on_a_trigger_edge_sees_the_event_and_a_null_response(platform: Platform) -> None:
    runs, edge = edge_runs(platform, "response == null && steps == {} && errors == {} && data.n == 1", None, "$trigger")
    assert (runs, edge["status"]) == (True, "satisfied")


@pytest.mark.parametrize(("output", "runs"), [({"go": True}, True), ({"go": False}, False)])
def test_a_condition_decides_by_the_parents_output(platform: Platform, output: Json, runs: bool) -> None:
    assert edge_runs(platform, "response.go", {"a": {"return": output}}) == (
        runs,
        {"step": "a", "status": "satisfied" if runs else "dead"},
    )


@pytest.mark.parametrize(
    ("output", "condition"),
    [
        (None, "response == null"),
        ([1, "x"], "response[1] == 'x' && size(response) == 2"),
        ("text", "response == 'text'"),
        (7, "response == 7"),
        (True, "response"),
        (2**63 - 1, "response == 9223372036854775807"),
        ({"": {"": 1}}, "response['']['']  == 1"),
    ],
)
def test_an_output_may_be_any_json(platform: Platform, output: object, condition: str) -> None:
    runs, edge = edge_runs(platform, condition, {"a": {"return": output}})
    assert "problem" not in edge
    assert runs


def test_a_match_sees_the_event_the_steps_and_the_incoming_event(platform: Platform) -> None:
    match = (
        "async.data.id == response.id && async.name == 'paid' && async.user.id == user.id && async.v == null"
        " && event.data.n == data.n && steps['a-b'].id == async.data.id && errors == {}"
    )
    wait = {"event": "paid", "match": match, "ttl": "1h"}
    platform.deploy(function({"a-b": {}, "c": {"after": {"step": "a-b", "async": wait}}}))
    acts = script(**{"a-b": {"return": {"id": 5}}})
    (run,) = platform.runs(platform.send(data={"n": 1, **acts}, user={"id": "u"}))
    platform.send("paid", {"id": 5}, {"id": "other"})
    platform.send("paid", {"id": 6}, {"id": "u"})
    assert platform.runs()[0]["status"] == "running"
    platform.send("paid", {"id": 5}, {"id": "u"})
    platform.settle()
    assert platform.run(run["id"])["status"] == "completed"


# --- only true is a match --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("data.text", "string"),
        ("data.n", "int"),
        ("data.list", "list"),
        ("data.nothing", "null"),
        ("response", "map"),
        ("data.missing", "missing"),
        ("data.missing == 1", "missing"),
        ("response.a.b.c == 1", "a"),
        ("steps.a.missing > 1", "missing"),
        ("errors.a.kind == 'exit'", "a"),
        ("data.n > 'x'", "does not work"),
        ("data.n / 0 == 1", "zero"),
        ("data.list[7] == 1", "7"),
        ("int(data.text) == 1", "int"),
        ("timestamp(data.text) > timestamp('2026-01-01T00:00:00Z')", "timestamp"),
    ],
)
def test_an_error_or_another_type_is_no_match_and_is_shown(platform: Platform, condition: str, why: str) -> None:
    runs, edge = edge_runs(platform, condition)
    assert (runs, edge["status"]) == (False, "dead")
    assert why.lower() in edge["problem"].lower()


@pytest.mark.parametrize("condition", ["false", "data.n == 2", "!has(data.n)", "1 == 2 && data.missing"])
def test_what_is_merely_false_shows_no_problem(platform: Platform, condition: str) -> None:
    runs, edge = edge_runs(platform, condition)
    assert (runs, edge) == (False, {"step": "a", "status": "dead"})


@pytest.mark.parametrize("condition", ["data.n == 1 || data.missing", "data.missing || data.n == 1"])
def test_an_error_that_does_not_decide_is_none(platform: Platform, condition: str) -> None:
    """`||` and `&&` are commutative in CEL: one operand that decides is enough."""
    runs, edge = edge_runs(platform, condition)
    assert (runs, edge) == (True, {"step": "a", "status": "satisfied"})


def test_a_match_that_cannot_be_evaluated_is_no_match_and_is_shown(platform: Platform) -> None:
    wait = {"event": "paid", "match": "async.data.id == response.id", "ttl": "1h"}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": wait}}}))
    (run,) = platform.runs(platform.send())  # the response has no id
    assert "response.id" in run["steps"]["b"]["after"][0]["problem"]
    platform.send("paid", {"id": None})
    platform.send("paid")
    platform.settle()
    assert statuses(platform.run(run["id"]))["b"] == "waiting"
    platform.travel("1h")
    assert statuses(platform.run(run["id"]))["b"] == "skipped"


def test_a_match_of_another_type_is_no_match(platform: Platform) -> None:
    wait = {"event": "paid", "match": "async.data.ok", "ttl": "1h"}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": wait}}}))
    (run,) = platform.runs(platform.send())
    for value in ("true", 1, {}, None, False):
        platform.send("paid", {"ok": value})
    assert statuses(platform.runs()[0])["b"] == "waiting"
    platform.send("paid", {"ok": True})
    platform.settle()
    assert statuses(platform.run(run["id"]))["b"] == "completed"


# --- refused when a definition is loaded -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("data.n ==", "column"),  # broken
        ("dta.n == 1", "data"),  # an unknown variable, and the nearest
        ("async.data.n == 1", "async"),  # only in `match`
        ("steps.aside.step == 'x'", "aside"),  # no ancestor
        ("steps.b.step == 'x'", "b"),  # itself
        ("steps.unknown.step == 'x'", "unknown"),
        ("steps['first-step'].step == errors.aside.kind", "aside"),
        ("steps.first-step.step == 'x'", "steps['first-step']"),  # the loader says how to write it
        ("'text'", "true or false"),
        ("1 + 1", "true or false"),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused_with_its_place(platform: Platform, condition: str, text: str) -> None:
    with pytest.raises(Refused) as refused:
        edge_runs(platform, condition)
    assert {error["pointer"] for error in refused.value.errors} == {"/steps/b/after/0/if"}
    assert any(text in error["message"] for error in refused.value.errors)


@pytest.mark.parametrize("expression", ["steps.a == 1", "response == 1", "errors == {}", "async.data.n == 1", "data.n >"])
def test_a_triggers_expression_sees_the_event_only(platform: Platform, expression: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(on={"event": "go", "expression": expression}))
    assert [error["pointer"] for error in refused.value.errors] == ["/triggers/0/expression"]


def test_a_match_that_names_a_step_that_is_no_ancestor_is_refused(platform: Platform) -> None:
    wait = {"event": "paid", "match": "async.data.id == steps.c.id", "ttl": "1h"}
    with pytest.raises(Refused) as refused:
        platform.deploy(function({"a": {}, "c": {}, "b": {"after": {"step": "a", "async": wait}}}))
    assert [error["pointer"] for error in refused.value.errors] == ["/steps/b/after/0/async/match"]
