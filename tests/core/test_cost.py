"""Tests that an evaluation that would take too long is not started, and has a problem instead of a value.

No test measures time. Without the limit, each refused expression here took from 0.1 s to minutes.
"""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from stepwell.core.cel.expressions import Bindings, Scope, compile_expression, compile_value
from stepwell.core.cel.patterns import pattern_cost

KIB = 1024
MIXED = "".join(random.Random(1).choices("ab", k=240 * KIB))
HOSTILE: dict[str, dict[str, Any]] = {
    "words": {"l": ["zzzz"] * 9000, "t": "z z " * 45_000},
    "numbers": {"l": [1] * 9900, "t": "x" * 200 * KIB, "m": [1] * 9900},
    "hundred": {"l": [1] * 99, "t": "x" * 200 * KIB, "m": [1] * 20_000},
    "objects": {"l": [{"a": i, "b": "tttt"} for i in range(8000)], "t": "x"},
    "long texts": {"t": "a" * 128 * KIB, "n": "a" * 64 * KIB + "b"},
    "random text": {"t": MIXED},
    "one letter": {"t": "a" * 250 * KIB},
    "text": {"t": "x" * 250 * KIB, "l": [1] * 1000},
    "zones": {"l": [f"Zone/{i}" for i in range(9000)]},
    "containers": {"l": [[[]] * 3] * 20_000},
    "lists": {"l": [1] * 110_000},
}


def answer(source: str, data: dict[str, Any], scope: Scope = Scope.TRIGGER) -> str | None:
    return compile_expression(source, scope).evaluate(Bindings({"name": "e", "data": data})).problem


@pytest.mark.parametrize(
    ("data", "source"),
    [
        ("words", "data.l.exists(w, data.t.contains(w))"),
        ("words", "data.l.exists(w, size(data.t) == 1)"),
        ("words", "data.l.exists(w, w.matches('(a{1,30}b{1,30}){1,20}'))"),
        ("words", "data.l.exists(w, w.matches('\\\\pL'))"),
        ("numbers", "data.l.all(w, data.m == data.l)"),
        ("numbers", "data.l.all(w, string(data.t) != '')"),
        ("numbers", "data.l.exists(w, [w].exists(x, data.t.contains('y')))"),
        ("hundred", "data.l.all(w, data.l.all(v, size(data.t) > 0))"),
        ("hundred", "data.l.all(w, data.l.all(v, data.t.endsWith('x') && data.m != data.m))"),
        ("objects", "data.l.all(w, data == data)"),
        ("objects", "data.l.all(w, data.l != data.l || true)"),
        ("long texts", " || ".join(["data.t.contains(data.n)"] * 70)),
        ("random text", "data.t.matches('a[ab]{1000}x')"),
        ("random text", "data.t.matches('a.{500}x')"),
        ("random text", "data.t.matches('a" + "[ab]" * 45 + "x')"),
        ("random text", "data.t.matches('(aa|ab|ba|bb){100}x')"),
        ("random text", " || ".join(["data.t.matches('a[ab]{99}x')"] * 60)),
        ("one letter", "data.t.matches('(((a?){10}){10}){10}x')"),
        ("one letter", "data.t.matches('\\\\pL{100}x')"),
        ("one letter", "matches(data.t, '(a{1,100}){1,9}[ab]{500}x')"),
        ("text", "data.l.map(x, data.t) == data.l.map(x, data.t) && data.l.map(x, [data.t, x]).all(x, size(x[0]) > 0)"),
        ("zones", "data.l.exists(z, timestamp('2020-01-01T00:00:00Z').getHours(z) == 99 || false)"),
        ("containers", "data.l.exists(x, x == 1)"),
        ("lists", " || ".join(["data.l != data.l"] * 100)),
        ("lists", " || ".join(["data.t in data.l"] * 60)),
    ],
)
def test_an_evaluation_that_would_take_too_long_is_not_started(data: str, source: str) -> None:
    assert len(orjson.dumps(HOSTILE[data])) <= 256 * KIB
    problem = answer(source, HOSTILE[data])
    assert problem is not None
    assert problem.startswith(("the data is too large for this expression", "map, filter and `in`"))
    assert len(problem) <= 200


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("data.l.map(x, data.t)", {"l": [1] * 900, "t": "x" * 200 * KIB}),
        ("[data.t, data.t].map(x, [x, x, x, x].map(y, data.l))", {"l": [1] * 50_000, "t": "x" * 90 * KIB}),
    ],
)
def test_a_value_that_would_be_huge_is_not_computed(source: str, data: dict[str, Any]) -> None:
    problem = compile_value(source, Scope.TRIGGER).value(Bindings({"data": data})).problem
    assert problem == ("the data is too large for this expression, which would take too long: the size of the result")


def test_a_condition_over_large_outputs_is_bounded_too() -> None:
    steps = {f"s{i}": {"list": ["zzzz"] * 30_000, "text": "z" * 200 * KIB} for i in range(5)}
    source = "steps.s1.list.exists(w, steps.s2.text.contains(w)) || steps.s3.list == steps.s4.list"
    answer = compile_expression(source, Scope.CONDITION).evaluate(Bindings({"name": "e"}, steps))
    assert answer.problem is not None
    assert answer.problem.startswith("the data is too large")


ITEMS = [{"sku": f"A-{i}", "name": f"Product {i}", "price": i * 1.5, "tags": ["a", "sale"]} for i in range(900)]
ORDINARY = {
    "items": ITEMS,
    "text": "lorem ipsum dolor sit amet, " * 4000,
    "wanted": "A-99",
    "email": "ada@example.com",
    "tags": ["a", "b"] * 20,
    "total": 12.5,
}


@pytest.mark.parametrize(
    "source",
    [
        "data.total > 10.0",
        "data.items.exists(i, i.sku == data.wanted)",
        "data.items.filter(i, i.price > 3.0).size() > 0",
        "data.items.map(i, i.sku).exists(s, s == 'A-1')",
        "data.items.all(i, i.price >= 0.0 && i.name.contains('Product') && i.name != data.wanted)",
        "data.items.exists(i, 'sale' in i.tags) && data.items.exists(i, i.sku in ['A-5', data.wanted])",
        "data.items.exists(i, i.tags.exists(t, t == 'sale'))",
        "data.items.all(i, !(i.sku in data.tags))",
        "data.tags.exists(t, data.text.contains(t))",
        "data.text.matches('(?i)urgent|asap|immediately|dolor') && data.text.startsWith('lorem')",
        "data.email.matches('^[a-z0-9._%+-]+@[a-z0-9.-]+\\\\.[a-z]{2,}$')",
        "!data.email.matches('[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')",
        "data.items.exists(i, i.name.matches('t 1[0-9]+$'))",
        "data == event.data",
        "size(data.text) > 1000",
    ],
)
def test_ordinary_expressions_have_a_value_over_large_events(source: str) -> None:
    assert len(orjson.dumps(ORDINARY)) > 150 * KIB
    found = compile_expression(source, Scope.TRIGGER).evaluate(Bindings({"name": "e", "data": ORDINARY}))
    assert (found.holds, found.problem) == (True, None)


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("data.total == 12.5 && event.data.wanted == 'A-99'", True),
        ("has(data.items) && !has(data.missing) && !has(data.total.x)", None),
        ("has(data.missing)", False),
        ("'total' in data && size(data) == 6", True),
        ("data['wanted'] == data[data.key]", None),
        ("data.text.x == 1", None),
        ("event.data.missing.x == 1", None),
        ("[data.total].exists(data, data == 12.5)", True),
        ("event.name == 'e' && user == {}", True),
    ],
)
def test_an_expression_has_the_same_result_for_a_large_event(source: str, holds: bool | None) -> None:
    """For a large event, the library gets only the parts that the expression names."""
    small = {**ORDINARY, "items": [], "text": "x"}
    expression = compile_expression(source, Scope.TRIGGER)
    answers = [expression.evaluate(Bindings({"name": "e", "data": data})) for data in (ORDINARY, small)]
    assert answers[0] == answers[1]
    assert (answers[0].holds if answers[0].problem is None else None) == holds


def test_expressions_about_one_large_event_share_its_bindings() -> None:
    bindings = Bindings({"name": "e", "data": {**ORDINARY, "n": 1}})
    for _ in range(2):
        for source in (
            "data.n == 1",
            "event.name == 'e' && data.n == 1",
            "size(data.items) == 900",
            "data.total > 1.0",
        ):
            assert compile_expression(source, Scope.TRIGGER).evaluate(bindings).holds


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("abc", "abcdef"),
        ("[ab]{10}x", "[ab]{11}x"),
        ("[ab]{100}", "[ab]{1000}"),
        ("[ab]{20}", "([ab]{20}){2}"),
        ("[ab]{20}", "(?:[ab]{20}|[ab]{20})"),
        ("a{20}", "a{1,20}"),
        ("((a){20}){20}", "((a?){20}){20}"),
        ("[a-z]", "\\pL"),
        ("[a-z]", "[^[:alpha:]\\]]"),
        ("\\Q[ab]{9}\\E", "[ab]{900}"),
        ("a{,900}", "a{900,}"),
        ("(?i)abc", "(?P<name>[abc]{3,})"),
        ("\\x{10FFFF}\\.\\d", "\\D\\d\\d\\d"),
    ],
)
def test_a_pattern_costs_more_than_a_simpler_one(less: str, more: str) -> None:
    for matches, characters in ((1, 1000), (100, 100_000)):
        assert pattern_cost(less).of(matches, characters) < pattern_cost(more).of(matches, characters)


def test_ordinary_patterns_are_cheap_for_every_character() -> None:
    for pattern in ("^.+@example\\.com$", "(?i)urgent|asap|immediately|important", "^order-[0-9]+$", "^[A-Z]{2,3}$"):
        assert pattern_cost(pattern).character == 5
