"""The limits of work for checks of events, for any schema and event, and the errors that are reported."""

from __future__ import annotations

import random
from functools import reduce
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from stepwell.core.events.envelope import MAX_EVENT_BYTES
from stepwell.core.events.events import Event, event_from
from stepwell.event_types.effort import Effort
from stepwell.event_types.first_error import first_error_schema
from stepwell.event_types.validation import Check, check_schema

Json = dict[str, Any]


def kinds(count: int) -> list[Json]:
    return [
        {"type": "object", "required": ["kind", f"x{i}"], "properties": {"kind": {"const": f"k{i}"}}}
        for i in range(count)
    ]


def event(data: Json) -> Event:
    event = event_from({"name": "e", "data": data, "id": "1", "ts": 1})
    assert len(event.body) <= MAX_EVENT_BYTES
    return event


def filled(part: object) -> list[object]:
    return [part] * (250_000 // (len(orjson.dumps(part)) + 1))


def items(schema: object) -> Json:
    return {"properties": {"items": {"items": schema}}}


def nested_in_all_of(levels: int) -> Json:
    return reduce(lambda fields, _: {"allOf": [fields, {"type": "object"}]}, range(levels), {"anyOf": kinds(3)})


NAMED = [{"properties": {f"a{i}": {}}} for i in range(100)]
HOSTILE: dict[str, tuple[Json, object]] = {
    "anyOf": (items({"anyOf": kinds(3)}), {"k": 1}),
    "anyOf of many": (items({"anyOf": kinds(200)}), {"kind": "k199"}),
    "oneOf": (items({"oneOf": kinds(100)}), {"k": 1}),
    "alternatives of lists": ({"anyOf": [items({"anyOf": kinds(3)}), items({"oneOf": kinds(3)})]}, {"k": 1}),
    "alternatives of wholes": ({"oneOf": [items({"type": "string"}), items({"type": "null"})]}, {"k": 1}),
    "deep allOf": (items(nested_in_all_of(25)), {}),
    "enum": (items({"enum": [f"value{i}" for i in range(4000)]}), "value"),
    "constants": (items({"anyOf": [{"const": i} for i in range(1000)]}), 999),
    "not": (items({"not": {"type": "object"}}), {}),
    "contains": ({"properties": {"items": {"contains": {"anyOf": kinds(100)}}}}, {"k": 1}),
    "uniqueItems": (items({"uniqueItems": True}), [*range(100), 1]),
    "if": (items({"if": {"type": "object"}, "then": {"anyOf": kinds(50)}}), {}),
    "unevaluated": (items({"unevaluatedProperties": False, "anyOf": [{"properties": {"a": {}}}, {}]}), {"b": 1}),
    "unevaluated of many": (items({"unevaluatedProperties": False, "anyOf": NAMED}), {"b": 1}),
    "fractions": (items({"allOf": [{"multipleOf": i + 0.1} for i in range(100)]}), 0),
    "references": ({**items({"$ref": "#/$defs/a"}), "$defs": {"a": {"anyOf": kinds(20)}}}, {"k": 1}),
    "references into them": ({**items({"$ref": "#/$defs/a/anyOf/1"}), "$defs": {"a": {"anyOf": kinds(20)}}}, {}),
}  # fmt: skip

NAMES: dict[str, Json] = {
    "patternProperties": {"patternProperties": {f"^a.*b{i}$": {} for i in range(500)}, "additionalProperties": False},
    "propertyNames": {"propertyNames": {"anyOf": [{"pattern": f"^q{i}"} for i in range(100)]}},
    "unexpected": {"additionalProperties": False},
    "dependentSchemas": {"dependentSchemas": {f"n{i}": {"anyOf": kinds(6)} for i in range(100)}},
}
TEXT: dict[str, Json] = {
    "patterns": {"properties": {"text": {"allOf": [{"pattern": f"a[^b]*{i}$|x"} for i in range(500)]}}},
    "a pattern": {"properties": {"text": {"pattern": "^(a|aa)*b$"}}},
}
ALL = [
    *[(name, schema, {"items": filled(part)}) for name, (schema, part) in HOSTILE.items()],
    *[(name, schema, {f"n{i}": 1 for i in range(20_000)}) for name, schema in NAMES.items()],
    *[(name, schema, {"text": "a" * 250_000}) for name, schema in TEXT.items()],
]


@pytest.mark.parametrize(("schema", "data"), [pair[1:] for pair in ALL], ids=[pair[0] for pair in ALL])
def test_one_error_of_a_large_event_is_reported_and_none_is_missed(schema: Json, data: Json) -> None:
    """Collecting all errors would take seconds; `bench/hostile.py` measures the time."""
    errors = Check(schema, check_schema(schema)).errors(event(data))
    assert len(errors) <= 1
    if "dependentSchemas" not in schema and "unevaluated" not in str(schema):
        assert errors or Draft202012Validator(schema).is_valid(data)


def test_a_wrong_part_of_a_large_event_is_found() -> None:
    schema = items({"anyOf": kinds(3)})
    good = {"kind": "k1", "x1": "a"}
    check = Check(schema, check_schema(schema))
    assert check.errors(event({"items": [good] * 9000})) == []
    (error,) = check.errors(event({"items": [*[good] * 8000, {"kind": "k1"}, *[good] * 500, {}]}))
    assert error.pointer == "/data/items/8000"
    assert error.message == "the value is not valid under any of the schemas listed in the 'anyOf' keyword"


def test_all_errors_of_a_small_event_are_reported() -> None:
    schema = items({"anyOf": kinds(3)})
    check = Check(schema, check_schema(schema))
    assert len(check.errors(event({"items": [{"k": n} for n in range(100)]}))) == 100


def test_an_event_that_needs_too_much_work_is_refused_with_a_reason() -> None:
    schema = items({"anyOf": [{"const": i} for i in range(1000)]})
    (error,) = Check(schema, check_schema(schema)).errors(event({"items": filled(999)}))
    assert error.message.startswith("the event is too large for this schema")


def test_events_of_a_request_share_one_limit_of_work() -> None:
    schema = items({"anyOf": [{"const": i} for i in range(300)]})
    check, effort = Check(schema, check_schema(schema)), Effort()
    good, wrong = event({"items": [1] * 20_000}), event({"items": [-1] * 20_000})
    group = [check.errors(good, effort) for _ in range(50)]
    assert group[0] == []
    assert group[-1][0].message.startswith("the event is too large")
    assert check.errors(wrong, Effort())[0].pointer == "/data/items/0"


def test_the_first_error_is_one_of_all_errors() -> None:
    chance = random.Random(3)
    words = ["type", "anyOf", "oneOf", "allOf", "properties", "items", "required", "not", "if", "prefixItems"]

    def schema(depth: int) -> Any:
        if depth == 0:
            return chance.choice([True, {"type": "integer"}, {"type": "string"}, {"minimum": 2}, {"const": "a"}])
        made: Json = {}
        for word in chance.sample(words, 2):
            made |= {
                "type": {"type": chance.choice(["object", "array"])},
                "required": {"required": ["a"]},
                "properties": {"properties": {"a": schema(depth - 1), "b": schema(depth - 1)}},
                "if": {"if": schema(depth - 1), "then": schema(depth - 1), "else": schema(depth - 1)},
                "items": {"items": schema(depth - 1)},
                "not": {"not": schema(depth - 1)},
            }.get(word, {word: [schema(depth - 1), schema(depth - 1)]})
        return made

    def value(depth: int) -> Any:
        if depth == 0 or chance.random() < 0.3:
            return chance.choice([1, 3, "a", None])
        if chance.random() < 0.5:
            return {name: value(depth - 1) for name in chance.sample(["a", "b"], chance.randint(0, 2))}
        return [value(depth - 1) for _ in range(chance.randint(0, 3))]

    for _ in range(300):
        found = schema(3)
        one, other = Draft202012Validator(found), Draft202012Validator(first_error_schema(found))
        for _ in range(10):
            data = value(3)
            assert {tuple(e.absolute_path) for e in one.iter_errors(data)} == {
                tuple(e.absolute_path) for e in other.iter_errors(data)
            }
