"""Expressions on edges: what they may see, and that only `true` is a match. (Those of triggers: `test_triggers.py`.)"""

from __future__ import annotations

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, script, statuses

DATA = {"n": 1, "text": "true", "list": [1, 2], "nothing": None, "a-b": {"c.d": 5}}


def edges(platform: Platform, *conditions: str, output: object = None, parent: str = "a") -> dict[str, Json]:
    """How an edge after `parent` with each condition is shown, once the parent ended with `output` (or its default).
    `a` comes after `first-step`, `aside` is no ancestor."""
    acts = {} if output is None else {"a": {"return": output}}
    steps = {f"c{i}": {"after": {"step": parent, "if": condition}} for i, condition in enumerate(conditions)}
    platform.deploy(function({"first-step": {}, "a": "first-step", "aside": {}, **steps}))
    (run,) = platform.runs(platform.send(data={**DATA, **script(**acts)}, user={"id": "u", "vip": True}))
    assert run["status"] == "completed"
    assert [status == "completed" for step_id, status in statuses(run).items() if step_id in steps] == [
        run["steps"][step_id]["after"][0]["status"] == "satisfied" for step_id in steps
    ]
    return {condition: run["steps"][f"c{i}"]["after"][0] for i, condition in enumerate(conditions)}


SATISFIED, DEAD = {"step": "a", "status": "satisfied"}, {"step": "a", "status": "dead"}


# --- what they see ---------------------------------------------------------------------------------------------------


def test_a_condition_sees_the_event_and_the_steps_before_it(platform: Platform) -> None:
    conditions = [
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
    ]
    assert edges(platform, *conditions) == dict.fromkeys(conditions, SATISFIED)


def test_a_condition_on_a_trigger_edge_sees_the_event_and_a_null_response(platform: Platform) -> None:
    condition = "response == null && steps == {} && errors == {} && data.n == 1"
    assert edges(platform, condition, parent="$trigger") == {condition: {"step": "$trigger", "status": "satisfied"}}


@pytest.mark.parametrize("go", [True, False])
def test_a_condition_decides_by_the_parents_output(platform: Platform, go: bool) -> None:
    found = edges(platform, "response.go", "!response.go", output={"go": go})
    assert list(found.values()) == ([SATISFIED, DEAD] if go else [DEAD, SATISFIED])


@pytest.mark.parametrize(
    ("output", "condition"),
    [
        ([1, "x"], "response[1] == 'x' && size(response) == 2"),
        ("text", "response == 'text'"),
        (7, "response == 7"),
        (True, "response"),
        (2**63 - 1, "response == 9223372036854775807"),
        (2**64 - 1, "response == 18446744073709551615u"),
        ({"": {"": 1}}, "response['']['']  == 1"),
    ],
)
def test_an_output_may_be_any_json(platform: Platform, output: object, condition: str) -> None:
    assert edges(platform, condition, output=output) == {condition: SATISFIED}


def test_an_output_of_null_is_no_failure(platform: Platform) -> None:
    condition = "response == null && 'a' in steps && steps.a == null"
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "if": condition}}}))
    (run,) = platform.runs(platform.send(data=script(a={"return": None})))
    assert statuses(run) == {"a": "completed", "b": "completed"}


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


def test_an_error_or_another_type_is_no_match_and_is_shown(platform: Platform) -> None:
    reasons = {
        "data.text": "string",
        "data.n": "int",
        "data.list": "list",
        "data.nothing": "null",
        "response": "map",
        "data.missing": "missing",
        "data.missing == 1": "missing",
        "response.other.b.c == 1": "other",
        "steps.a.missing > 1": "missing",
        "errors.a.kind == 'exit'": "a",
        "data.n > 'x'": "does not work",
        "data.n / 0 == 1": "zero",
        "data.list[7] == 1": "7",
        "int(data.text) == 1": "int",
        "timestamp(data.text) > timestamp('2026-01-01T00:00:00Z')": "timestamp",
    }
    for condition, edge in edges(platform, *reasons).items():
        assert edge["status"] == "dead", condition
        assert reasons[condition] in edge["problem"].lower(), condition


def test_what_is_merely_false_shows_no_problem(platform: Platform) -> None:
    conditions = ["false", "data.n == 2", "!has(data.n)", "1 == 2 && data.missing"]
    assert edges(platform, *conditions) == dict.fromkeys(conditions, DEAD)


def test_an_error_that_does_not_decide_is_none(platform: Platform) -> None:
    """`||` and `&&` are commutative in CEL: one operand that decides is enough."""
    conditions = ["data.n == 1 || data.missing", "data.missing || data.n == 1"]
    assert edges(platform, *conditions) == dict.fromkeys(conditions, SATISFIED)


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
    values: list[object] = ["true", 1, {}, None, False]
    for value in values:
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
        ("steps.c0.step == 'x'", "c0"),  # itself
        ("steps.unknown.step == 'x'", "unknown"),
        ("steps['first-step'].step == errors.aside.kind", "aside"),
        ("steps.first-step.step == 'x'", "steps['first-step']"),  # the loader says how to write it
        ("'text'", "true or false"),
        ("1 + 1", "true or false"),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused_with_its_place(
    platform: Platform, condition: str, text: str
) -> None:
    with pytest.raises(Refused) as refused:
        edges(platform, condition)
    assert {error["pointer"] for error in refused.value.errors} == {"/steps/c0/after/0/if"}
    assert any(text in error["message"] for error in refused.value.errors)


@pytest.mark.parametrize(
    "expression", ["steps.a == 1", "response == 1", "errors == {}", "async.data.n == 1", "data.n>"]
)
def test_a_triggers_expression_sees_the_event_only(platform: Platform, expression: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(on={"event": "go", "expression": expression}))
    assert [error["pointer"] for error in refused.value.errors] == ["/triggers/0/expression"]


def test_a_match_that_names_a_step_that_is_no_ancestor_is_refused(platform: Platform) -> None:
    wait = {"event": "paid", "match": "async.data.id == steps.c.id", "ttl": "1h"}
    with pytest.raises(Refused) as refused:
        platform.deploy(function({"a": {}, "c": {}, "b": {"after": {"step": "a", "async": wait}}}))
    assert [error["pointer"] for error in refused.value.errors] == ["/steps/b/after/0/async/match"]
