"""The only module that imports the CEL library (Google's C++ implementation).

The library returns most errors as values, whose plain value is a truthy text. It raises others, such as a loop with too
many iterations.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cel_expr_python import cel

from stepwell.core.cel.immortal_none import make_none_immortal
from stepwell.core.cel.scope import Scope

make_none_immortal()  # before the library returns its first null

BOOL, DYN, ERROR = cel.Type.BOOL, cel.Type.DYN, cel.Type.ERROR
TIMES = (DYN, cel.Type.TIMESTAMP, cel.Type.STRING, cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE)  # of points in time


@cache
def environment(scope: Scope, *, has_base64: bool = False) -> Any:
    """The library's environment that compiles the expressions of a scope, with or without the functions of base64."""
    extensions = []
    if has_base64:
        from cel_expr_python.ext import ext_encoders  # imported late: it has 7 MB, and few expressions use it

        extensions.append(ext_encoders.ExtEncoders())
    return cel.NewEnv(variables=dict.fromkeys(scope.names, DYN), extensions=extensions)


@cache
def _everywhere() -> Any:
    """An environment with the variables of all scopes."""
    return cel.NewEnv(variables=dict.fromkeys((name for scope in Scope for name in scope.names), DYN))


def activation(values: dict[str, Any]) -> Any:
    """The values of variables, converted for the library."""
    return _everywhere().Activation(values)


def type_name(value_type: Any) -> str:
    """The name of a type with an article: "a string", "an int", "null"."""
    name = str(value_type.name()).lower().partition("<")[0]
    if name in ("null", "bytes"):
        return name
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"
