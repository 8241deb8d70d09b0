"""Tests that the index of triggers finds the same functions as evaluating every expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepwell.core.cel.expressions import Bindings, Scope, compile_expression
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import Event, event_from
from stepwell.core.plan import Plan, Trigger
from stepwell.core.routing.not_started import Entries, Misses, NotStarted, misses_json, whole_misses, with_misses
from stepwell.core.routing.trigger_table import Evaluation, TriggerTable
from stepwell.core.routing.triggers import Catalog
from stepwell.core.routing.versions import Route, State
from stepwell.core.trigger_index import TriggerIndex, trigger_index

KIND = (("data", "kind"),)


def function(its_id: str, *expressions: str | None, event: str = "go") -> Plan:
    triggers = [
        {"event": event, **({} if expression is None else {"expression": expression})} for expression in expressions
    ]
    return compile_plan(parse_definition({"id": its_id, "triggers": triggers}).normalised(), 1)


def catalog_of(*plans: Plan, state: State = State.ON) -> Catalog:
    return Catalog([Route(plan, state=state) for plan in plans])


def event_of(data: dict[str, Any], **others: Any) -> Event:
    return event_from({"id": "1", "name": "go", "ts": 0, "data": data, **others})


def started(plans: Sequence[Plan]) -> list[str]:
    return [plan.function_id for plan in plans]


# --- which expressions are indexed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "paths", "values"),
    [
        ("data.kind == 'a'", KIND, [("a",)]),
        ("'a' == event.data.kind", KIND, [("a",)]),
        ("event['data']['kind'] == 'a'", KIND, [("a",)]),
        ("!(data.kind != 'a')", KIND, [("a",)]),
        ("data.kind in ['a', 'b', 3]", KIND, [("a",), ("b",), (3,)]),
        ("data.kind == 'a' || data.kind in ['b', null]", KIND, [("a",), ("b",), (None,)]),
        ("data.n > 3 && (data.kind == 'a' && has(data.x))", KIND, [("a",)]),
        ("!(data.n > 3 || data.kind != 'a')", KIND, [("a",)]),
        ("user.id == 'u' && data.kind == 'a'", (*KIND, ("user", "id")), [("a", "u")]),
        ("event.v == 'x'", (("v",),), [("x",)]),
        ("data.kind in ['a', 'b'] && data.kind == 'b'", KIND, [("b",)]),  # the index with fewer values is preferred
        ("data.kind == true", KIND, [(True,)]),
    ],
)
def test_the_values_that_an_expression_needs_are_its_index(expression: str, paths: Any, values: list[Any]) -> None:
    index = trigger_index(expression)
    assert index is not None
    assert (index.paths, list(index.values)) == (paths, values)


@pytest.mark.parametrize(
    "expression",
    [
        "true",
        "data.kind != 'a'",
        "!(data.kind == 'a')",
        "data.kind > 'a'",
        "data.kind == 'a' || data.other == 'b'",
        "data.kind == 'a' || data.n > 1",
        "!(data.kind in ['a'])",
        "data.kind == user.kind",
        "data.kind == b'a'",
        "data.kind == ['a']",
        "data.kind in ['a', data.x]",
        "data.kind in []",
        "data.list[0] == 'a'",
        "has(data.kind)",
        "data.list.exists(x, x == 'a')",
        "data.x ? data.kind == 'a' : false",  # an error in data.x makes the whole an error
        "event == 'a'",
    ],
)
def test_an_expression_without_required_values_has_no_index(expression: str) -> None:
    assert trigger_index(expression) is None


def test_an_index_survives_a_round_trip_through_json() -> None:
    for expression in ("data.kind == 'a'", "data.kind in [1, 2.5, null, true, 1u] && user.x == '' && has(data.y)"):
        index = trigger_index(expression)
        assert index is not None
        assert TriggerIndex.from_json(orjson.loads(orjson.dumps(index.as_json()))) == index


# --- evaluations saved -----------------------------------------------------------------------------------------------


def table_of(*expressions: str) -> TriggerTable:
    return TriggerTable([(plan := function(f"f-{n}", name), plan.triggers[0]) for n, name in enumerate(expressions)])


def test_only_triggers_for_the_values_of_the_event_are_evaluated() -> None:
    table = table_of(*(f"data.kind == 'k{n}' && data.n > {n}" for n in range(50)), "data.n > 3", "data.kind in ['k7']")
    evaluation = Evaluation(event_of({"kind": "k7", "n": 9}))
    numbers, problems = table.look_up(evaluation)
    assert (list(numbers), dict(problems), evaluation.answers) == ([7, 50, 51], {}, {})


def test_one_of_many_triggers_that_miss_the_same_value_is_evaluated() -> None:
    table, evaluation = table_of(*(f"data.kind == 'k{n}'" for n in range(50))), Evaluation(event_of({}))
    assert table.look_up(evaluation) == ([], {'there is no key "kind"': list(range(50))})
    assert list(evaluation.answers) == ["data.kind == 'k0'"]


def test_without_the_value_expressions_with_more_conditions_are_evaluated() -> None:
    table = table_of("data.kind == 'a' && data.n == 1", "data.kind == 'b' && has(data.x)")
    assert list(table.look_up(Evaluation(event_of({"n": 2})))[0]) == [0, 1]


def test_an_expression_that_many_functions_have_is_evaluated_once() -> None:
    evaluation = Evaluation(event_of({"n": 4}))
    assert evaluation.answer("data.n > 3") is evaluation.answer("data.n > 3")


def test_expressions_that_no_event_needs_are_not_compiled() -> None:
    never = Trigger("go", "this cannot be compiled", index=trigger_index("data.kind == 'a'"))
    plan = replace(function("f", None), triggers=(never,))
    plans, misses = catalog_of(plan).starts(event_of({"kind": "b"}))
    assert (plans, [miss.expression for miss in misses]) == ([], ["this cannot be compiled"])


# --- misses ----------------------------------------------------------------------------------------------------------


def kept(misses: Misses) -> tuple[bytes | None, dict[int, Entries]]:
    """The stored misses of an event, and the tables that are stored once for all events."""
    tables: dict[int, Entries] = {}

    def number_of(entries: Entries) -> int:
        tables[7] = entries
        return 7

    return misses_json(misses, number_of), tables


def test_many_misses_are_stored_once_for_all_events() -> None:
    plans = [function(f"f-{n}", f"data.kind == 'k{n}' && data.n > {n}", "data.x") for n in range(500)]
    catalog = catalog_of(*plans, function("always", None))
    _, misses = catalog.starts(event_of({"kind": "k7", "n": "text"}))
    text, tables = kept(misses)
    assert text is not None
    assert len(text) < 3000
    whole = whole_misses(text, lambda number: tables[number].content)
    assert whole is not None
    assert orjson.loads(whole) == [miss.as_json() for miss in misses]
    assert len(misses) == 1000
    problems = {miss.expression: miss.problem for miss in misses}
    assert problems["data.kind == 'k7' && data.n > 7"] == "`>` does not work with string, int"


def test_few_misses_are_stored_with_the_event() -> None:
    _, misses = catalog_of(function("f", "data.kind == 'a'"), function("g", None)).starts(event_of({"kind": "b"}))
    text, tables = kept(misses)
    assert tables == {}
    assert orjson.loads(text or b"") == [{"function_id": "f", "expression": "data.kind == 'a'", "problem": None}]
    assert whole_misses(text, lambda number: None) == text


def test_an_event_without_misses_stores_nothing() -> None:
    _, misses = catalog_of(*(function(f"f-{n}", None) for n in range(50))).starts(event_of({}))
    assert (bool(misses), kept(misses)) == (False, (None, {}))


def test_misses_of_a_deleted_table_are_not_shown() -> None:
    _, misses = catalog_of(*(function(f"f-{n}", "data.x == 1") for n in range(50))).starts(event_of({"x": 2}))
    text, _ = kept(misses)
    assert whole_misses(text, lambda number: None) == b"[]"


def test_a_further_miss_is_added_to_those_of_a_table() -> None:
    _, misses = catalog_of(*(function(f"f-{n}", f"data.x == {n}") for n in range(50))).starts(event_of({"x": 3}))
    text, tables = kept(misses)
    further = NotStarted("f-3", "data.x", "it has run already", "run")
    text = orjson.dumps(with_misses(text, [further]))
    whole = orjson.loads(whole_misses(text, lambda number: tables[number].content) or b"")
    assert len(whole) == 50
    assert whole[-1] == further.as_json()


def test_a_function_that_drops_events_misses_all_of_them() -> None:
    plans, misses = catalog_of(function("f", "data.x == 1", None), state=State.DROPPING).starts(event_of({"x": 2}))
    assert plans == []
    assert [(miss.function_id, miss.expression) for miss in misses] == [("f", "")]


def test_a_function_with_a_canary_misses_by_the_chosen_version() -> None:
    live, canary = function("f", "data.x == 1"), function("f", "data.x == 2")
    routes = [Route(live, canary, 0.5)]
    seen = set()
    for number in range(40):
        event = event_from({"id": str(number), "name": "go", "ts": 0, "data": {"x": 2}})
        plans, misses = Catalog(routes).starts(event)
        chosen = routes[0].choose(event)
        assert plans == ([canary] if chosen is canary else [])
        assert [miss.expression for miss in misses] == ([] if chosen is canary else ["data.x == 1"])
        seen.add(chosen is canary)
    assert seen == {True, False}


# --- the invariant ---------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 0.0, -0.0, 1.0, 0.5, 2**53, 2**53 + 1, -(2**53) - 1, 2**63, 2**64 - 1, -(2**63), 2.0**53, 2.0**64]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(["", "a", "b", "1", "a\0", "a\ufffd"])
)
VALUES = st.one_of(SCALARS, SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from("ab"), SCALARS))
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c-d"]), VALUES, max_size=3)
EVENTS = st.fixed_dictionaries({"data": OBJECTS, "user": OBJECTS}, optional={"v": st.sampled_from(["a", "1", None])})


def any_of(texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text.strip() for text in texts.strip().split("|")])


PLACES = any_of(
    """data.a | event.data.a | event['data'].a | data.b | data['c-d'] | user.a | data.a.b | data.a['b'] | event.v
    | event.v.a | event.name | event.user.b | data | event"""
)
CONSTANTS = any_of(
    """1 | 1u | 1.0 | -1 | '1' | '' | 'a' | 'b' | null | true | false | 0.5 | 9007199254740993 | b'a' | 'a\\u0000'
    | 'a\\ufffd' | 18446744073709551615u | 9007199254740992.0 | [1] | {'a': 1} | -0.0"""
)
COMPARISONS = st.tuples(PLACES, any_of("== | == | != | < | >="), CONSTANTS | PLACES, st.booleans()).map(
    lambda pair: f"{pair[0]} {pair[1]} {pair[2]}" if pair[3] else f"{pair[2]} {pair[1]} {pair[0]}"
)
MEMBERS = st.tuples(PLACES, st.lists(CONSTANTS, max_size=3)).map(lambda pair: f"{pair[0]} in [{', '.join(pair[1])}]")
OTHERS = any_of(
    """true | false | has(data.a) | has(data.a.b) | data.a | data.a in {'a': 1, 'b': 2} | size(data.a) > 0
    | data.a.exists(x, x == 'a') | event.name.startsWith('g')"""
)
EXPRESSIONS = st.recursive(
    st.one_of(COMPARISONS, COMPARISONS, MEMBERS, OTHERS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) && ({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) || ({pair[1]})"),
        inner.map(lambda value: f"!({value})"),
        st.tuples(inner, inner, inner).map(lambda pair: f"({pair[0]}) ? ({pair[1]}) : ({pair[2]})"),
    ),
    max_leaves=4,
)


def compiles(expression: str) -> bool:
    try:
        compile_expression(expression, Scope.TRIGGER)
    except ValueError:
        return False  # the compiler refuses it: the types differ
    return True


def evaluated_all(plans: Sequence[Plan], event: Event) -> tuple[set[str], set[tuple[str, str, str | None]]]:
    """The functions that are started and missed if every expression is evaluated."""
    starts, misses = set(), set()
    for plan in plans:
        answers = {}
        for trigger in plan.triggers:
            assert trigger.expression is not None
            expression = compile_expression(trigger.expression, Scope.TRIGGER)
            answers[trigger.expression] = expression.evaluate(Bindings(event=event.as_json()))
        if any(answer.holds for answer in answers.values()):
            starts.add(plan.function_id)
        else:
            misses |= {(plan.function_id, source, answer.problem) for source, answer in answers.items()}
    return starts, misses


@settings(deadline=None, max_examples=400)
@given(st.lists(st.lists(EXPRESSIONS.filter(compiles), min_size=1, max_size=2), min_size=1, max_size=6), EVENTS)
@example([["data.a == 1", "data.b == 2"], ["data.a == 'x'"]], {"data": {"a": 1.0}, "user": {}})
@example([["data.a.b == 1"], ["data.a['b'] == 1"]], {"data": {"a": 5}, "user": {}})
@example([["data.a in {'a': 1}"], ["data.a in ['a']"]], {"data": {"a": None}, "user": {}})
@example([["data.a == 'a\\ufffd'"], ["data.a == 'a\\u0000'"]], {"data": {"a": "a\0"}, "user": {}})
def test_the_index_gives_the_same_result_as_evaluating_every_expression(
    functions: list[list[str]], fields: dict[str, Any]
) -> None:
    fields = orjson.loads(orjson.dumps(fields))  # as after a transfer
    plans = [function(f"f-{n}", *dict.fromkeys(expressions)) for n, expressions in enumerate(functions)]
    event = event_from({"id": "1", "name": "go", "ts": 0, **fields})
    found, misses = catalog_of(*plans).starts(event)
    expected = evaluated_all(plans, event)
    assert (set(started(found)), {(miss.function_id, miss.expression, miss.problem) for miss in misses}) == expected


@pytest.mark.parametrize("value", [["x"] * 60_000, [[]] * 80_000, "x" * 250_000, {"b": [[]] * 80_000}])
@pytest.mark.parametrize("expression", ["data.a == 'x'", "data.a.b == 1", "data.kind == 'x' && data.a != data.b"])
def test_an_event_too_large_for_an_expression_is_reported_with_an_index_too(expression: str, value: Any) -> None:
    plans = [function("f", expression), function("g", expression.replace("'x'", "'yy'"))]
    event = event_of({"a": value, "b": value, "kind": "z"})
    found, misses = catalog_of(*plans).starts(event)
    assert (found, {(miss.function_id, miss.expression, miss.problem) for miss in misses}) == (
        [],
        evaluated_all(plans, event)[1],
    )


@pytest.mark.parametrize("constant", ["9007199254740992", "9007199254740993", "9007199254740992.0", "1", "1.0", "-0.0"])
@pytest.mark.parametrize("value", [2**53, 2**53 + 1, 2**53 + 2, float(2**53), 1, 1.0, 0, True])
def test_a_trigger_is_found_by_the_numbers_that_cel_calls_equal(constant: str, value: Any) -> None:
    """Also beyond 2**53, where some integers cannot be represented as a double."""
    expression, event = f"data.n == {constant}", event_of({"n": value})
    answer = compile_expression(expression, Scope.TRIGGER).evaluate(Bindings(event=event.as_json()))
    plans, _ = catalog_of(function("f", expression)).starts(event)
    assert started(plans) == (["f"] if answer.holds else [])


def test_a_change_of_the_route_removes_the_old_canary_and_pause() -> None:
    one, two = function("f", None), replace(function("f", None), version=2)
    for before in (Route(one, state=State.DROPPING), Route(one, two, weight=1 - 1e-9)):
        catalog = Catalog([before])
        catalog.change("f", Route(one))
        plans, misses = catalog.starts(event_of({}))
        assert (plans, list(misses)) == ([one], [])
        catalog.change("f", None)
        assert started(catalog.starts(event_of({}))[0]) == []
        assert catalog.triggers == []
        catalog.change("f", before)
        assert started(catalog.starts(event_of({}))[0]) == ([] if before.canary is None else ["f"])


def test_a_prefix_does_not_match_engine_events() -> None:
    catalog = catalog_of(function("f", None, event="step*"))
    own, other = (event_from({"id": "1", "name": name, "ts": 0}) for name in ("stepwell/run.failed", "steps/done"))
    assert [started(catalog.starts(event)[0]) for event in (own, other)] == [[], ["f"]]


def test_waits_are_searched_by_name_if_one_may_have_no_key() -> None:
    total = (("data", "total"),)
    by_name, by_key = Catalog([], {"paid": {None, total}}), Catalog([], {"paid": {total}})
    scalar, structure = (event_from({"id": "1", "name": "paid", "ts": 0, "data": {"total": t}}) for t in (1, [1]))
    assert by_name.is_awaited_by_name(scalar)
    assert not by_key.is_awaited_by_name(scalar)
    assert by_key.is_awaited_by_name(structure)
    assert not by_name.is_awaited_by_name(event_of({}))
