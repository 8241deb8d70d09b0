"""The breaks of new schema versions in both directions; and no incompatible change counts as compatible."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stepwell.event_types.compatibility import Comparison, compare
from stepwell.event_types.schema import json_pointer
from stepwell.event_types.schema_checks import refusals

TEXT, NUMBER, WHOLE, NULL = ({"type": name} for name in ("string", "number", "integer", "null"))


def fields(*required: str, more: Any = None, **properties: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": "object", "properties": properties, "required": list(required)}
    return fields if more is None else {**fields, "additionalProperties": more}


def tagged(tag: str, **properties: Any) -> dict[str, Any]:
    return fields("kind", kind={"const": tag}, **properties)


def refs(name: str, of: Any, **more: Any) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", "$defs": {name: of, **more}}


TREE = fields(value=WHOLE, left={"$ref": "#"}, right={"$ref": "#"})

LEVELS: list[tuple[str, Any, Any]] = [
    ("full", {}, True),
    ("full", TEXT, {**TEXT, "title": "for people", "description": "x", "examples": ["a"], "x-mine": 1}),
    ("full", fields("a", a=TEXT), refs("it", fields("a", a=TEXT))),
    ("full", {"type": ["string", "null"]}, {"anyOf": [TEXT, NULL]}),
    ("full", {"type": ["string", "null"]}, {"oneOf": [NULL, TEXT]}),
    ("full", {"allOf": [fields(a=TEXT), fields("a")]}, fields("a", a=TEXT)),
    ("full", {"enum": [True, False]}, {"type": "boolean"}),
    ("full", TREE, {**TREE, "$comment": "the same"}),
    (
        "full",
        {"not": TEXT, "if": {"type": "null"}, "then": False},
        {"if": {"type": "null"}, "then": False, "not": TEXT},
    ),
    ("full", {"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}),
    ("backward", fields("a", a=TEXT), fields(a=TEXT)),
    ("backward", WHOLE, NUMBER),
    ("backward", {"enum": ["x", "y"]}, {"enum": ["x", "y", "z"]}),
    ("backward", {"const": "x"}, TEXT),
    ("backward", {"type": "number", "maximum": 5}, {"type": "number", "maximum": 6}),
    ("backward", {"type": "number", "exclusiveMaximum": 5}, {"type": "number", "maximum": 5}),
    ("backward", {"type": "integer", "multipleOf": 6}, {"type": "integer", "multipleOf": 3}),
    ("backward", {"type": "string", "maxLength": 3, "pattern": "^a"}, {"type": "string", "pattern": "^a"}),
    ("backward", {"type": "string", "format": "email"}, TEXT),
    ("backward", fields(more=False, a=TEXT), fields(more=False, a=TEXT, b=TEXT)),
    ("backward", fields(more=False, a=TEXT), fields(a=TEXT)),
    ("backward", {"oneOf": [tagged("a", x=TEXT)]}, {"oneOf": [tagged("a", x=TEXT), tagged("b", y=TEXT)]}),
    ("backward", {"type": "array", "items": WHOLE, "minItems": 2}, {"type": "array", "items": NUMBER}),
    ("backward", {"type": "array", "uniqueItems": True}, {"type": "array"}),
    ("backward", {"type": "array", "prefixItems": [TEXT], "items": False}, {"type": "array", "items": TEXT}),
    ("backward", {"patternProperties": {"^x": WHOLE}}, {"patternProperties": {"^x": NUMBER}}),
    ("backward", TREE, fields(value=NUMBER, left={"$ref": "#"}, right={"$ref": "#"})),
    ("backward", {"dependentRequired": {"a": ["b", "c"]}}, {"dependentRequired": {"a": ["b"]}}),
    ("forward", fields(a=TEXT), fields("a", a=TEXT)),
    ("forward", fields(a=TEXT), fields(a=TEXT, b=TEXT)),
    ("none", TEXT, NUMBER),
    ("none", fields("a", a=TEXT), fields("b", b=TEXT)),
    ("none", {"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^ab"}),
    ("none", {"type": "string", "format": "email"}, {"type": "string", "format": "uri"}),
    ("none", {"type": "array", "contains": TEXT}, {"type": "array", "contains": NUMBER}),
    ("none", {"unevaluatedProperties": False}, {"unevaluatedProperties": TEXT}),
]


@pytest.mark.parametrize(("level", "old", "new"), LEVELS)
def test_the_level_of_a_change(level: str, old: Any, new: Any) -> None:
    assert not refusals(old)
    assert not refusals(new)
    found = compare(old, new)
    assert found.level == level, found
    back = {"backward": "forward", "forward": "backward"}.get(level, level)
    assert compare(new, old).level == back


def only(found: list[Any]) -> tuple[str, str]:
    (the,) = found
    return json_pointer(the.pointer), the.message


def test_a_break_names_its_place_its_field_and_what_changed() -> None:
    old = fields("amount", amount=NUMBER, items={"type": "array", "items": fields("sku", sku=TEXT)})
    line = {"$ref": "#/$defs/line"}
    new = {**fields("amount", amount=TEXT, items={"type": "array", "items": line}), "$defs": {"line": fields(sku=TEXT)}}
    found = compare(old, new)
    assert only(found.backward) == ("/properties/amount/type", "`amount` was number, is string now")
    assert [json_pointer(b.pointer) for b in found.forward] == [
        "/properties/amount/type",
        "/properties/items/items/required",
    ]
    assert found.forward[1].message == "`items[].sku` was required, is optional now"
    assert [b.message for b in found.breaking] == [b.message for b in found.forward]
    assert only(compare({"maximum": 10}, {"maximum": 5}).backward)[1] == "maximum was 10, is 5 now"
    assert (
        only(compare({"enum": ["a", "b"]}, {"enum": ["a"]}).backward)[1] == 'the value "b" was allowed, is refused now'
    )


def test_a_new_optional_field_is_a_strict_break_but_not_a_breaking_change() -> None:
    for more in (None, False):
        found = compare(fields(more=more, a=TEXT), fields(more=more, a=TEXT, b=TEXT))
        assert found.level in ("forward", "backward")
        assert all(b.additive for b in (*found.backward, *found.forward))
        assert found.breaking == []
    assert compare(fields(a=TEXT), fields("b", a=TEXT, b=TEXT)).breaking
    assert compare(fields(a=TEXT, b=TEXT), fields(a=TEXT)).breaking, "a field that is gone is missed by who reads it"
    assert compare(fields(more=False, a=TEXT, b=TEXT), fields(more=False, a=TEXT)).breaking


PAID = {"if": {"required": ["paid"]}, "then": {"required": ["method"]}}
NOT_UNDERSTOOD: list[tuple[str, Any, Any]] = [
    ("not", {"required": ["a"]}, {"required": ["b"]}),
    ("not", None, {}),
    ("if", {"required": ["a"]}, {"required": ["b"]}),
    ("contains", TEXT, NUMBER),
    ("contains", None, True),
    ("propertyNames", {"maxLength": 3}, {"maxLength": 4}),
    ("dependentSchemas", {"a": fields("b")}, {"a": fields("c")}),
    ("unevaluatedProperties", TEXT, False),
    ("unevaluatedItems", TEXT, False),
]


@pytest.mark.parametrize(("keyword", "old", "new"), NOT_UNDERSTOOD)
def test_a_change_that_is_not_understood_is_breaking(keyword: str, old: Any, new: Any) -> None:
    then = {"then": False} if keyword == "if" else {}
    before, after = ({**then, keyword: schema} if schema is not None else {} for schema in (old, new))
    assert only(compare(before, after).backward) == (f"/{keyword}", f"`{keyword}` cannot be compared")


UNCHANGED: list[Any] = [
    PAID,
    {"not": {"required": ["a", "b"]}},
    {"propertyNames": {"pattern": "^[a-z]+$"}},
    {"dependentSchemas": {"a": fields("b")}},
    {"oneOf": [fields("email"), fields("phone")]},
    {"properties": {"tags": {"type": "array", "contains": TEXT, "minContains": 2}}},
    {"properties": {"tags": {"prefixItems": [TEXT], "unevaluatedItems": NUMBER}}},
]


@pytest.mark.parametrize("unchanged", UNCHANGED)
def test_an_unchanged_keyword_is_never_a_break(unchanged: Any) -> None:
    """Also if another keyword has a compatible change."""
    old = {"properties": {"n": WHOLE}, **unchanged}
    new = {"description": "more", "required": [], **unchanged}
    new["properties"] = {"n": NUMBER, **unchanged.get("properties", {})}
    if "properties" in unchanged:
        old["properties"] = {"n": WHOLE, **unchanged["properties"]}
    assert compare(old, new).level == "backward"


def test_references_are_compared_by_target_not_by_name() -> None:
    rule = {"not": {"$ref": "#/$defs/old"}, "$defs": {"old": fields("a", a=TEXT)}}
    assert compare(rule, {"not": {"$ref": "#/$defs/new"}, "$defs": {"new": fields("a", a=TEXT)}}).level == "full"
    assert compare(rule, {**rule, "$defs": {"old": fields("a", a=NUMBER)}}).level == "none"
    whole = {"not": {"properties": {"a": {"$ref": "#"}}}}
    assert compare({**whole, "type": "object"}, {**whole, "type": ["object", "null"]}).level == "none"
    assert compare({"const": {"title": "a"}}, {"const": {"title": "b"}}).level == "none"
    assert compare({"not": fields("title", title=TEXT)}, {"not": fields("title", title=NUMBER)}).level == "none"


COMPATIBLE: dict[str, tuple[Any, Any]] = {
    "an optional field of a closed object": (fields(more=False), fields(more=False, a=TEXT)),
    "a value more": ({"enum": ["a", "b"]}, {"enum": ["c", "b", "a"]}),
    "a constant that becomes a list": ({"const": 1}, {"enum": [1, 2]}),
    "a constant that becomes a type": ({"const": 1.5}, NUMBER),
    "a type more": (TEXT, {"type": ["string", "null"]}),
    "null by anyOf": (TEXT, {"anyOf": [NULL, TEXT]}),
    "integers that become numbers": (WHOLE, NUMBER),
    "a lower minimum": ({**NUMBER, "minimum": 1}, {**NUMBER, "minimum": 0.5}),
    "no maximum": ({**NUMBER, "maximum": 1}, NUMBER),
    "a longer text": ({**TEXT, "maxLength": 1}, {**TEXT, "maxLength": 2}),
    "no pattern": ({**TEXT, "pattern": "^a"}, TEXT),
    "shorter lists": ({"minItems": 2}, {"minItems": 1}),
    "items of more types": ({"items": WHOLE}, {"items": NUMBER}),
    "an open object": (fields(more=False, a=TEXT), fields(a=TEXT)),
    "nothing required": (fields("a", "b"), fields("a")),
    "definitions in place of their names": (refs("a", {"items": WHOLE}), {"items": NUMBER}),
    "one more kind of event": (
        {"oneOf": [tagged("a"), tagged("b")]},
        {"oneOf": [tagged("c", n=NUMBER), tagged("b"), tagged("a", n=TEXT)]},
    ),
    "words": (fields(a={**TEXT, "description": "x"}), {**fields(a={**TEXT, "examples": ["y"]}), "title": "z"}),
}


@pytest.mark.parametrize(("old", "new"), COMPATIBLE.values(), ids=COMPATIBLE)
def test_common_harmless_changes_are_compatible(old: Any, new: Any) -> None:
    assert [found for found in compare(old, new).backward if not found.additive] == []


def test_a_schema_of_the_whole_event_and_one_of_its_data_are_compared() -> None:
    whole = {"properties": {"name": {"const": "a"}, "data": {"$ref": "#/$defs/d"}}, "$defs": {"d": fields(x=WHOLE)}}
    assert compare(whole, fields(x=NUMBER)).backward == []
    assert only(compare(whole, fields(x=TEXT)).backward)[1] == "`data.x` was integer, is string now"


def test_alternatives_are_compared_with_matching_alternatives() -> None:
    old = {"oneOf": [tagged(f"kind-{i}", n=WHOLE) for i in range(50)]}
    new = {"oneOf": [tagged(f"kind-{i}", n=NUMBER if i else TEXT) for i in range(51)]}
    assert only(compare(old, new).backward)[1] == "`n` was integer, is string now"
    more = {"oneOf": [tagged(f"kind-{i}", n=WHOLE, note=TEXT) for i in range(50)]}
    assert compare(old, more).breaking == []


def test_the_comparison_of_hostile_schemas_ends() -> None:
    wide = {"anyOf": [{"anyOf": [fields(**{f"f{i}{j}": TEXT}) for j in range(20)]} for i in range(20)]}
    other = {"oneOf": [{"oneOf": [fields(**{f"f{i}{j}": NUMBER}) for j in range(20)]} for i in range(20)]}
    assert compare(wide, other).level == "none"
    twice = {f"d{i}": fields(a={"$ref": f"#/$defs/d{i + 1}"}, b={"$ref": f"#/$defs/d{i + 1}"}) for i in range(60)}
    deep = {"$ref": "#/$defs/d0", "$defs": {**twice, "d60": TEXT}}
    assert compare(deep, {**deep, "title": "x"}).level == "full"
    assert compare(deep, {**deep, "$defs": {**twice, "d60": NUMBER}}).level == "none"
    chain = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, fields(**{f"p{i}": {"$ref": "#/$defs/d0"}})]}
        for i in range(150)
    }
    for end in (TEXT, NUMBER):
        compare(
            {"$ref": "#/$defs/d0", "$defs": {**chain, "d150": TEXT}},
            {"$ref": "#/$defs/d0", "$defs": {**chain, "d150": end}},
        )
    slow = {"type": "object", "patternProperties": {"^(a+)+$": TEXT}}
    assert compare(slow, fields(**{"a" * 60 + "b": TEXT})).backward


# --- compatible changes, checked with all small values by another library --------------------------------------------

SCALARS: list[Any] = [None, True, False, 0, 1, 2, 3, -1, 0.5, 1.0, "", "a", "ab", "b"]
SMALL: list[Any] = [None, True, 0, 1, 0.5, "a", "ab", {}, {"a": 1}, [1], []]
VALUES = [
    *SCALARS,
    [],
    *([one] for one in SMALL),
    *([one, other] for one, other in itertools.product(SMALL, SMALL[:6])),
    *({"a": one} for one in SMALL),
    *({"b": one} for one in SMALL),
    *({"a": one, "b": other} for one, other in itertools.product(SMALL, SMALL)),
    *({"a": one, "ab": other} for one, other in itertools.product(SMALL, SMALL[:6])),
    {"a": {"a": {"a": "a"}}},
    {"a": {"a": {"b": 1}}},
]
NAMES = st.sampled_from(["a", "b", "ab"])
SMALL_INTS = st.integers(0, 2)


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object",
                                     ["string", "null"], ["integer", "object"]]),
            "enum": st.lists(st.sampled_from(SCALARS), min_size=1, max_size=3),
            "const": st.sampled_from(SCALARS),
            "minimum": SMALL_INTS, "exclusiveMinimum": SMALL_INTS, "maximum": SMALL_INTS,
            "exclusiveMaximum": SMALL_INTS, "multipleOf": st.sampled_from([1, 2, 0.5]),
            "minLength": SMALL_INTS, "maxLength": SMALL_INTS, "pattern": st.sampled_from(["^a", "b$"]),
            "minItems": SMALL_INTS, "maxItems": SMALL_INTS, "uniqueItems": st.booleans(),
            "items": inner, "prefixItems": some, "contains": inner,
            "minProperties": SMALL_INTS, "maxProperties": SMALL_INTS,
            "required": st.lists(NAMES, max_size=2, unique=True),
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=1),
            "additionalProperties": inner, "propertyNames": inner, "unevaluatedProperties": inner,
            "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=1), max_size=1),
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
            "allOf": some, "anyOf": some, "oneOf": some, "not": inner, "if": inner, "then": inner, "else": inner,
        },
    ).map(lambda schema: dict(list(schema.items())[:5]))  # fmt: skip


SCHEMAS = st.recursive(
    st.one_of(st.booleans(), st.just({"$ref": "#/$defs/x"}), st.sampled_from([TEXT, WHOLE, NUMBER, NULL, fields("a")])),
    keywords, max_leaves=6,
)  # fmt: skip


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    """Two schemas; the second is often the first with small changes."""
    old = draw(keywords(SCHEMAS))
    shared = draw(SCHEMAS)
    new = changed(draw, old) if draw(st.booleans()) else draw(keywords(SCHEMAS))
    wrap = draw(st.sampled_from(["no", "anyOf", "oneOf", "allOf"]))
    new = (
        new
        if wrap == "no" and isinstance(new, dict)
        else {"allOf" if wrap == "no" else wrap: [new, *draw(st.lists(SCHEMAS, max_size=1))]}
    )
    old, new = {**old, "$defs": {"x": shared}}, {**new, "$defs": {"x": shared}}
    return (old, new) if draw(st.booleans()) else (new, old)


def changed(draw: st.DrawFn, schema: Any) -> Any:
    """The schema with one keyword removed or changed, at the top or in a part."""
    if not isinstance(schema, dict) or not schema:
        return draw(SCHEMAS)
    word = draw(st.sampled_from(sorted(schema)))
    how = draw(st.sampled_from(["drop", "again", "inner"]))
    rest = {key: value for key, value in schema.items() if key != word}
    if how == "drop":
        return rest
    value = schema[word]
    if how == "inner" and isinstance(value, dict) and word not in ("const", "dependentRequired"):
        if word in ("properties", "patternProperties", "dependentSchemas"):
            return {**rest, word: {key: changed(draw, inner) for key, inner in value.items()}}
        return {**rest, word: changed(draw, value)}
    return {**rest, **{key: other for key, other in draw(keywords(SCHEMAS)).items() if key == word}}


def valid(schema: Any) -> list[Any] | None:
    if refusals(schema):
        return None
    validator = Draft202012Validator(schema)
    return [value for value in VALUES if validator.is_valid(value)]


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_no_value_becomes_invalid_by_a_compatible_change(pair: tuple[Any, Any]) -> None:
    old, new = pair
    before, after = valid(old), valid(new)
    if before is None or after is None:
        return
    found: Comparison = compare(old, new)
    taken = set(map(repr, after))
    if not found.backward:
        assert [value for value in before if repr(value) not in taken] == []
    if not found.forward:
        earlier = set(map(repr, before))
        assert [value for value in after if repr(value) not in earlier] == []
