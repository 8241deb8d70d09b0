"""Expressions on edges: the variables that they can use, and what true, false and a missing value do.

`true` satisfies an edge, `false` kills it, and an `if` that has no value fails the run. For the expressions of
triggers, see `test_triggers.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.words import Json, Platform, Refused, function, has, script, statuses

DATA = {"n": 1, "text": "true", "list": [1, 2], "nothing": None, "a-b": {"c.d": 5}}


def edges(platform: Platform, *conditions: str, output: object = None, parent: str = "a") -> dict[str, Json]:
    """How the API shows an edge after `parent` with each condition, when the parent has ended with `output`.

    `a` comes after `first-step`. `aside` is not an ancestor.
    """
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


# --- variables -------------------------------------------------------------------------------------------------------


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
        "data.n == 1.0",  # numbers are compared by value
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
def test_an_output_can_be_any_json(platform: Platform, output: object, condition: str) -> None:
    assert edges(platform, condition, output=output) == {condition: SATISFIED}


def test_an_output_of_null_is_not_a_failure(platform: Platform) -> None:
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


# --- conditions without a value --------------------------------------------------------------------------------------


NO_VALUES = {
    "data.text": "string",
    "data.n": "int",
    "data.list": "list",
    "data.nothing": "null",
    "response": "map",
    "data.missing": "missing",
    "data.missing == 1": "missing",
    "response.other.b.c == 1": "other",
    "steps[STEP].missing > 1": "missing",
    "errors[STEP].kind == 'exit'": "key",
    "data.n > 'x'": "does not work",
    "data.n * 1.5 > 1.0": "does not work",
    "data.n / 0 == 1": "zero",
    "data.list[7] == 1": "7",
    "int(data.text) == 1": "int",
    "timestamp(data.text) > timestamp('2026-01-01T00:00:00Z')": "timestamp",
}


def test_a_condition_without_a_value_fails_the_run_and_keeps_the_steps_result(platform: Platform) -> None:
    """The run's error names the edge, the expression, and the reason."""
    conditions = {i: source.replace("STEP", f"'a{i}'") for i, source in enumerate(NO_VALUES)}
    steps: Json = {}
    for i, condition in conditions.items():
        steps[f"a{i}"] = {"after": {"step": "$trigger", "if": f"data.case == {i}"}}
        steps[f"b{i}"] = {"after": ["aside", {"step": f"a{i}", "if": condition}]}
    platform.deploy(function({"aside": {"after": {"step": "$trigger", "if": "false"}}, **steps, "z": "a0"}))
    events = [platform.send(data={**DATA, "case": i}) for i in conditions]
    for (i, condition), event, reason in zip(conditions.items(), events, NO_VALUES.values(), strict=True):
        (run,) = platform.runs(event)
        found, error = statuses(run), run["error"]
        assert (run["status"], found[f"a{i}"], found[f"b{i}"], found["z"]) == (
            *("failed", "completed", "cancelled"),
            "cancelled" if i == 0 else "skipped",
        ), condition
        assert run["steps"][f"a{i}"]["output"] == {"step": f"a{i}"}
        assert (run["output"], run["ended_at"] is None) == (None, False)
        assert (error["kind"], error["step"], error["status"]) == ("condition_failed", f"b{i}", None)
        assert {name: error["edge"][name] for name in ("step", "after", "index")} == {
            "step": f"b{i}",
            "after": f"a{i}",
            "index": 1,
        }
        edge = run["steps"][f"b{i}"]["after"][1]
        assert (edge["status"], edge["problem"]) == ("dead", error["edge"]["problem"])
        assert reason in edge["problem"].lower(), condition
        for text in (f"`b{i}`", f"`a{i}`", "after[1]", condition, edge["problem"], "has("):
            assert text in error["message"], text


def test_a_condition_that_is_too_expensive_has_no_value(platform: Platform) -> None:
    condition = "steps.a.list.exists(w, data.text.contains(w)) || response.list == [1]"
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "if": condition}}}))
    acts = script(a={"return": {"list": ["zzzz"] * 9000}})
    (run,) = platform.runs(platform.send(data={"text": "z z " * 40_000, **acts}))
    assert run["error"]["kind"] == "condition_failed"
    assert "the data is too large for this expression" in run["error"]["message"]


def test_a_misspelt_condition_of_both_branches_fails_the_run(platform: Platform) -> None:
    branches = {"small": "event.data.totl <= 1000", "large": "event.data.totl > 1000"}
    steps = {name: {"after": {"step": "reserve", "if": condition}} for name, condition in branches.items()}
    platform.deploy(function({"reserve": {}, **steps}))
    (run,) = platform.runs(platform.send(data={"total": 5000}))
    assert (run["status"], run["error"]["kind"]) == ("failed", "condition_failed")
    assert statuses(run) == {"reserve": "completed", "small": "cancelled", "large": "cancelled"}
    assert all("totl" in run["steps"][name]["after"][0]["problem"] for name in branches)


def test_a_trigger_condition_without_a_value_fails_the_run_before_any_step_starts(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": {"step": "$trigger", "if": "data.missing"}}, "b": {}}))
    (run,) = platform.runs(platform.send())
    assert (run["status"], statuses(run)) == ("failed", {"a": "cancelled", "b": "cancelled"})
    assert (run["error"]["kind"], run["error"]["edge"]["after"]) == ("condition_failed", "$trigger")


def test_a_condition_on_a_failure_without_a_value_fails_the_run_although_another_edge_handles_it(
    platform: Platform,
) -> None:
    """The message also contains the failure, and the step keeps its error."""
    edge = {"step": "a", "on": "failure", "if": "errors.a.missing == 1"}
    platform.deploy(function({"a": {}, "b": {"after": edge}, "c": {"after": {"step": "a", "on": "always"}}}))
    (run,) = platform.runs(platform.send(data=script(a={"raise": "no such card"})))
    assert (run["status"], statuses(run)) == ("failed", {"a": "failed", "b": "cancelled", "c": "cancelled"})
    assert run["error"]["kind"] == "condition_failed"
    assert "missing" in run["error"]["message"]
    assert "no such card" in run["error"]["message"]
    assert "no such card" in run["steps"]["a"]["error"]["message"]


def test_the_event_of_the_runs_end_contains_the_condition_without_a_value(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "if": "data.missing"}}}))
    (run,) = platform.runs(platform.send())
    (end,) = platform.events("stepwell/run.failed")
    assert {**end["data"]["error"], "output": None} == run["error"]


def test_running_attempts_can_end_after_a_condition_without_a_value(platform: Platform, tmp_path: Path) -> None:
    gate, go = tmp_path / "gate", tmp_path / "go"
    slow = {"touch": str(gate), "wait_for": str(go)}
    edges = {"b": {"after": {"step": "a", "if": "data.missing"}}, "c": "slow"}
    platform.deploy(function({"a": {}, "slow": {}, **edges}))
    run_id = platform.run_of(platform.send(data=script(a={"wait_for": str(gate)}, slow=slow)))
    platform.wait(run_id, lambda run: run["status"] == "failed")
    go.touch()
    run = platform.wait(run_id, has("slow", "completed"))
    assert statuses(run) == {"a": "completed", "slow": "completed", "b": "cancelled", "c": "cancelled"}
    assert (run["status"], run["error"]["kind"]) == ("failed", "condition_failed")


@pytest.mark.parametrize("from_step", [None, "a", "b"])
def test_a_run_that_failed_by_a_condition_can_be_rerun_after_a_push(platform: Platform, from_step: str | None) -> None:
    """The rerun can start at the beginning, at the step before the edge, and at the step after it."""

    def version(condition: str) -> Json:
        return function({"first": {}, "a": "first", "b": {"after": {"step": "a", "if": condition}}, "c": "b"})

    platform.deploy(version("response.stp == 'a'"))
    (run,) = platform.runs(platform.send())
    body = None if from_step is None else {"from_step": from_step}
    again = platform.api("POST", f"/v1/runs/{run['id']}/rerun", body)["id"]
    platform.settle()
    if from_step != "b":  # the step of a rerun starts whatever its edges are
        assert platform.run(again)["error"] == run["error"]
    platform.deploy(version("response.step == 'a'"))
    mended = platform.api("POST", f"/v1/runs/{run['id']}/rerun", body)["id"]
    platform.settle()
    assert (platform.run(mended)["status"], platform.run(mended)["function_version"]) == ("completed", 2)
    assert set(statuses(platform.run(mended)).values()) == {"completed"}


def test_a_kept_step_whose_condition_has_no_value_fails_the_new_run(platform: Platform) -> None:
    """The kept step's edge to a step that had not ended is evaluated again, here with an edited output."""
    edge = {"step": "a", "wait": "1h", "if": "response.go"}
    platform.deploy(function({"a": {}, "b": {"after": edge}, "c": {}}))
    (run,) = platform.runs(platform.send(data=script(a={"return": {"go": True}})))
    body = {"from_step": "c", "outputs": {"a": {"went": True}}}
    again = platform.api("POST", f"/v1/runs/{run['id']}/rerun", body)["id"]
    platform.settle()
    new = platform.run(again)
    assert (new["status"], new["error"]["kind"]) == ("failed", "condition_failed")
    assert (statuses(new)["a"], new["steps"]["a"]["output"]) == ("completed", {"went": True})


def test_a_false_condition_shows_no_problem(platform: Platform) -> None:
    conditions = ["false", "data.n == 2", "!has(data.n)", "1 == 2 && data.missing"]
    assert edges(platform, *conditions) == dict.fromkeys(conditions, DEAD)


def test_an_error_that_does_not_affect_the_result_is_ignored(platform: Platform) -> None:
    """`||` and `&&` are commutative in CEL: if one operand decides the result, an error in the other is ignored."""
    conditions = ["data.n == 1 || data.missing", "data.missing || data.n == 1"]
    assert edges(platform, *conditions) == dict.fromkeys(conditions, SATISFIED)


def test_a_match_that_cannot_be_evaluated_is_no_match_and_is_shown(platform: Platform) -> None:
    wait = {"event": "paid", "match": "async.data.id == response.id", "ttl": "1h"}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": wait}}}))
    (run,) = platform.runs(platform.send())  # the response does not contain `id`
    assert "response.id" in run["steps"]["b"]["after"][0]["problem"]
    platform.send("paid", {"id": None})
    platform.send("paid")
    platform.settle()
    assert statuses(platform.run(run["id"]))["b"] == "waiting"
    platform.travel("1h")
    assert statuses(platform.run(run["id"]))["b"] == "skipped"


def test_a_match_that_is_not_a_boolean_is_no_match(platform: Platform) -> None:
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
        ("data.n ==", "column"),  # a syntax error
        ("dta.n == 1", "data"),  # an unknown variable; the message suggests the nearest one
        ("async.data.n == 1", "async"),  # only allowed in `match`
        ("steps.aside.step == 'x'", "aside"),  # not an ancestor
        ("steps.c0.step == 'x'", "c0"),  # the step itself
        ("steps.unknown.step == 'x'", "unknown"),
        ("steps['first-step'].step == errors.aside.kind", "aside"),
        ("steps.first-step.step == 'x'", "steps['first-step']"),  # the message shows the right syntax
        ("'text'", "true or false"),
        ("1 + 1", "true or false"),
    ],
)
def test_an_invalid_condition_is_refused_with_a_pointer(platform: Platform, condition: str, text: str) -> None:
    with pytest.raises(Refused) as refused:
        edges(platform, condition)
    assert {error["pointer"] for error in refused.value.errors} == {"/steps/c0/after/0/if"}
    assert any(text in error["message"] for error in refused.value.errors)


@pytest.mark.parametrize(
    "expression", ["steps.a == 1", "response == 1", "errors == {}", "async.data.n == 1", "data.n>"]
)
def test_a_triggers_expression_sees_only_the_event(platform: Platform, expression: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(on={"event": "go", "expression": expression}))
    assert [error["pointer"] for error in refused.value.errors] == ["/triggers/0/expression"]


def test_a_match_that_names_a_step_that_is_no_ancestor_is_refused(platform: Platform) -> None:
    wait = {"event": "paid", "match": "async.data.id == steps.c.id", "ttl": "1h"}
    with pytest.raises(Refused) as refused:
        platform.deploy(function({"a": {}, "c": {}, "b": {"after": {"step": "a", "async": wait}}}))
    assert [error["pointer"] for error in refused.value.errors] == ["/steps/b/after/0/async/match"]
