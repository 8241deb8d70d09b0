"""Tests that the page about expressions lists all functions, and that the examples are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepwell.core.cel.errors import FUNCTIONS
from stepwell.core.cel.expressions import Bindings, ExpressionError, Scope, compile_value

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "expressions.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\|) \| (?!\|)", line.strip("| "))]
    for line in PAGE.partition("| function |")[2].partition("\n\n")[0].splitlines()[2:]
]
EVENT = {"name": "go", "ts": 1_780_000_000_000, "data": {"total": 10.5, "n": 3}}
ELSEWHERE = re.findall(
    r"\w+",
    """existsOne split join replace lowerAscii upperAscii trim substring indexOf charAt format quote reverse sort
    flatten slice distinct range transformList transformMap ceil floor round abs sqrt greatest least min max sum
    isNaN now random uuid parse_json getTime first last""",
)


def value(source: str) -> object:
    found = compile_value(source, Scope.TRIGGER).value(Bindings(EVENT))
    assert found.problem is None, (source, found.problem)
    return found.value


def test_the_table_names_each_function_once() -> None:
    named = [name for row in ROWS for name in re.findall(r"`(\w+)", row[0])]
    assert sorted(named) == sorted(FUNCTIONS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_the_examples_in_the_table_are_true(row: list[str]) -> None:
    examples = re.findall(r"`([^`]+)`", row[2])
    assert examples
    assert [value(example) for example in examples] == [True] * len(examples)
    written = " ".join(examples)
    assert [name for name in re.findall(r"`(\w+)", row[0]) if f"{name}(" not in written] == []


@pytest.mark.parametrize("name", ELSEWHERE)
def test_functions_of_other_languages_and_libraries_do_not_exist(name: str) -> None:
    for call in (f"{name}(data.n)", f"data.n.{name}()", f"[data.n].{name}(x, x)", f"math.{name}(data.n)"):
        with pytest.raises(ExpressionError):
            compile_value(call, Scope.TRIGGER)


def test_the_statements_about_numbers_on_the_page_are_true() -> None:
    for total in (10, 10.0):
        bindings = Bindings({"name": "go", "data": {"total": total}})
        for source in (
            "data.total > 9",
            "data.total == 10",
            "data.total in [10, 20]",
            "double(data.total) * 2.0 == 20.0",
        ):
            assert compile_value(source, Scope.TRIGGER).value(bindings).value is True, source
    assert value("7 / 2 == 3") is True
    problem = compile_value("data.total * 2", Scope.TRIGGER).value(Bindings(EVENT)).problem
    assert problem is not None
    assert "write 2.0 instead of 2, or convert one of them with double(...) or int(...)" in problem
