"""Examples of schemas are valid and repeatable; and schemas that are inferred from examples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stepwell.event_types.infer import infer
from stepwell.event_types.sample import NoSample, sample

SCHEMAS: list[Any] = [
    True,
    {},
    {"type": "integer", "minimum": 3, "exclusiveMaximum": 5},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    {"type": "integer", "multipleOf": 7, "minimum": 1},
    {"type": "string", "minLength": 40},
    {"type": "string", "maxLength": 2},
    {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
    {"type": "string", "format": "date-time"},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False, "minItems": 2},
    {"type": "array", "contains": {"const": "x"}},
    {"type": "object", "minProperties": 3},
    {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"type": "integer"}}, "required": ["b"]},
    {"oneOf": [{"type": "object", "required": ["x"], "properties": {"x": {"const": 1}}}, {"type": "null"}]},
    {"allOf": [{"properties": {"a": {"minimum": 3}}}, {"required": ["a"], "properties": {"a": {"type": "integer"}}}]},
    {"properties": {"a": {"examples": ["ada", "grace"]}}, "required": ["a"], "type": "object"},
    {"type": "object", "properties": {"k": {"enum": ["a", "b"]}}, "required": ["k"],
     "if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["field"]}, "additionalProperties": True,
     "maxProperties": 2, "dependentRequired": {"field": ["k"]}},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_example_is_valid_and_repeatable_by_seed(schema: Any) -> None:
    for seed in range(10):
        made = sample(schema, seed)
        Draft202012Validator(schema).validate(made)
        assert sample(schema, seed) == made


def test_seeds_differ() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert len({sample(schema, seed)["n"] for seed in range(20)}) > 5


def test_a_schema_without_examples_is_reported() -> None:
    for schema in (
        False,
        {"type": "string", "not": {"type": "string"}},
        {"type": "object", "required": ["a"], "properties": {"a": False}},
    ):
        with pytest.raises(NoSample):
            sample(schema)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), min_size=1, max_size=4))
def test_every_event_is_valid_under_the_schema_that_is_inferred_from_it(data: list[Any]) -> None:
    schema = infer([{"name": "a", "data": item} for item in data])
    for item in data:
        Draft202012Validator(schema).validate(item)
