"""The arguments of a Celery task or a Faktory job: expressions over the step's input, or the whole input as one."""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.plan import Runtime


class NoArguments(Exception):
    """An expression for arguments has no value, or one of a wrong type."""


def arguments(runtime: Runtime, step_input: bytes) -> tuple[bytes, bytes]:
    """The positional and the keyword arguments, as JSON texts. Raises NoArguments."""
    if runtime.args is None and runtime.kwargs is None:
        return b"[" + step_input + b"]", b"{}"
    document = orjson.loads(step_input)
    bindings = Bindings(document["event"], document["steps"], document["errors"], async_event=document["async"])
    args, kwargs = b"[]", b"{}"
    if runtime.args is not None:
        args = _value("args", runtime.args, bindings, list, "a list, as in [data.id]")
    if runtime.kwargs is not None:
        kwargs = _value("kwargs", runtime.kwargs, bindings, dict, "a map, as in {'id': data.id}")
    return args, kwargs


def _value(field: str, source: str, bindings: Bindings, kind: type[Any], example: str) -> bytes:
    found = compile_value(source, Scope.ARGUMENTS).value(bindings)
    if found.problem is not None:
        raise NoArguments(
            f"`{field}` has no value: {found.problem}; if a value may be missing, check it with has(...), as in"
            " [has(data.x) ? data.x : null]"
        )
    value: Any = found.value
    if not isinstance(value, kind):
        raise NoArguments(f"`{field}` is {orjson.dumps(value)[:100].decode('utf-8', 'replace')}, but must be {example}")
    return orjson.dumps(value)
