"""Tests that outputs are parsed only if an expression on an edge reads them."""

from __future__ import annotations

import pytest

from stepwell.core.cel.expressions import Scope, compile_expression
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.run.inputs import edge_variables

STEP = {"runtime": {"type": "docker", "image": "x"}}
STEPS = {"a": STEP, "b": {**STEP, "after": [{"step": "a"}]}}
PLAN = compile_plan(parse_definition({"id": "f", "triggers": [{"event": "go"}], "steps": STEPS}).normalised(), 1)
EVENT = {"name": "go", "data": {"x": 1}, "user": {}, "id": "1", "ts": 1, "v": None}
UNREADABLE = b"{"


@pytest.mark.parametrize("condition", ["true", "event.data.x == 1", "data.x == 1 && user == {}"])
def test_an_output_that_no_expression_reads_is_not_parsed(condition: str) -> None:
    read_by = [compile_expression(condition, Scope.CONDITION)]
    variables = edge_variables(PLAN, 0, EVENT, {0: UNREADABLE}, {}, read_by)
    assert (variables["response"], variables["steps"]) == (None, {})


@pytest.mark.parametrize("condition", ["response.n == 2", "has(response.n)", "steps.a.n == 2", "steps['a'].n > 1"])
def test_an_output_that_an_expression_reads_is_available(condition: str) -> None:
    expression = compile_expression(condition, Scope.CONDITION)
    variables = edge_variables(
        PLAN, 0, EVENT, {0: b'{"n": 2}'}, {}, [compile_expression("true", Scope.MATCH), expression]
    )
    assert {"n": 2} in (variables["response"], variables["steps"].get("a"))
