"""Tests which definitions are accepted, and the messages for those that are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import DefinitionError, parse_definition, schema

ROOT = Path(__file__).parents[2]

DEER: dict[str, Any] = {
    "name": "A beautiful background function",
    "id": "prompt-deer-ede40d",
    "triggers": [{"event": "user/signed.up", "expression": "user.created_at > '2020-01-01'"}],
    "steps": {
        "step-1": {
            "id": "step-1",
            "path": "file://./steps/send-sms-dispatch",
            "name": "Send SMS",
            "runtime": {"type": "docker"},
        },
        "step-2": {
            "id": "step-2",
            "path": "file://./steps/add-to-intercom",
            "name": "Add user to Intercom",
            "runtime": {"type": "lambda"},
            "after": [{"step": "step-1"}],
        },
    },
}
CELERY = {"type": "celery", "task": "shop.mail", "broker": "redis://localhost"}
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:add-to-crm"
LAYER = "arn:aws:lambda:eu-central-1:123456789012:layer:fonts:3"


def step(**fields: Any) -> dict[str, Any]:
    return {"path": "file://.", **fields}


def after(*edges: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    return step(after=[{"step": edge} if isinstance(edge, str) else edge for edge in edges], **fields)


def function(trigger: dict[str, Any] | None = None, **steps: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): body for name, body in steps.items()}
    return {"id": "f", "triggers": [trigger or {"event": "a"}], "steps": named}


def problems(raw: object) -> dict[str, str]:
    """The messages by pointer, written as a/b/0."""
    with pytest.raises(DefinitionError) as refused:
        parse_definition(raw)
    found = {"/".join(map(str, problem.pointer)): problem.message for problem in refused.value.problems}
    assert len(found) == len(refused.value.problems), refused.value.problems
    return found


def only(raw: object) -> tuple[str, str]:
    found = problems(raw)
    assert len(found) == 1, found
    return next(iter(found.items()))


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_the_definition_of_the_contract_is_accepted_as_written() -> None:
    definition = parse_definition(DEER)
    plan = compile_plan(definition.normalised(), 1)
    assert [s.id for s in plan.steps] == ["step-1", "step-2"]
    assert [s.runtime.type for s in plan.steps] == ["docker", "lambda"]
    assert [(e.parent, e.step, e.on) for e in plan.edges] == [(-1, 0, "success"), (0, 1, "success")]


def test_every_default_is_filled_in() -> None:
    assert parse_definition({"id": "f", "triggers": [{"cron": "0 9 * * *"}]}).normalised() == {
        "id": "f",
        "name": "f",
        "triggers": [{"cron": "0 9 * * *", "timezone": "UTC"}],
        "steps": {
            "step-1": {
                "id": "step-1",
                "name": "step-1",
                "path": "file://.",
                "runtime": {"type": "lambda"},
                "after": [{"step": "$trigger"}],
                "join": "merge",
                "retries": {
                    "attempts": 4,
                    "backoff": {"initial": "10s", "factor": 2.0, "max": "1h", "jitter": 0.15},
                },
                "timeout": "15m",
                "env": {},
                "secrets": [],
            }
        },
    }


def test_given_values_override_the_defaults() -> None:
    pause = {"event": "b", "match": "async.data.x == event.data.x", "ttl": "2d", "onTimeout": True}
    edge = {"step": "a", "on": "always", "if": "response.ok", "wait": "1h30m", "async": pause}
    raw = function(
        a=step(retries={"attempts": 0, "backoff": {"factor": 3}}, timeout="5s", env={"A": "1"}, secrets=["KEY"]),
        b={"after": [edge], "join": "all", "runtime": {"type": "http", "url": "https://x.de/y", "headers": {"A": "b"}}},
    )
    steps = parse_definition(raw).normalised()["steps"]
    assert steps["a"]["retries"] == {
        "attempts": 0,
        "backoff": {"initial": "10s", "factor": 3.0, "max": "1h", "jitter": 0.15},
    }
    assert (steps["a"]["timeout"], steps["a"]["env"], steps["a"]["secrets"]) == ("5s", {"A": "1"}, ["KEY"])
    assert steps["b"]["after"] == [edge]
    assert steps["b"]["runtime"] == {"type": "http", "url": "https://x.de/y", "headers": {"A": "b"}}
    assert steps["b"]["path"] == ""


def test_a_normalised_definition_can_be_read_again() -> None:
    normalised = parse_definition(DEER).normalised()
    assert parse_definition(json.loads(json.dumps(normalised))).normalised() == normalised


def test_null_means_not_given() -> None:
    raw = function(a=step(after=None, runtime=None, retries=None, id=None, name=None))
    assert parse_definition({**raw, "name": None}).normalised() == parse_definition(function(a=step())).normalised()


def test_the_schema_key_for_editors_is_accepted_and_not_kept() -> None:
    assert "$schema" not in parse_definition({"$schema": "https://x/y.json", **DEER}).normalised()


@pytest.mark.parametrize(
    "fields",
    [
        {"runtime": {"type": "docker", "image": "alpine", "entrypoint": ["sh"], "cpu": 0.5, "memory": 512}, "path": ""},
        {"runtime": {"type": "lambda", "handler": "src/app.handler", "memory": 256, "architecture": "arm64"}},
        {"runtime": {"type": "lambda", "handler": "pkg.mod.fn"}},
        {"runtime": {"type": "lambda", "command": ["python3", "x.py"]}},
        {"runtime": {"type": "lambda", "ephemeral_storage": 512, "layers": [LAYER] * 4, "vpc": True, "tracing": False}},
        {"path": "file://./a/../b/main.py"},
        {"timeout": "20m", "runtime": {"type": "http", "url": "http://localhost:1/x"}},
    ],
)
def test_this_step_is_accepted(fields: dict[str, Any]) -> None:
    parse_definition(function(a=step(**fields)))


@pytest.mark.parametrize(
    "trigger", [{"event": "user/*"}, {"event": "*"}, {"event": "step*"}, {"event": "stepwell/run.failed"}]
)
def test_this_trigger_is_accepted(trigger: dict[str, Any]) -> None:
    parse_definition(function(trigger, a=step()))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once() -> None:
    raw = {
        "id": "Bad Id",
        "triggers": [{"event": "stepwell/*"}, {"event": "a", "cron": "* * * * *"}, {}],
        "stepz": {},
        "steps": {
            "a": {"path": "file://.", "timeout": "soon", "after": [{"step": "c"}]},
            "b": {"runtime": {"type": "wazm"}, "after": [{"step": "b"}, {"step": "nobody", "if": "(("}]},
            "c": after("a"),
        },
    }
    assert set(problems(raw)) == {
        "id",
        "triggers/0/event",
        "triggers/1/cron",
        "triggers/2",
        "stepz",
        "steps/a/timeout",
        "steps/a/after/0/step",
        "steps/b/runtime/type",
        "steps/b/after/0/step",
        "steps/b/after/1/step",
        "steps/b/after/1/if",
    }


@pytest.mark.parametrize(
    ("place", "field", "says"),
    [
        ((), "trigers", "unknown field `trigers`; did you mean `triggers`?"),
        (("triggers", 0), "evnt", "did you mean `event`?"),
        (("steps", "b"), "pth", "did you mean `path`?"),
        (("steps", "b"), "parallelism", "the known names are `id`, `name`, `path`"),
        (("steps", "b", "runtime"), "comand", "did you mean `command`?"),
        (("steps", "b", "runtime"), "ephemeralStorageSize", "did you mean `ephemeral_storage`?"),
        (("steps", "b", "runtime"), "Tracing", "did you mean `tracing`?"),
        (("steps", "b", "retries"), "attempt", "did you mean `attempts`?"),
        (("steps", "b", "retries", "backoff"), "inital", "did you mean `initial`?"),
        (("steps", "b", "after", 0), "iff", "did you mean `if`?"),
        (("steps", "b", "after", 0, "async"), "on_timeout", "did you mean `onTimeout`?"),
    ],
)
def test_an_unknown_field_names_the_nearest_valid_one(place: tuple[str | int, ...], field: str, says: str) -> None:
    edge = {"step": "a", "async": {"event": "e", "ttl": "1d"}}
    raw = function(
        a=step(), b=step(runtime={"type": "lambda"}, retries={"attempts": 1, "backoff": {"factor": 1}}, after=[edge])
    )
    target: Any = raw
    for part in place:
        target = target[part]
    target[field] = 1
    where, message = only(raw)
    assert where == "/".join(map(str, (*place, field)))
    assert says in message


@pytest.mark.parametrize(
    ("fields", "where", "says"),
    [
        ({"timeout": "0s"}, "timeout", "timeout: '0s' is zero"),
        ({"timeout": 15}, "timeout", 'must be text with a unit, not a number; write "15s" for seconds'),
        ({"timeout": "367d"}, "timeout", "more than 366 days"),
        ({"retries": {"attempts": 21}}, "retries/attempts", "attempts must be at most 20, not 21"),
        ({"retries": {"attempts": -1}}, "retries/attempts", "attempts must be at least 0, not -1"),
        ({"retries": {"attempts": 1.5}}, "retries/attempts", "must be a whole number, not 1.5"),
        ({"retries": {"attempts": True}}, "retries/attempts", "must be a whole number, not true"),
        ({"retries": 3}, "retries", "retries must be an object, {...}, not 3"),
        ({"retries": {"backoff": {"factor": 0.5}}}, "retries/backoff/factor", "at least 1"),
        ({"retries": {"backoff": {"factor": float("inf")}}}, "retries/backoff/factor", "finite"),
        ({"retries": {"backoff": {"jitter": 2}}}, "retries/backoff/jitter", "at most 1"),
        ({"retries": {"backoff": {"initial": "0s"}}}, "retries/backoff/initial", "is zero; write a longer duration"),
        ({"name": "x" * 257}, "name", "longer than 256 characters"),
        ({"name": ""}, "name", "must not be empty"),
        ({"join": "any"}, "join", "join must be 'merge', 'all' or 'first', not \"any\""),
        ({"id": "b"}, "id", "the id 'b' differs from the key of the step; write 'a'"),
        ({"path": None}, "path", "`path`, the place of the code of `a`, is missing"),
        ({"path": "./x"}, "path", "must begin with file://"),
        ({"path": "file:///etc"}, "path", "is an absolute path"),
        ({"path": "file://./a/../../b"}, "path", "leads out of the function's folder"),
        ({"path": "file://a\0b"}, "path", "NUL"),
        ({"env": {"PORT": 80}}, "env/PORT", 'PORT must be text, not 80: put it in quotes, "80"'),
        ({"env": {"DEBUG": True}}, "env/DEBUG", 'not true: put it in quotes, "true"'),
        ({"env": {"A=B": "x"}}, "env/A=B", "letters, digits and _"),
        ({"env": {"A": "x\0"}}, "env/A", "NUL"),
        ({"secrets": ["a-b"]}, "secrets/0", "secrets[0]: the name of a variable"),
        ({"secrets": "KEY"}, "secrets", "must be a list, [...]"),
        ({"after": {"step": "$trigger"}}, "after", "must be a list, [...], not an object"),
        ({"after": ["a"]}, "after/0", "after[0] must be an object"),
        ({"after": [{}]}, "after/0/step", "`step` is missing; add this field: The id of the step that comes before"),
        ({"after": [{"step": "$trigger", "on": "success"}]}, "after/0/on", "cannot succeed or fail"),
        ({"after": [{"step": "$trigger", "wait": "367d"}]}, "after/0/wait", "366 days"),
        ({"after": [{"step": "$trigger", "async": {"event": "b"}}]}, "after/0/async/ttl", "`ttl` is missing"),
        (
            {"after": [{"step": "$trigger", "async": {"event": "b/*", "ttl": "1d"}}]},
            "after/0/async/event",
            "'b/*' has a wildcard",
        ),
        ({"runtime": {}}, "runtime", "`runtime` has no `type`; add one"),
        ({"runtime": "lambda"}, "runtime", "must be an object"),
        ({"runtime": {"type": "wasm"}, "path": ""}, "path", "`path`, the place of the code of `a`, is missing"),
        (
            {"runtime": {"type": "wasm", "module": "../main.wasm"}},
            "runtime/module",
            "must be a file in the step's folder",
        ),
        (
            {"runtime": {"type": "wasm", "module": "main.py"}},
            "runtime/module",
            "that ends in .wasm, as in build/main.wasm",
        ),
        ({"runtime": {"type": "wasm", "memory": 5000}}, "runtime/memory", "at most 4096"),
        ({"runtime": {"type": "wasm", "fuel": 0}}, "runtime/fuel", "at least 1"),
        ({"runtime": {"type": "wasm", "command": ["x"]}}, "runtime/command", "only the runtime lambda has `command`"),
        ({"runtime": {"type": "dokcer"}}, "runtime/type", "unknown runtime 'dokcer'; did you mean `docker`?"),
        ({"runtime": {**CELERY, "task": " "}}, "runtime/task", "must be one line"),
        ({"runtime": {**CELERY, "broker": "localhost"}}, "runtime/broker", "must be an address such as redis://"),
        ({"runtime": {**CELERY, "args": "[data.x"}}, "runtime/args", "args: "),
        ({"runtime": {**CELERY, "args": "[steps.b]"}}, "runtime/args", "args: there is no step `b` before `a`"),
        ({"runtime": {**CELERY, "kwargs": "response"}}, "runtime/kwargs", "kwargs: "),
        ({"runtime": {"type": "lambda", "command": []}}, "runtime/command", "at least one entry"),
        ({"runtime": {"type": "lambda", "command": "x"}}, "runtime/command", "must be a list"),
        ({"runtime": {"type": "lambda", "command": [1]}}, "runtime/command/0", "command[0] must be text"),
        ({"runtime": {"type": "lambda", "command": ["x"], "handler": "a.b"}}, "runtime/handler", "exclude each other"),
        ({"runtime": {"type": "lambda", "handler": "handler"}}, "runtime/handler", "as in app.handler"),
        ({"runtime": {"type": "lambda", "handler": "../x.f"}}, "runtime/handler", "as in app.handler"),
        ({"runtime": {"type": "http"}}, "runtime/url", "`url` is missing"),
        ({"runtime": {"type": "http", "url": "ftp://x"}}, "runtime/url", "must be a web address such as https://"),
        ({"runtime": {"type": "http", "url": "http://["}}, "runtime/url", "must be a web address such as https://"),
        ({"runtime": {"type": "http", "url": "http://x", "headers": {"A": "b\r\nC: d"}}}, "runtime/headers/A", "line"),
        ({"runtime": {"type": "docker"}, "path": ""}, "path", "or give an `image`"),
        (
            {"runtime": {"type": "lambda", "ephemeral_storage": 511}},
            "runtime/ephemeral_storage",
            "at least 512, not 511",
        ),
        ({"runtime": {"type": "lambda", "ephemeral_storage": 10241}}, "runtime/ephemeral_storage", "at most 10240"),
        ({"runtime": {"type": "lambda", "layers": [LAYER] * 5}}, "runtime/layers", "more than 4 entries"),
        (
            {"runtime": {"type": "lambda", "layers": ["fonts"]}},
            "runtime/layers/0",
            "is not the ARN of a layer's version",
        ),
        ({"runtime": {"type": "lambda", "layers": [LAYER[:-2]]}}, "runtime/layers/0", "layer:NAME:VERSION"),
        (
            {"runtime": {"type": "lambda", "vpc": {"subnets": ["subnet-1"]}}},
            "runtime/vpc",
            "-c step_subnets=subnet-...",
        ),
        ({"runtime": {"type": "lambda", "vpc": "vpc-1"}}, "runtime/vpc", "must be true or false"),
        ({"runtime": {"type": "lambda", "tracing": "Active"}}, "runtime/tracing", "must be true or false"),
        ({"runtime": {"type": "lambda", "arn": ARN, "vpc": True}}, "runtime/vpc", "cannot be combined with `arn`"),
        ({"runtime": {"type": "lambda", "arn": ARN, "layers": [LAYER]}}, "runtime/layers", "remove it here"),
        ({"runtime": {"type": "docker", "image": "x", "vpc": True}}, "runtime/vpc", "only the runtime lambda has"),
        (
            {"runtime": {"type": "http", "url": "http://x", "layers": []}},
            "runtime/layers",
            "only the runtime lambda has",
        ),
        ({"runtime": {"type": "docker", "image": "x", "cpu": 0}}, "runtime/cpu", "must be more than 0"),
    ],
)
def test_this_step_is_refused(fields: dict[str, Any], where: str, says: str) -> None:
    place, message = only(function(a=step(**fields)))
    assert place == f"steps/a/{where}"
    assert says in message


@pytest.mark.parametrize(
    ("trigger", "where", "says"),
    [
        ({}, "", "needs an `event` or a `cron`"),
        ({"event": "a", "cron": "* * * * *"}, "/cron", "either `event` or `cron`"),
        ({"event": "a", "timezone": "UTC"}, "/timezone", "`timezone` is only for `cron`"),
        ({"cron": "* * * * *", "expression": "true"}, "/expression", "`expression` is only for `event`"),
        ({"cron": "* * * *"}, "/cron", "cron: "),
        ({"cron": "* * * * *", "timezone": "Mars/Base"}, "/timezone", "timezone: "),
        ({"event": "a*b"}, "/event", "a `*` is allowed only as the last character"),
        ({"event": "stepwell/*"}, "/event", "wildcards do not match stepwell/... events"),
        ({"event": "stepwell/run.*"}, "/event", "wildcards do not match stepwell/... events"),
        ({"event": " a"}, "/event", "or begin or end with a space"),
        ({"event": ""}, "/event", "must not be empty"),
        ({"event": "a", "expression": "user.x =="}, "/expression", "of the expression"),
    ],
)
def test_this_trigger_is_refused(trigger: dict[str, Any], where: str, says: str) -> None:
    raw = function(a=step())
    raw["triggers"] = [trigger]
    place, message = only(raw)
    assert place == f"triggers/0{where}"
    assert says in message


@pytest.mark.parametrize(
    ("raw", "where", "says"),
    [
        (None, "", "must be an object"),
        ([], "", "must be an object"),
        ({"id": "f", "triggers": None}, "triggers", "`triggers` is missing"),
        ({"id": "f", "triggers": []}, "triggers", "at least one entry"),
        ({"id": "f", "triggers": [{"event": "a"}], "steps": [1]}, "steps", "steps must be an object"),
        ({"id": "f", "triggers": [{"event": "a"}], "steps": {"A": step()}}, "steps/A", "an id has 1 to 64 characters"),
        ({"id": "f", "triggers": [{"event": "a"}], "steps": {"a": None}}, "steps/a", "a must be an object"),
        ({"id": "f" * 65, "triggers": [{"event": "a"}]}, "id", "an id has 1 to 64 characters"),
        ({"id": "f", "name": "\ud800", "triggers": [{"event": "a"}]}, "name", "surrogate"),
        ({"id": "f", "triggers": [{"event": "a"}], 7: 1}, "7", "name is not text"),
    ],
)
def test_data_that_is_not_a_definition_is_refused(raw: object, where: str, says: str) -> None:
    place, message = only(raw)
    assert place == where
    assert says in message


def test_more_than_a_thousand_steps_are_refused() -> None:
    thousand = {f"s{i}": step() for i in range(1000)}
    parse_definition(function(**thousand))
    assert only(function(**thousand, one_more=step())) == (
        "steps",
        "steps has more than 1,000 entries, the maximum; remove some",
    )


# --- the graph -------------------------------------------------------------------------------------------------------


def test_an_unknown_parent_names_the_nearest_step() -> None:
    where, message = only(function(send_sms=step(), b=after("send-smss")))
    assert where == "steps/b/after/0/step"
    assert "`b` comes after `send-smss`, which does not exist" in message
    assert "did you mean `send-sms`?" in message


def test_a_step_cannot_come_after_itself() -> None:
    where, message = only(function(a=after("a")))
    assert where == "steps/a/after/0/step"
    assert "cannot come after itself" in message


def test_a_cycle_is_named_in_the_order_it_runs() -> None:
    where, message = only(function(start=step(), a=after("start", "c"), b=after("a"), c=after("b"), end=after("c")))
    assert "a -> b -> c -> a" in message
    assert where == "steps/a/after/1/step"


def test_two_cycles_are_two_problems() -> None:
    found = problems(function(a=after("b"), b=after("a"), c=after("d", "a"), d=after("c")))
    assert sorted(message.split(": ")[1].split(";")[0] for message in found.values()) == ["a -> b -> a", "c -> d -> c"]


def test_a_chain_of_a_thousand_steps_is_accepted() -> None:
    chain = {f"s{i}": after(f"s{i - 1}") if i else step() for i in range(1000)}
    parse_definition(function(**chain))


# --- expressions -----------------------------------------------------------------------------------------------------


def condition(edge: dict[str, Any]) -> dict[str, Any]:
    return function(a=step(), b=after("a"), other=step(), c=after({"step": "b", **edge}, "other"))


def test_a_condition_may_name_the_parent_and_the_steps_before_it() -> None:
    parse_definition(condition({"if": "steps.a.x == 1 && steps.b.y == 2"}))
    parse_definition(
        condition({"async": {"event": "e", "ttl": "1d", "match": "async.data.x == steps.a.x"}, "on": "always"})
    )


def test_a_condition_that_names_a_step_beside_it_is_refused() -> None:
    where, message = only(condition({"if": "steps.other.x == 1"}))
    assert where == "steps/c/after/0/if"
    assert "when this edge is evaluated, which is when `b` ends" in message


def test_a_condition_that_names_its_own_step_is_refused() -> None:
    where, message = only(condition({"if": "steps.c.x == 1"}))
    assert where == "steps/c/after/0/if"
    assert "the step `c` comes after `b`, so it has not run yet" in message


@pytest.mark.parametrize("value", ["two\nlines", "naïve", "bell\a"])
def test_the_value_of_a_header_is_one_line_of_ascii(value: str) -> None:
    runtime = {"type": "http", "url": "https://example.com", "headers": {"x-name": value}}
    where, message = only(function(a={"runtime": runtime}))
    assert where.startswith("steps/a/runtime/headers")
    assert "one line of ASCII" in message


def test_expressions_of_a_rule_of_cancel_and_of_idempotency_are_refused_with_their_places() -> None:
    rules = [{"event": "paid", "if": "true"}, {"event": "paid", "if": "async.data."}]
    with pytest.raises(DefinitionError) as wrong:
        parse_definition({**function(a=step()), "cancel": rules, "idempotency": "event.data."})
    assert {problem.pointer for problem in wrong.value.problems} == {("cancel", 1, "if"), ("idempotency",)}


def test_a_match_that_names_an_unknown_step_is_refused() -> None:
    where, message = only(condition({"async": {"event": "e", "ttl": "1d", "match": "async.data.x == steps.aa.x"}}))
    assert where == "steps/c/after/0/async/match"
    assert "there is no step `aa`; did you mean `a`?" in message


def test_an_edge_from_the_trigger_must_not_name_a_step() -> None:
    where, message = only(function(a=step(), b=after({"step": "$trigger", "if": "steps.a.x == 1"})))
    assert where == "steps/b/after/0/if"
    assert "has not run yet when an edge from $trigger is evaluated" in message


def test_a_hyphen_in_a_step_id_is_explained() -> None:
    _, message = only(function(step_1=step(), b=after({"step": "step-1", "if": "steps.step-1.ok == ((true"})))
    assert "write steps['step-1']" in message


def test_a_hyphen_that_became_a_subtraction_is_explained() -> None:
    _, message = only(function(step_1=step(), b=after({"step": "step-1", "if": "steps.step-1 == 3"})))
    assert "there is no step `step`" in message
    assert "write steps['step-1']" in message


# --- warnings --------------------------------------------------------------------------------------------------------


def test_a_match_without_an_equality_is_a_warning() -> None:
    raw = condition({"async": {"event": "e", "ttl": "1d", "match": "async.data.x > 3"}})
    [warning] = parse_definition(raw).warnings()
    assert warning.pointer == ("steps", "c", "after", 0, "async", "match")
    assert "async.data.order_id == event.data.order_id" in warning.message


def test_a_match_with_an_equality_is_no_warning() -> None:
    raw = condition({"async": {"event": "e", "ttl": "1d", "match": "async.data.x == event.data.x"}})
    assert parse_definition(raw).warnings() == []


def test_a_join_that_can_never_be_complete_is_a_warning() -> None:
    raw = function(a=step(), b=after("a", {"step": "a", "on": "failure"}, join="all"))
    [warning] = parse_definition(raw).warnings()
    assert warning.pointer == ("steps", "b", "join")


def test_a_rule_of_cancel_without_an_equality_is_a_warning() -> None:
    rules = [{"event": "e", "if": "async.data.x > event.data.x"}, {"event": "e", "if": "async.data.x == event.data.x"}]
    [warning] = parse_definition({**function(a=step()), "cancel": rules}).warnings()
    assert warning.pointer == ("cancel", 0, "if")
    assert "if has no equality" in warning.message


def test_the_warning_explains_why_an_equality_cannot_be_indexed() -> None:
    match = "async.data.x == event.data.x || async.data.y == event.data.y"
    [warning] = parse_definition(condition({"async": {"event": "e", "ttl": "1d", "match": match}})).warnings()
    assert "(the `==` is inside `||`" in warning.message


def test_a_normalised_definition_without_cancel_rules_has_no_cancel_field() -> None:
    """Otherwise versions from before this field was added would have another hash now."""
    assert "cancel" not in parse_definition(function(a=step())).normalised()


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_schema_accepts_what_is_accepted_and_describes_every_field() -> None:
    found = schema()
    Draft202012Validator.check_schema(found)
    validator = Draft202012Validator(found)
    validator.validate(DEER)
    assert not validator.is_valid({**DEER, "stepz": {}})
    assert not validator.is_valid({**DEER, "triggers": [{}]})
    for model in (found, *found["$defs"].values()):
        for name, field in model["properties"].items():
            assert "description" in field or "const" in field, name


def test_the_schemas_in_the_repository_are_current() -> None:
    script = "import sys, json; sys.path.insert(0, 'schemas'); import generate; print(json.dumps(generate.texts()))"
    made = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    kept = {file.name: file.read_text("utf-8") for file in (ROOT / "schemas").glob("*.schema.json")}
    assert kept == json.loads(made.stdout), "run python schemas/generate.py"


# --- anything --------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["id", "a", "b", "$trigger", "steps", "triggers", "event", "after", "step", "runtime", "type", "lambda", "async"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)


@given(
    st.dictionaries(WORDS, ANYTHING, max_size=6),
    st.dictionaries(
        WORDS, st.fixed_dictionaries({}, optional={"after": ANYTHING, "runtime": ANYTHING, "path": ANYTHING})
    ),
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(["event", "if", "timeout"], ANYTHING))),
)
def test_any_data_is_accepted_or_refused_with_problems(
    raw: dict[str, Any], steps: dict[str, Any], rules: list[dict[str, Any]]
) -> None:
    for data in (raw, {**raw, "steps": steps}, {**raw, "cancel": rules}):
        try:
            parse_definition(data)
        except DefinitionError as refused:
            assert refused.problems  # noqa: PT017


# --- existing Lambdas ------------------------------------------------------------------------------------------------


def test_a_step_may_be_an_existing_lambda_and_then_needs_no_path() -> None:
    step = {"runtime": {"type": "lambda", "arn": ARN}}
    definition = parse_definition({"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step}})
    assert definition.normalised()["steps"]["a"]["runtime"] == {"type": "lambda", "arn": ARN}


def test_an_arn_of_another_resource_is_refused() -> None:
    step = {"runtime": {"type": "lambda", "arn": "arn:aws:sqs:eu-central-1:123456789012:queue"}}
    with pytest.raises(DefinitionError, match="is not the ARN of a Lambda"):
        parse_definition({"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step}})
