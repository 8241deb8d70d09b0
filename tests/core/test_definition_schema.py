"""Tests that the JSON Schema of definitions refuses the same structures as the parser.

A schema cannot express some rules, which only `validate` checks. `LEFT` matches the messages of these rules.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from stepwell.core.definition.definition import DefinitionError, parse_definition, schema
from stepwell.core.definition.problems import Pointer
from stepwell.core.webhooks import definition

Json = dict[str, Any]
ANSWERS: dict[tuple[str, str], ValidationError | None] = {}


def remembered(validator: Any, ref: str, instance: Any, schema: Json) -> Iterator[ValidationError]:
    """The first error of a value in a part of the schema, from a cache: cases differ in one value, and Python's
    validator takes most of the time of this module."""
    key = ref, json.dumps(instance)
    if key not in ANSWERS:
        ANSWERS[key] = next(iter(Draft202012Validator.VALIDATORS["$ref"](validator, ref, instance, schema)), None)
    if error := ANSWERS[key]:
        yield error


PYTHON = extend(Draft202012Validator, {"$ref": remembered})(schema())
RUST = jsonschema_rs.Draft202012Validator(schema())

LEFT = re.compile(
    r"differs from the key of the step|which does not exist|there is no step|cannot come after itself"
    r"|of the expression\)|is not a time zone|more than 366 days|is zero|`timeout` of the runtime differs"
    r"|is 0-|is 1-|never fires|form a cycle|has not run yet|may still be running|reserve a job for"
)

# --- a definition with every field -----------------------------------------------------------------------------------

WHOLE: Json = {
    "$schema": "x",
    "id": "f",
    "name": "F",
    "triggers": [
        {"event": "a/b", "expression": "true", "definition": {"format": "json-schema", "synced": True, "def": {}}},
        {"event": "user/*"},
        {"cron": "0 9 * * *", "timezone": "UTC"},
        {"event": "c", "definition": {"format": "cue", "def": "{name: string}"}},
    ],
    "steps": {
        "a": {
            "id": "a",
            "name": "A",
            "path": "file://./a",
            "runtime": {"type": "lambda", "command": ["sh", "x"], "memory": 256, "architecture": "arm64"},
            "after": [{"step": "$trigger", "if": "true", "wait": "5m"}],
            "join": "all",
            "retries": {"attempts": 2, "backoff": {"initial": "1s", "factor": 2, "max": "1h", "jitter": 0.5}},
            "timeout": "1h30m",
            "env": {"A": "b"},
            "secrets": ["KEY"],
        },
        "b": {
            "runtime": {"type": "docker", "image": "alpine", "entrypoint": ["sh"], "cpu": 0.5, "memory": 512},
            "after": [
                {"step": "a", "wait": {"until": "event.ts"}},
                {
                    "step": "a",
                    "on": "failure",
                    "async": {"event": "e", "match": "true", "ttl": "1d", "onTimeout": True},
                },
            ],
        },
        "c": {"runtime": {"type": "http", "url": "https://x.de/y", "headers": {"A": "b"}}, "after": [{"step": "a"}]},
        "d": {
            "runtime": {"type": "approval", "message": "ok?", "approvers": ["x"], "timeout": "1d"},
            "after": [{"step": "a"}],
        },
        "e": {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.handler"}},
        "h": {
            "path": "file://.",
            "runtime": {
                "type": "lambda",
                "ephemeral_storage": 1024,
                "layers": ["arn:aws:lambda:eu-central-1:123456789012:layer:fonts:3"],
                "vpc": True,
                "tracing": False,
            },
        },
        "i": {"runtime": {"type": "faktory", "jobtype": "Mail", "queue": "mails", "args": "[1]"}, "timeout": "2m"},
        "k": {"runtime": {"type": "emit", "event": "e", "data": "{'a': 1}", "user": "user.id", "ts": "1"}},
        "g": {"runtime": {"type": "lambda", "arn": "arn:aws:lambda:eu-central-1:123456789012:function:x"}},
    },
    "cancel": [{"event": "x", "if": "async.data.a == event.data.a", "timeout": "1d"}],
    "idempotency": "event.data.id",
    "timeouts": {"start": "1h", "finish": "1m"},
    "rate_limit": {"limit": 5, "period": "1h", "key": "user.id"},
    "singleton": {"mode": "skip", "key": "user.id"},
}
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3.0,
    1.5,
    10**9,
    "",
    "a",
    "a-b",
    "A b",
    "1s",
    "0s",
    "367d",
    "30",
    "1s\n",
    "file://.",
    "file://./x",
    "file:///x",
    "file://../x",
    "x\u0000",
    " a",
    "a ",
    "a*",
    "*",
    "a*b",
    "stepwell/*",
    "stepwell/run.failed",
    "lambda",
    "docker",
    "http",
    "approval",
    "faktory",
    "emit",
    "$trigger",
    "success",
    "app.handler",
    "a..b.c",
    "https://x.de",
    "ftp://x",
    "json-schema",
    "cue",
    "* * * * *",
    "* * *",
    "true",
    "٣s",
    "é",
    "x" * 300,
    [],
    [1],
    ["a"],
    ["a\u0000"],
    [None],
    {},
    {"a": 1},
    {"a": "b"},
    {"step": "a"},
    {"event": "a"},
    {"type": "lambda"},
    {"type": "docker"},
    {"type": "approval", "message": "m"},
    {"type": "emit", "event": "e"},
    {"start": "1h"},
    {"until": "event.ts"},
    {"attempts": 0},
    {"attempts": 3},
    {"type": "object"},
]
FIELDS = [
    "id",
    "name",
    "path",
    "runtime",
    "after",
    "join",
    "retries",
    "timeout",
    "env",
    "secrets",
    "event",
    "cron",
    "timezone",
    "expression",
    "definition",
    "format",
    "def",
    "synced",
    "on",
    "if",
    "wait",
    "until",
    "async",
    "match",
    "ttl",
    "onTimeout",
    "command",
    "handler",
    "arn",
    "image",
    "entrypoint",
    "cpu",
    "memory",
    "ephemeral_storage",
    "layers",
    "vpc",
    "tracing",
    "url",
    "headers",
    "message",
    "approvers",
    "data",
    "user",
    "ts",
    "timeouts",
    "start",
    "finish",
    "unknown",
    "steps",
    "triggers",
    "cancel",
    "idempotency",
    "rate_limit",
    "singleton",
    "skip",
    "mode",
    "limit",
    "period",
    "key",
    "$schema",
    "attempts",
    "backoff",
    "factor",
    "type",
    "A-B",
    "9",
    "",
]


def places(value: Any, pointer: Pointer = ()) -> list[Pointer]:
    found = [pointer]
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += places(child, (*pointer, key))
    return found


PLACES = [place for place in places(WHOLE) if place]


def get(data: Any, pointer: Pointer) -> Any:
    for part in pointer:
        data = data[part]
    return data


def around(place: Pointer) -> Json:
    """A small definition with this place: the step or trigger of `WHOLE` that contains it, and a step before it.
    Python's validator takes five times as long for the complete `WHOLE`."""
    first, index = place[0], place[1] if len(place) > 1 else None
    small: Json = {"id": "f", "triggers": WHOLE["triggers"][:1], "steps": {"a": {"path": "file://."}}}
    if first == "steps":
        small["steps"] |= {index: WHOLE["steps"][index]} if index else {"a": WHOLE["steps"]["a"]}
    else:
        small[first] = WHOLE[first]
    return copy.deepcopy(small)


def verdict(data: Any) -> list[str]:
    """The problems of a definition."""
    try:
        parse_definition(data)
    except DefinitionError as refused:
        return [problem.message for problem in refused.problems]
    return []


def agree(data: Any) -> None:
    messages = verdict(data)
    is_valid = RUST.is_valid(data)
    assert is_valid == PYTHON.is_valid(data), data
    if not messages:
        assert is_valid, (next(iter(PYTHON.iter_errors(data))).message, data)
    elif not all(LEFT.search(message) for message in messages):
        assert not is_valid, (messages, data)


# --- the property ----------------------------------------------------------------------------------------------------


def test_the_whole_definition_is_accepted_by_both() -> None:
    assert verdict(WHOLE) == []
    agree(WHOLE)


def test_the_parts_of_the_definition_are_accepted_by_both() -> None:
    for place in PLACES:
        assert verdict(around(place)) == []
        agree(around(place))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "/".join(map(str, place)))
def test_every_value_in_every_place_is_refused_by_both_or_by_none(place: Pointer) -> None:
    for value in VALUES:
        data = around(place)
        get(data, place[:-1])[place[-1]] = value
        agree(data)
    data = copy.deepcopy(WHOLE)
    parent = get(data, place[:-1])
    del parent[place[-1]]
    agree(data)


OBJECT_PLACES = [place for place in places(WHOLE) if isinstance(get(WHOLE, place), dict)]
CHANGE = st.tuples(st.sampled_from(OBJECT_PLACES), st.sampled_from(FIELDS), st.sampled_from(VALUES))
REMOVAL = st.sampled_from(PLACES)


@settings(max_examples=400, deadline=None)
@given(st.lists(CHANGE, max_size=3), st.lists(REMOVAL, max_size=3))
def test_fields_added_and_removed_are_refused_by_both_or_by_none(
    changes: list[tuple[Pointer, str, Any]], removals: list[Pointer]
) -> None:
    data = copy.deepcopy(WHOLE)
    for place, field, value in changes:
        get_or_none = _get(data, place)
        if isinstance(get_or_none, dict):
            get_or_none[field] = copy.deepcopy(value)
    for place in removals:
        parent = _get(data, place[:-1])
        if isinstance(parent, dict):
            parent.pop(place[-1], None)
    agree(data)


def _get(data: Any, pointer: Pointer) -> Any:
    try:
        return get(data, pointer)
    except (KeyError, IndexError, TypeError):
        return None


# --- rules of webhooks -----------------------------------------------------------------------------------------------

RULES: list[Json] = [
    {"event": "a", "id": "body.id", "if": "true", "verify": {"type": "stripe", "secret": "S", "tolerance": "5m"}},
    {
        "event": "a",
        "verify": {"type": "hmac", "secret": "S", "header": "X-Sig", "algorithm": "sha1", "encoding": "hex"},
    },
    {"event": "a", "verify": {"type": "token", "secret": "S", "header": "X-T"}},
    {"event": "a", "verify": {"type": "sns"}},
]
OF_RULES: list[Any] = [*VALUES, "S", "X-Sig", "hmac", "token", "sns", "slack", "sha256", {"type": "hmac"}, [{}]]
LEFT_OF_RULES = re.compile(
    r"\(line \d+, column|differs from the name|more than 366 days|is zero|contain no time|\{\{|must be a web address"
    r"|must have at most|reserved for the engine|end with -signature|needs the secret"
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["verify"]["type"]))
def test_rules_of_webhooks_are_refused_by_both_or_by_none(rule: Json) -> None:
    schema = definition.schema()
    validator = jsonschema_rs.Draft202012Validator(schema)
    fields = {*schema["properties"], *schema["$defs"]["Verify"]["properties"], "unknown"}
    for place in places(rule):
        at = get(rule, place)
        for field in fields if isinstance(at, dict) else (None,):
            for value in OF_RULES:
                data = copy.deepcopy(rule)
                if field is None:
                    get(data, place[:-1])[place[-1]] = value
                else:
                    get(data, place)[field] = value
                try:
                    definition.parse_webhook(data, "w")
                    messages = []
                except DefinitionError as refused:
                    messages = [problem.message for problem in refused.problems]
                if not messages or not all(LEFT_OF_RULES.search(message) for message in messages):
                    assert validator.is_valid(data) == (not messages), (messages, data)
