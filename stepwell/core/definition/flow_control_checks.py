"""Checks of the fields of flow control that involve expressions or several fields of a definition."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.core.cel.expressions import Scope, compile_value
from stepwell.core.definition.expression_problems import compile_problems
from stepwell.core.definition.graph import Raw
from stepwell.core.definition.problems import Problem

_KEYED = ("rate_limit", "singleton")


def flow_control_problems(definition: Raw) -> Iterator[Problem]:
    for name in _KEYED:
        field = definition.get(name)
        key = field.get("key") if isinstance(field, dict) else None
        if isinstance(key, str) and key:
            yield from compile_problems((name, "key"), key, Scope.TRIGGER, compile_value)
