"""Checks the expressions in a definition: whether they compile, and whether the steps that they name have ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from stepwell.core.cel.expressions import (
    Expression,
    ExpressionError,
    Scope,
    compile_expression,
    compile_moment,
    compile_value,
)
from stepwell.core.definition.graph import Ancestry, Raw, entries
from stepwell.core.definition.problems import Pointer, Problem, nearest
from stepwell.core.run.approvals import placeholders

Compiler = Callable[[str, Scope], Expression]
_TRIGGER = "$trigger"
_HYPHENATED = re.compile(r"\b(steps|errors)\.([a-z0-9]+(?:-[a-z0-9]+)+)")


def step_expressions(step_id: str, step: Raw, ancestry: Ancestry) -> Iterator[Problem]:
    """The problems of the expressions of a step: on its edges and in its runtime."""
    for i, edge in entries(step.get("after")):
        at: Pointer = ("steps", step_id, "after", i)
        pause = edge.get("async")
        match = pause.get("match") if isinstance(pause, dict) else None
        delay = edge.get("wait")
        until = delay.get("until") if isinstance(delay, dict) else None
        for place, source, scope, compiler in (
            ((*at, "if"), edge.get("if"), Scope.CONDITION, compile_expression),
            ((*at, "wait", "until"), until, Scope.CONDITION, compile_moment),
            ((*at, "async", "match"), match, Scope.MATCH, compile_expression),
        ):
            if isinstance(source, str) and source:
                yield from condition_problems(place, source, scope, edge.get("step"), ancestry, compiler)
    for field, source, scope in _in_runtime(step):
        yield from value_problems(("steps", step_id, "runtime", field), step_id, source, scope, ancestry)


def _in_runtime(step: Raw) -> Iterator[tuple[str, str, Scope]]:
    """The expressions in a step's runtime, each with the field and the scope."""
    runtime = step.get("runtime")
    if not isinstance(runtime, dict):
        return
    if runtime.get("type") == "approval":
        message = runtime.get("message")
        for source in placeholders(message) if isinstance(message, str) else ():
            yield "message", source, Scope.MESSAGE
    elif runtime.get("type") in ("celery", "faktory"):
        for field in ("args", "kwargs"):
            if isinstance(runtime.get(field), str) and runtime[field]:
                yield field, runtime[field], Scope.ARGUMENTS
    elif runtime.get("type") == "emit":
        for field in ("data", "user", "ts"):
            if isinstance(runtime.get(field), str) and runtime[field]:
                yield field, runtime[field], Scope.ARGUMENTS


def value_problems(at: Pointer, step_id: str, source: str, scope: Scope, ancestry: Ancestry) -> Iterator[Problem]:
    """The problems of an expression that is evaluated when the step starts."""
    hint = _hint(source)
    compiler = compile_moment if at[-1] == "ts" else compile_value
    problems = list(compile_problems(at, source, scope, compiler, hint))
    yield from problems
    before = ancestry.of(step_id) - {step_id}
    for name in sorted(() if problems else compile_value(source, scope).step_names - before):
        cure = nearest(name, sorted(before)) if before else "use `event`"
        yield Problem(at, f"{at[-1]}: there is no step `{name[:100]}` before `{step_id}`; {cure}{hint}")


def condition_problems(
    at: Pointer,
    source: str,
    scope: Scope,
    parent: object = None,
    ancestry: Ancestry | None = None,
    compiler: Compiler = compile_expression,
) -> Iterator[Problem]:
    """The problems of a condition, or of another expression on an edge. `parent`: the step before, if it is on one."""
    hint = _hint(source) if "steps" in scope.value else ""
    problems = list(compile_problems(at, source, scope, compiler, hint))
    yield from problems
    if problems or ancestry is None or not isinstance(parent, str):
        return
    for name in sorted(compiler(source, scope).step_names):
        message = _not_ended(name, parent, ancestry)
        if message:
            yield Problem(at, f"{at[-1]}: {message}{hint}")


def compile_problems(at: Pointer, source: str, scope: Scope, compiler: Compiler, hint: str = "") -> Iterator[Problem]:
    """The problem if an expression cannot be compiled, or is too slow for any event."""
    try:
        compiler(source, scope).check()
    except ExpressionError as error:
        where = f"line {error.line}, column {error.column}"
        yield Problem(at, f"{at[-1]}: {error.message} ({where} of the expression){hint}")


def _not_ended(name: str, parent: str, ancestry: Ancestry) -> str | None:
    """The problem if an expression on an edge from `parent` uses the step `name`, which may not have ended by then."""
    if name not in ancestry.steps:
        return f"there is no step `{name[:100]}`; {nearest(name, ancestry.steps)}"
    if parent == _TRIGGER:
        return (
            f"the step `{name}` has not run yet when an edge from {_TRIGGER} is evaluated; use `event`, or put the"
            f" expression on an edge from `{name}`"
        )
    if parent in ancestry.steps and name not in ancestry.of(parent):
        if parent in ancestry.of(name):
            return (
                f"the step `{name}` comes after `{parent}`, so it has not run yet when this edge is evaluated; use"
                " another step"
            )
        return (
            f"the step `{name}` may still be running when this edge is evaluated, which is when `{parent}` ends;"
            f" let `{parent}` come after `{name}`, or put the expression on an edge from `{name}`"
        )
    return None


def _hint(source: str) -> str:
    found = _HYPHENATED.search(source)
    return f"; `-` means minus in an expression, so write {found[1]}['{found[2]}']" if found else ""
