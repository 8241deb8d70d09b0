"""Schemas are checked so that every check of an event is fast, and all errors of events are found."""

from __future__ import annotations

import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from stepwell.core.events.events import event_from
from stepwell.event_types.recursion_limit import MOST_WAYS, TooManyWays, deepest
from stepwell.event_types.registry import KnownType, Policy, Types
from stepwell.event_types.validation import BadSchema, Check, check_schema

Json = dict[str, Any]
NODE: Json = {"$ref": "#/$defs/a"}


def recursive(**keywords: Any) -> Json:
    return {"$defs": {"a": keywords}, **NODE}


@pytest.mark.parametrize(
    ("schema", "levels"),
    [
        (True, None),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, None),
        (recursive(properties={"left": NODE, "right": NODE}), None),
        (recursive(additionalProperties=NODE), None),
        # Any JSON: a value is a list or an object, so only one of both paths counts.
        (recursive(anyOf=[{"type": "number"}, {"items": NODE}, {"additionalProperties": NODE}]), None),
        (recursive(allOf=[{"properties": {"c": NODE}}, {"properties": {"c": NODE}}]), 11),
        (recursive(anyOf=[{"items": NODE}, {"items": NODE}, {"items": NODE}]), 7),
        (recursive(properties={"c": NODE}, patternProperties={"c": NODE}), 12),
        (recursive(properties={"c": {"anyOf": [NODE, NODE]}}), 11),
        (recursive(properties={"c": {"if": NODE, "then": NODE}}), 11),
        ({"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}, 11),
    ],
)
def test_the_depth_of_values_is_derived_from_the_schema(schema: Any, levels: int | None) -> None:
    assert deepest(schema) == levels
    assert check_schema(schema).deepest == levels


def test_references_that_expand_to_too_many_schemas_are_refused() -> None:
    doubling = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(20)}
    schema = {"$defs": {**doubling, "a20": {}}, "$ref": "#/$defs/a0"}
    with pytest.raises(TooManyWays):
        deepest(schema)
    assert MOST_WAYS < 2**20
    with pytest.raises(BadSchema, match="expand"):
        check_schema(schema)


def test_errors_equal_those_of_the_reference_implementation() -> None:
    """Compares the number and places of errors; messages differ."""
    schema = {
        "type": "object",
        "required": ["a", "b"],
        "properties": {
            "a": {"type": "array", "items": {"$ref": "#/$defs/point"}, "maxItems": 3},
            "b": {"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}]},
            "c": {"enum": [1, "x", None]},
        },
        "additionalProperties": False,
        "$defs": {"point": {"properties": {"x": {"type": "number", "maximum": 10}}, "required": ["x"]}},
    }
    check, reference = Check(schema, check_schema(schema)), Draft202012Validator(schema)
    chance = random.Random(7)
    for _ in range(500):
        data = {name: some(chance) for name in chance.sample(["a", "b", "c", "d"], chance.randint(0, 4))}
        event = event_from({"name": "e", "data": data, "id": "1", "ts": 1})
        expected = sorted("/data" + "".join(f"/{p}" for p in e.absolute_path) for e in reference.iter_errors(data))
        assert sorted(error.pointer for error in check.errors(event)) == expected, data


def some(chance: random.Random, level: int = 0) -> Any:
    scalars = [None, True, 0, 1, 1.0, 11, "", "x", "long"]
    if level > 2 or chance.random() < 0.4:
        return chance.choice(scalars)
    if chance.random() < 0.5:
        return [some(chance, level + 1) for _ in range(chance.randint(0, 4))]
    return {chance.choice("xyz"): some(chance, level + 1) for _ in range(chance.randint(0, 2))}


def test_a_check_is_made_once_for_a_version() -> None:
    made: list[tuple[str, str]] = []

    def check(name: str, version: str) -> Check:
        made.append((name, version))
        return Check({}, check_schema({}))

    types = Types({"e": KnownType(Policy.WARN, ("1", "2"))}, Policy.OFF, check)
    for v in (None, "1", None, "2", "1"):
        assert types.judge(event_from({"name": "e", "id": "1", "ts": 1, "v": v})) is None
    assert made == [("e", "2"), ("e", "1")]
