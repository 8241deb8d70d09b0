"""Which values of expressions are points in time."""

from __future__ import annotations

import pytest

from stepwell.core.cel.expressions import Bindings, ExpressionError, Scope, compile_moment

CHRISTMAS = 1_798_135_200_000  # 2026-12-24T18:00:00Z
DATA = {"text": "2026-12-24T18:00:00Z", "ms": CHRISTMAS, "half": 0.5, "long": "x" * 1000, "null": None}


def moment(source: str) -> int | str | None:
    """The milliseconds of an expression, or why there are none."""
    value = compile_moment(source, Scope.CONDITION).moment(Bindings({"data": DATA}))
    return value.value if value.problem is None else value.problem


@pytest.mark.parametrize(
    "source",
    [
        "data.text",
        "timestamp(data.text)",
        "timestamp(data.text) + duration('0s')",
        "data.ms",
        "double(data.ms)",
        "uint(data.ms)",
        "'2026-12-24t18:00:00z'",
        "'2026-12-24 18:00:00Z'",
        "'2026-12-24T19:30:00+01:30'",
        "'2026-12-24T17:59:59.9991Z'",
        "'2026-12-24T18:00:00.000000Z'",
    ],
)
def test_a_time_is_a_timestamp_a_text_or_milliseconds_rounded_up(source: str) -> None:
    assert moment(source) == CHRISTMAS


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("data.half", "the value is 0.5; a time is"),
        ("data['null']", "the value is null; a time is"),
        ("data", "the value is a map; a time is"),
        ("data.long", f"the value is the text '{'x' * 100}'; a time is"),
        ("data.missing", 'there is no key "missing"'),
        ("data.text + 'Z'", "the value is the text '2026-12-24T18:00:00ZZ'; a time is"),
        ("timestamp(data.long)", ""),
    ],
)
def test_other_values_are_no_time(source: str, problem: str) -> None:
    found = moment(source)
    assert isinstance(found, str)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("true", "the expression is a bool, which is no time"),
        ("data.ms > 1", "the expression is a bool, which is no time"),
        ("duration('1h')", "the expression is a duration, which is no time"),
        ("[data.ms]", "the expression is a list, which is no time"),
        ("{'at': data.ms}", "the expression is a map, which is no time"),
        ("null", "the expression is null, which is no time"),
        ("'tomorrow'", "the value is the text 'tomorrow'; a time is"),
        ("'2026-02-30T00:00:00Z'", "the value is the text '2026-02-30T00:00:00Z'; a time is"),
        ("'2026-12-24'", "the value is the text '2026-12-24'; a time is"),
        ("'2026-12-24T18:00:00'", "the value is the text '2026-12-24T18:00:00'; a time is"),
        ("1.5", "the value is 1.5; a time is"),
    ],
)
def test_an_expression_that_never_gives_a_time_is_refused(source: str, problem: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        compile_moment(source, Scope.CONDITION)
    assert refused.value.message.startswith(problem)
