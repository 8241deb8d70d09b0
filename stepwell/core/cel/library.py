"""The one module that knows the CEL library (Google's C++ implementation).

Errors are values to the library, and their plain value is a truthy text; other errors, such as a loop that takes too
long, are raised.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cel_expr_python import cel

from stepwell.core.cel.immortal_none import make_none_immortal
from stepwell.core.cel.scope import Scope

make_none_immortal()  # before the library returns its first null

BOOL, DYN, ERROR = cel.Type.BOOL, cel.Type.DYN, cel.Type.ERROR


@cache
def environment(scope: Scope) -> Any:
    """What compiles the expressions of a scope."""
    return cel.NewEnv(variables=dict.fromkeys(scope.names, DYN))


@cache
def _everywhere() -> Any:
    """An environment with the variables of all scopes."""
    return cel.NewEnv(variables=dict.fromkeys((name for scope in Scope for name in scope.names), DYN))


def activation(values: dict[str, Any]) -> Any:
    """The values of variables as the library takes them."""
    return _everywhere().Activation(values)


def type_name(value_type: Any) -> str:
    """A type with its article: a string, an int, null."""
    name = str(value_type.name()).lower().partition("<")[0]
    if name in ("null", "bytes"):
        return name
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"
