"""Checks of the part of a rule that makes an event: the name, and the expressions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.core.cel.expressions import ExpressionError, Scope, compile_expression, compile_value
from stepwell.core.definition import field_validators
from stepwell.core.definition.problems import Problem
from stepwell.core.rules.event_rule import EXPRESSIONS
from stepwell.core.rules.template import template


def rule_problems(raw: dict[Any, Any], name: str, scope: Scope, owner: str) -> Iterator[Problem]:
    """The problems of the fields that all rules have. `owner`: what has the rule, as in "webhook"."""
    try:
        field_validators.identifier(name)
    except ValueError as error:
        yield Problem(("name",), f"name: {error}")
    if raw.get("name") not in (None, name):
        yield Problem(("name",), f"name: differs from the name of the {owner}, {name}; remove it")
    if isinstance(raw.get("event"), str):
        yield from _event(raw["event"], scope)
    for field in EXPRESSIONS:
        if isinstance(raw.get(field), str) and raw[field]:
            yield from expression_problems(field, raw[field], scope, is_condition=field == "if")


def _event(text: str, scope: Scope) -> Iterator[Problem]:
    try:
        parts = template(text)
    except ValueError as error:
        yield Problem(("event",), f"event: {error}")
        return
    if len(parts) == 1 and (len(text) > 256 or "*" in text or not text.isprintable() or text != text.strip()):
        message = (
            "event: the name of an event must have at most 256 characters, no * or control character, and no space at"
            " the beginning or end"
        )
        yield Problem(("event",), message)
    if parts[0].startswith("stepwell/") and text != "stepwell/identify":
        message = "event: names that begin with stepwell/ are reserved for the engine; choose another name"
        yield Problem(("event",), message)
    for source in parts[1::2]:
        yield from expression_problems("event", source, scope, is_condition=False)


def expression_problems(
    field: str, source: str, scope: Scope, *, is_condition: bool, within: tuple[str, ...] = ()
) -> Iterator[Problem]:
    """The problem of an expression in a field, if there is one. `within`: the fields around it."""
    try:
        (compile_expression if is_condition else compile_value)(source, scope).check()
    except ExpressionError as error:
        place = f" (line {error.line}, column {error.column} of `{source[:60]}`)"
        yield Problem((*within, field), f"{field}: {error.message}{place}")
