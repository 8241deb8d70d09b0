"""Tests the evaluation of expressions, and which expressions are refused when a definition is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.core.cel.answer import Answer
from stepwell.core.cel.expressions import Bindings, ExpressionError, Scope, Value, compile_expression, compile_value

EVENT: dict[str, Any] = {
    "name": "user/signed.up",
    "data": {"n": 1, "f": 1.0, "text": "abc", "list": [1, 2], "nothing": None, "yes": True, "huge": 2**64 - 1},
    "user": {"created_at": "2021-01-01"},
    "id": "e1",
    "ts": 1_700_000_000_000,
    "v": None,
}


def evaluate(source: str, scope: Scope = Scope.MATCH, **variables: Any) -> Answer:
    return compile_expression(source, scope).evaluate(Bindings(**{"event": EVENT, **variables}))


def refused(source: str, scope: Scope = Scope.MATCH) -> tuple[str, int, int]:
    with pytest.raises(ExpressionError) as error:
        compile_expression(source, scope)
    return error.value.message, error.value.line, error.value.column


@pytest.mark.parametrize(
    "source",
    [
        "user.created_at > '2020-01-01'",
        "user == event.user && data == event.data",
        "data.n == data.f && data.n == 1 && data.f == 1",
        "data.huge == 18446744073709551615u",
        "event.v == null && data.nothing == null",
        "has(data.n) && !has(data.missing)",
        "data.missing == 1 || true",
        "data.list.all(x, x > 0) && data.list.exists(x, data.list.exists(y, x < y))",
        "data.list.map(x, x * 2) == [2, 4] && size(data.list.filter(x, x > 1)) == 1",
        "data.list.exists_one(x, x == 1)",
        "data.text + 'd' == 'abcd' && data.text.matches('^a.c$')",
        "timestamp(event.ts / 1000) > timestamp('2020-01-01T00:00:00Z')",
        "data.yes",
        "data.yes ? true : false",
        "// a comment\ntrue",
    ],
)
def test_a_true_condition_holds(source: str) -> None:
    assert evaluate(source) == Answer(True)


@pytest.mark.parametrize(
    "source", ["data.n == 2", "data.n == '1'", "data.yes == 1", "data.text == null", "data.missing == 1 && false"]
)
def test_a_false_condition_does_not_hold_and_has_no_problem(source: str) -> None:
    assert evaluate(source) == Answer(False)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("data.missing == 1", 'there is no key "missing"'),
        ("data.text > 1", "`>` does not work with string, int"),
        ("data.n.startsWith('a')", "`startsWith` does not work with int, string"),
        ("data.text && true", "`&&` does not work with these arguments"),
        ("data.text ? true : false", "the condition before ? is not true or false"),
        ("data.n.a.b == 1", "a field is read from a value that is not an object"),
        ("data.list[7] == 1", "Index error: index=7 size=2"),
        ("1 / (data.n - 1) == 1", "divide by zero"),
        ("{data.n: 1, 1: 2}[1] == 1", "duplicate key in map"),  # the library raises this error
        ("data.text", "the value is a string, not true or false"),
        ("data.n", "the value is an int, not true or false"),
        ("data.nothing", "the value is null, not true or false"),
        ("data.list", "the value is a list, not true or false"),
        ("data", "the value is a map, not true or false"),
    ],
)
def test_a_condition_without_a_value_does_not_hold_and_has_a_problem(source: str, problem: str) -> None:
    assert evaluate(source) == Answer(False, problem)


def test_a_loop_with_too_many_iterations_is_a_problem_and_not_an_exception() -> None:
    event = {"name": "a", "data": {"list": [0] * 5000}}
    answer = evaluate("data.list.all(x, data.list.all(y, y == 0))", event=event)
    assert answer == Answer(False, "all, exists, map or filter has too many iterations")


@pytest.mark.parametrize(
    "source",
    [
        "data.list.map(x, x) == data.list",
        "data.list.filter(x, x == 0).size() > 0",
        "data.list.exists(x, x in data.list)",
        "data.list.exists(x, !(x in event.data.list))",
    ],
)
def test_a_loop_that_takes_seconds_for_a_long_list_is_not_started(source: str) -> None:
    assert evaluate(source, event={"name": "a", "data": {"list": [0] * 1000}}).problem is None
    answer = evaluate(source, event={"name": "a", "data": {"list": [0] * 1001}})
    assert answer == Answer(False, "map, filter and `in` inside a loop take at most 1,000 entries; there are 1,001")


def test_a_quick_loop_over_a_long_list_is_allowed() -> None:
    event = {"name": "a", "data": {"list": [*range(9000)]}}
    assert evaluate("data.list.exists(x, x == 8999 || x in [-1])", event=event) == Answer(True)
    assert evaluate("8999 in data.list", event=event) == Answer(True)


def test_a_problem_is_short_even_for_large_events() -> None:
    key = "k" * 5000
    problem = (
        compile_expression("data[data.key] == 1", Scope.TRIGGER).evaluate(Bindings({"data": {"key": key}})).problem
    )
    assert problem is not None
    assert len(problem) <= 200


@pytest.mark.parametrize(
    "source",
    ["data.text == data.other", "data.text == 'ada'", "size(data.text) == 3", "has(data.key)", "'ada' in data"],
)
def test_a_text_is_not_cut_at_a_nul(source: str) -> None:
    data = {"text": "ada\0eve", "other": "ada", "key\0": 1, "ada\0": 1}
    assert evaluate(source, event={**EVENT, "data": data}) == Answer(False)


def test_a_nul_is_a_replacement_character_to_expressions() -> None:
    data = {"text": "ada\0eve", "list": [{"n\0": "\0"}]}
    bindings = Bindings(event={**EVENT, "data": data})
    assert compile_value("data", Scope.TRIGGER).value(bindings) == Value(
        {"text": "ada\ufffdeve", "list": [{"n\ufffd": "\ufffd"}]}
    )
    assert evaluate("data.text.contains('eve')", event={**EVENT, "data": data}) == Answer(True)


def test_user_and_data_exist_even_if_the_event_has_none() -> None:
    for event in ({"name": "a"}, {"name": "a", "user": None, "data": None}):
        assert evaluate("user == {} && data == {}", event=event) == Answer(True)


def test_a_condition_can_use_steps_errors_and_the_response() -> None:
    known: dict[str, Any] = {"steps": {"step-1": {"ok": True}}, "errors": {"b": {"kind": "exit"}}, "response": {"x": 1}}
    assert evaluate("steps['step-1'].ok && errors.b.kind == 'exit' && response.x == 1", Scope.CONDITION, **known).holds
    assert evaluate("response == null", Scope.CONDITION).holds


def test_a_match_can_use_the_incoming_event() -> None:
    assert evaluate("async.data.n == data.n", async_event={"name": "b", "data": {"n": 1.0}}).holds


def test_expressions_of_every_scope_share_bindings() -> None:
    bindings = Bindings(EVENT, async_event=EVENT)
    for scope in set(Scope) - {Scope.WEBHOOK, Scope.CHALLENGE, Scope.RECORD}:
        for source in ("data.n == 1", "event.name == 'user/signed.up' && data.n == 1"):
            assert compile_expression(source, scope).evaluate(bindings).holds


@pytest.mark.parametrize(
    ("source", "message", "line", "column"),
    [
        ("evnt.name == 'a'", "there is no variable `evnt`; did you mean `event`?", 1, 1),
        ("true &&\n  evnt.a.b", "there is no variable `evnt`; did you mean `event`?", 2, 3),
        ("'é😀' == evnt", "there is no variable `evnt`; did you mean `event`?", 1, 9),
        ("event.evnt == evnt.evnt", "there is no variable `evnt`; did you mean `event`?", 1, 15),
        ("xyz == 1", "there is no variable `xyz`; use `event`, `user` or `data`", 1, 1),
        ("'\u2028' == xyz", "there is no variable `xyz`; use `event`, `user` or `data`", 1, 8),
        ("data.n == steps.a", "`steps` is not available in this field; use `event`, `user` or `data`", 1, 11),
        ("data.a.startWith('x')", "there is no function `startWith`; did you mean `startsWith`?", 1, 8),
        ("data.l.exits(x, x == 1)", "there is no function `exits`; did you mean `exists`?", 1, 8),
        ("exists(data.l)", "`exists` is called in the wrong way; see https://cel.dev for the correct form", 1, 1),
        ("", "the expression ends too early", 1, 1),
        ("data.n ==", "the expression ends too early", 1, 10),
        ("(data.n == 1", "the expression ends too early; ) is missing", 1, 13),
        ("data.n == 1)", "`)` is not allowed here", 1, 12),
        ("data.n = 1", "`=` is not allowed here; write ==", 1, 8),
        ("data.a and data.b", "`and` is not allowed here; write &&", 1, 8),
        (
            "data.a == 'x",
            "the text that begins here has no closing quote; end it with the quote that it begins with",
            1,
            11,
        ),
        ("1 + 'a' == 2", "`+` does not work with int, string", 1, 3),
        ("data.step-1.a == 1", "a value of type int has no fields", 1, 12),
        ("data.n == 99999999999999999999", "invalid int literal", 1, 11),
        ("has(data)", "has() argument must be a field selection", 1, 5),
    ],
)
def test_a_broken_expression_is_refused_with_its_place(source: str, message: str, line: int, column: int) -> None:
    assert refused(source, Scope.TRIGGER) == (message, line, column)


def test_a_text_that_looks_like_an_error_is_not_taken_for_one() -> None:
    fake = "\"ERROR: <input>:99:9: undeclared reference to 'x'\""
    assert refused(f"{fake} == evnt")[0] == "there is no variable `evnt`; did you mean `event`?"
    refused("'x\nERROR: <input>:99:9: undeclared reference to 'x' == evnt")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("1", "an int"),
        ("'a'", "a string"),
        ("[1]", "a list"),
        ("{}", "a map"),
        ("null", "null"),
        ("b'a'", "bytes"),
        ("duration('1s')", "a duration"),
        ("size(data.list)", "an int"),
    ],
)
def test_a_condition_that_is_never_a_boolean_is_refused(source: str, kind: str) -> None:
    assert refused(source)[0] == f"the expression is {kind}, but must be true or false; compare it with a value"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("'" + "a" * 2047 + "' == ''", "longer than 2,048 bytes", id="long"),
        pytest.param("'" + "é" * 1024 + "' == ''", "longer than 2,048 bytes", id="long in bytes"),
        pytest.param("'\ud800' == ''", "surrogate", id="half a character"),
        pytest.param("(" * 900 + "true" + ")" * 900, "nested too deeply", id="parentheses"),
        pytest.param("[" * 900 + "]" * 900 + " == []", "nested too deeply", id="lists"),
        pytest.param("data" + ".a" * 900, "nested too deeply", id="fields"),
        pytest.param("+".join(["1"] * 900) + " == 0", "nested too deeply", id="chain"),
        pytest.param("data.a.all(x, x.all(y, y.all(z, z)))", "2 deep", id="loops in loops"),
        pytest.param("[1].map(a, [a, a]).map(b, [b, b]).map(c, [c, c]) == []", "2 deep", id="loops over loops"),
        pytest.param("data.a.all(x, x + x == 1)", "+ inside", id="plus in a loop"),
        pytest.param("data.a.map(x, x + x) == []", "+ inside", id="plus in map"),
        pytest.param("data.a.map(x, x > 0, [x] + [x]) == []", "+ inside", id="plus in map with a filter"),
        pytest.param("data.a.filter(x, 'a' + x == '') == []", "+ inside", id="plus in filter"),
        pytest.param("data.a.all(x, (x + x).all(y, y))", "+ inside", id="plus in the range of an inner loop"),
        pytest.param("data.a.matches(data.b)", "must be a text in quotes", id="pattern from an event"),
        pytest.param("matches(data.a, 'a' + 'b')", "must be a text in quotes", id="pattern that is computed"),
        pytest.param("data.a.matches('" + "a" * 201 + "')", "is longer than 200 characters", id="long pattern"),
        pytest.param("data.a.matches('(a')", "is not a valid regular expression: missing )", id="broken pattern"),
        pytest.param("data.a.matches('((a{1,100}){1,100}){1,100}')", "invalid repetition", id="pattern that grows"),
    ],
)
def test_an_expression_without_bounds_on_time_or_memory_is_refused(source: str, text: str) -> None:
    assert text in refused(source)[0]


@pytest.mark.parametrize("pattern", ["\\\\pL{100}", "(\\\\pL\\\\pN){200}", "(\\\\pL{9}|\\\\pN{9}|.{900})"])
def test_a_pattern_that_is_too_slow_for_any_event_has_no_value_and_is_refused_by_check(
    pattern: str,
) -> None:
    found = compile_expression(f"data.text.matches('{pattern}')", Scope.TRIGGER)
    assert found.evaluate(Bindings({"data": {"text": ""}})).problem is not None
    with pytest.raises(ExpressionError, match="the expression takes too long for any event: the pattern"):
        found.check()
    compile_expression("data.text.matches('\\\\pL+')", Scope.TRIGGER).check()


def test_a_plus_outside_of_loops_is_allowed() -> None:
    assert evaluate("(data.list + [3]).exists(x, x == 3)").holds
    assert evaluate("[1].map(x, x * 2)[0] + 1 == 3").holds


def test_many_conditions_may_be_combined() -> None:
    assert evaluate("||".join(["data.n == 2"] * 120 + ["true"])).holds


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("steps.a.b == 1", {"a"}),
        ("steps['step-1'].ok || errors.b.kind == errors['c-d'].kind", {"step-1", "b", "c-d"}),
        ("has(steps.a) && has(errors['b'].kind)", {"a", "b"}),
        ("size(steps['a'].list.filter(x, x.n == steps.b.n)) > 0", {"a", "b"}),
        ("data.steps.a == 1 && event.errors.b == 2", set()),
        ("steps[data.which].ok", set()),
        ("size(steps) == 0", set()),
        ("data.l.exists(steps, steps.mine == errors.b)", {"b"}),  # a loop variable hides the outer variable
        ("steps.a.l.exists(steps, steps.mine)", {"a"}),
    ],
)
def test_the_steps_an_expression_names_are_known(source: str, names: set[str]) -> None:
    assert compile_expression(source, Scope.CONDITION).step_names == names


def test_an_expression_is_compiled_once() -> None:
    assert compile_expression("data.n == 1", Scope.TRIGGER) is compile_expression("data.n == 1", Scope.TRIGGER)


WORDS = st.sampled_from(
    [
        *("event", "data", ".a", "['b']", "[0]", "(", ")", "&&", "||", "==", "+", "-", "!", "?", ":", "'x", "'x'", "1"),
        *(
            "has",
            "matches",
            "exists(x,",
            "map(x,",
            "[",
            "]",
            "{",
            "}",
            "null",
            "true",
            "x",
            "//",
            "\\",
            "@",
            "in",
            "2u",
        ),
        *("\n", "\0", " "),
    ]
)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=12).map("".join)))
def test_any_text_is_either_an_expression_or_refused(source: str) -> None:
    try:
        expression = compile_expression(source, Scope.TRIGGER)
    except ExpressionError as error:
        wrong: ExpressionError | None = error
    else:
        wrong = None
        assert isinstance(expression.evaluate(Bindings(EVENT)).holds, bool)
    assert wrong is None or (wrong.message and wrong.line >= 1 and wrong.column >= 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@settings(deadline=None)
@given(JSON)
def test_only_true_holds(value: Any) -> None:
    answer = evaluate("data.value", event={"data": {"value": value}})
    assert answer.holds is (value is True)
    assert (answer.problem is None) is isinstance(value, bool)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data.value", {"a": [1, 2.5, None, "x"]}),
        ("data.value.a[0]", 1),
        ("'n' + data.value.a[3]", "nx"),
        ("data.value.a.size() > 2", True),
        ("[data.value.a[0], {'b': 1}]", [1, {"b": 1}]),
        ("null", None),
    ],
)
def test_a_value_is_plain_json_data(source: str, expected: Any) -> None:
    event = {"data": {"value": {"a": [1, 2.5, None, "x"]}}}
    assert compile_value(source, Scope.TRIGGER).value(Bindings(event)) == Value(expected)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("data.missing", "there is no key"),
        ("timestamp('2026-01-01T00:00:00Z')", "a timestamp"),
        ("[b'x']", "a list"),
        ("{1: 2}", "a map"),
        ("1.0 / 0.0", "a double"),
        ("1 / 0", "zero"),
    ],
)
def test_a_value_that_json_cannot_represent_is_a_problem(source: str, problem: str) -> None:
    value = compile_value(source, Scope.TRIGGER).value(Bindings({"data": {}}))
    assert value.value is None
    assert problem in str(value.problem)
