"""Reads a function definition and collects all problems in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stepwell.core.definition import field_validators
from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.field_problems import field_problem, pointer_of
from stepwell.core.definition.model import Definition
from stepwell.core.definition.problems import Pointer, Problem
from stepwell.core.definition.semantic_checks import contradictions
from stepwell.core.definition.suggestions import problems_with_fixes

_ONLY_STEP = {"step-1": {"path": "file://."}}


class DefinitionError(ValueError):
    """The definition is refused. `problems` lists all errors in it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = problems


def parse_definition(raw: object, written: Mapping[Pointer, str] | None = None) -> Definition:
    """Reads a definition from plain JSON data.

    `written`: the source text of values that are not strings, where it is known, for messages about them. Raises
    DefinitionError with all problems, in reading order.
    """
    if not isinstance(raw, dict):
        raise DefinitionError([Problem((), "the definition must be an object with `id`, `triggers` and `steps`")])
    data = _completed(raw)
    definition, errors = _validated(data)
    problems = [problem for problem in map(field_problem, errors) if isinstance(problem, Problem)]
    plain = [(pointer_of(error), error) for error in errors if field_problem(error) is None]
    problems += problems_with_fixes(data, plain, written or {}, _wrong_places)
    problems += contradictions(data)
    if problems or definition is None:
        raise DefinitionError(problems)
    return definition


def _validated(data: Any) -> tuple[Definition | None, list[Any]]:
    """The definition and no errors, or None and pydantic's errors."""
    try:
        return Definition.model_validate(data), []
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
        return None, [error for error in errors if error["type"] != "default_factory_not_called"]


def _wrong_places(data: Any) -> set[Pointer]:
    return {*map(pointer_of, _validated(data)[1]), *(problem.pointer for problem in contradictions(data))}


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a definition, for editors. It is as strict as a schema can be."""
    return rules.of_model(Definition.model_json_schema(by_alias=True), "Stepwell function")


def _completed(raw: dict[Any, Any]) -> dict[Any, Any]:
    """A copy of the definition with the defaults that depend on other fields.

    These are the step of a function without steps, the ids of steps, the timeout and retries of approvals, and the
    retries of steps that send events.
    """
    steps = _ONLY_STEP if raw.get("steps") in (None, {}) else raw["steps"]
    if not isinstance(steps, dict):
        return raw
    return {
        **raw,
        "steps": {
            key: {**step, "id": key if step.get("id") is None else step["id"], **_of_runtime(step)}
            if isinstance(step, dict)
            else step
            for key, step in steps.items()
        },
    }


def _of_runtime(step: dict[Any, Any]) -> dict[str, Any]:
    """The defaults that apply only to approvals and to steps that send events."""
    runtime = step.get("runtime")
    kind = runtime.get("type") if isinstance(runtime, dict) else None
    if kind == "emit" and step.get("retries") is None:
        return {"retries": {"attempts": 0}}
    if not isinstance(runtime, dict) or kind != "approval":
        return {}
    defaults = {"timeout": runtime.get("timeout") or "7d", "retries": {"attempts": 0}}
    if not _is_duration(defaults["timeout"]):
        del defaults["timeout"]  # so that the error is reported once, in `runtime`
    return {name: value for name, value in defaults.items() if step.get(name) is None}


def _is_duration(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(field_validators.duration(value))
    except ValueError:
        return False
