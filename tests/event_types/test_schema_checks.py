"""The check whether a value can be the schema of an event: errors with places and helpful messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stepwell.event_types.schema import json_pointer
from stepwell.event_types.schema_checks import refusals

TYPES = "type must be one of null, boolean, integer, number, string, array, object, or a list of these, not"


@pytest.mark.parametrize(
    ("schema", "pointer", "message"),
    [
        ({"type": "objekt"}, "/type", f'{TYPES} "objekt"'),
        ({"type": ["string", "strin"]}, "/type/1", f'{TYPES} "strin"'),
        ({"properties": {"a": {"type": 5}}}, "/properties/a/type", f"{TYPES} 5"),
        ({"properties": {"type": 5}}, "/properties/type", "5 is not of type 'object', 'boolean'"),
        ({"required": "a"}, "/required", "'a' is not of type 'array'"),
        ({"items": [{}]}, "/items", "[{}] is not of type 'object', 'boolean'"),
        ({"anyOf": []}, "/anyOf", "[] should be non-empty"),
        ({"properties": {"a/b": {"items": {"minLength": -1}}}}, "/properties/a~1b/items/minLength",
         "-1 is less than the minimum of 0"),
        ({"allOf": [{}, {"enum": {}}]}, "/allOf/1/enum", "{} is not of type 'array'"),
        ({"required": ["a", "a"]}, "/required", "['a', 'a'] has non-unique elements"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_once_at_its_place(schema: Any, pointer: str, message: str) -> None:
    (problem,) = refusals(schema)
    assert (json_pointer(problem.pointer), problem.message) == (pointer, message)


def test_all_mistakes_are_named() -> None:
    schema = {"type": "text", "properties": {"a": {"minimum": "1", "maxLength": "5"}, "b": 3}}
    pointers = {json_pointer(problem.pointer) for problem in refusals(schema)}
    assert pointers == {"/type", "/properties/a/minimum", "/properties/a/maxLength", "/properties/b"}


def test_of_many_mistakes_a_hundred_are_named() -> None:
    assert len(refusals({"properties": {f"a{i}": {"minimum": ""} for i in range(3000)}})) == 100
    assert len(refusals({"required": list(range(3000))})) == 100


WORDS = st.sampled_from(["type", "properties", "items", "required", "enum", "minimum", "allOf", "not", "title", "$ref"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([True, False, 1, -1, "string", "#", "a", None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_schemas_that_jsonschema_rejects_are_refused_at_the_same_places(schema: Any) -> None:
    if not isinstance(schema, dict | bool):
        return
    errors = list(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))
    found = [problem.pointer for problem in refusals(schema)]
    for error in errors:
        at = tuple(error.absolute_path)
        assert any(pointer[: len(at)] == at for pointer in found), error
