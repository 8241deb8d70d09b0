"""Tests `parse_json` in webhook rules."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from stepwell.core.cel.expressions import Bindings, ExpressionError, Scope, compile_expression, compile_value
from stepwell.core.cel.json_fields import fields_with_json, with_json_fields
from stepwell.core.cel.parse_json import replace_calls


def value(source: str, body: Any) -> Any:
    found = compile_value(source, Scope.WEBHOOK).value(Bindings.of_request(body, {}, {"q": "[7]"}))
    return found.value if found.problem is None else found.problem


@pytest.mark.parametrize(
    ("source", "body", "result"),
    [
        ("parse_json(body.p).user.id", {"p": '{"user": {"id": "U1", "n": null}}'}, "U1"),
        ("parse_json(body.p)", {"p": " [1, null, 1.5] "}, [1, None, 1.5]),
        ("parse_json(body.p)", {"p": '"text"'}, "text"),
        ("parse_json(body)", "\ufeff[1]", [1]),
        ("parse_json(query.q)[0] + size(parse_json(body.p))", {"p": "[1, 2]"}, 9),
        ("parse_json(parse_json(body.p).q).r", {"p": '{"q": "{\\"r\\": \\"a\\\\u0000b\\"}"}'}, "a\ufffdb"),
        ("parse_json(body.a + body.b)", {"a": "[", "b": "1]"}, [1]),
        ("parse_json(body.p).x", {"p": {"x": 1}}, 1),
        ("has(body.p) ? parse_json(body.p).x : 'none'", {}, "none"),
        ("has(body.p) ? parse_json(body.p).x : 'none'", {"large": "x" * 300_000}, "none"),
        ("parse_json(body.p).map(x, x.id)", {"p": '[{"id": 1}, {"id": 2}]'}, [1, 2]),
        ("'parse_json(body.x)' + \"parse_json(')\" + r'\\d'", {}, "parse_json(body.x)parse_json(')\\d"),
        ("parse_json ( // )\n body.p ).x", {"p": '{"x": 1}'}, 1),
        ("parse_json(body.p)", {}, 'there is no key "p"'),
        ("parse_json(body.p)", {"p": 3}, "parse_json: the value is not a text"),
    ],
)
def test_parse_json_returns_the_value_of_a_text(source: str, body: Any, result: Any) -> None:
    assert value(source, body) == result


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", "the text is not JSON"),
        ("nope", "the text is not JSON"),
        ("{", "the text is not JSON"),
        ("NaN", "JSON"),
        ('{"n": 123456789012345678901234567890}', "at /n does not fit into 64 bits"),
        ("[" * 200 + "]" * 200, "nested more than 128 levels deep"),
        ("[" * 100_000, ""),
        ("[" + "[]," * 200_001 + "1]", ""),
    ],
)
def test_a_text_that_is_not_json_or_cannot_be_stored_has_no_value(text: str, content: str) -> None:
    for source in ("parse_json(body.p)", "parse_json(body.p).a.b"):
        found = value(source, {"p": text})
        assert isinstance(found, str)
        assert content in found
    assert (
        compile_expression("parse_json(body.p).a == 1", Scope.WEBHOOK)
        .evaluate(Bindings.of_request({"p": text}, {}, {}))
        .problem
    )


def test_loops_over_parsed_values_are_limited_like_other_loops() -> None:
    assert "1,000" in value("parse_json(body.p).map(x, x)", {"p": "[" + ",".join("1" * 5000) + "]"})
    large = {"p": "[" + ",".join("1" * 900) + "]", "text": "x" * 1_000_000}
    assert isinstance(value("parse_json(body.p).map(x, {'x': x, 'text': body.text})", large), str)


@pytest.mark.parametrize(
    ("source", "message", "line", "column"),
    [
        ("parse_json(bdy)", "there is no variable `bdy`; did you mean `body`?", 1, 12),
        ("1 +\n parse_json(bdy.p)", "there is no variable `bdy`; did you mean `body`?", 2, 13),
        ("parse_json(body.p).x + bdy", "there is no variable `bdy`; did you mean `body`?", 1, 24),
        ("parse_json(body.p, 1)", "`,` is not allowed here", 1, 18),
        ("parse_json()", "the expression ends too early", 1, 12),
        ("parse_json(body.p", "the expression ends too early; ) is missing", 1, 18),
        ("body.parse_json(1)", "`parse_json` is available only in webhook rules", 1, 6),
        ("body.xs.map(x, parse_json(x))", "there is no variable `x`; use `body`, `headers` or `query`", 1, 27),
        ("+".join(["parse_json(body.p)"] * 9), "`parse_json` is called more than 8 times; use fewer calls", 1, 1),
        ("__json_0", "there is no variable `__json_0`", 1, 1),
    ],
)
def test_an_error_has_a_place_in_the_source(source: str, message: str, line: int, column: int) -> None:
    with pytest.raises(ExpressionError) as wrong:
        compile_value(source, Scope.WEBHOOK)
    assert wrong.value.message.startswith(message)
    assert (wrong.value.line, wrong.value.column) == (line, column)


def test_parse_json_is_not_available_in_other_expressions() -> None:
    with pytest.raises(ExpressionError, match="only in webhook rules"):
        compile_value("parse_json(data.x)", Scope.TRIGGER)


def test_calls_are_found_by_tokens() -> None:
    rewritten, arguments = replace_calls("f(parse_json(a.b)) + parse_json(parse_json(c).d[(1)])")
    assert rewritten.replace(" ", "") == "f(__json_0)+__json_2"
    assert [argument.strip() for argument in arguments] == ["a.b", "c", "__json_1     .d[(1)]"]
    for plain in ("body.x", "'parse_json(x)'", "parse_jsonx(1)", "xparse_json(1)", "// parse_json(x)"):
        assert replace_calls(plain) == (plain, [])


def test_parsed_values_are_not_leaked() -> None:
    expression = compile_value("parse_json(body.p).a", Scope.WEBHOOK)
    texts = [f'{{"a": "{number}", "b": "{"x" * 100}"}}' for number in range(5)]
    counts = [sys.getrefcount(text) for text in texts]
    for _ in range(100):
        for text in texts:
            expression.value(Bindings.of_request({"p": text}, {}, {}))
    gc.collect()
    assert sum(sys.getrefcount(text) for text in texts) <= sum(counts) + len(
        texts
    )  # a leak would add a hundred references to each


def test_form_fields_are_parsed_if_an_expression_reads_inside_them() -> None:
    def asked(source: str) -> set[str]:
        return set(fields_with_json(compile_value(source, Scope.WEBHOOK).tree))

    assert asked("body.payload.user.id + body['other'].x + body.third[0]") == {"payload", "other", "third"}
    assert asked("has(body.payload.user) ? body.list.map(x, x.id) : body.plain") == {"payload", "list"}
    assert asked("body.payload == 'x' && size(body.text) > 1") == set()
    form = {"a": '{"x": 1}', "b": "[1]", "c": "text", "d": ["{}"], "e": "5", "f": "{"}
    assert with_json_fields(form, set(form)) == {**form, "a": {"x": 1}, "b": [1]}
    with pytest.raises(ValueError, match="64 bits"):
        with_json_fields({"a": '{"n": 123456789012345678901234567890}'}, ["a"])
