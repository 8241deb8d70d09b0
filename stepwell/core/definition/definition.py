"""Reads a function definition, and gathers all that is wrong with one that cannot be used."""

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
from stepwell.core.definition.suggestions import in_words_with_cures

_ONLY_STEP = {"step-1": {"path": "file://."}}


class DefinitionError(ValueError):
    """The definition is refused. `problems` lists everything that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = problems


def parse_definition(raw: object, written: Mapping[Pointer, str] | None = None) -> Definition:
    """Read a definition from plain JSON data. `written`: how values that are no text are written, where that is known.
    Raises DefinitionError with all that is wrong, in reading order."""
    if not isinstance(raw, dict):
        raise DefinitionError([Problem((), "the definition must be an object, with an id, triggers and steps")])
    data = _completed(raw)
    definition, errors = _validated(data)
    problems = [problem for problem in map(field_problem, errors) if isinstance(problem, Problem)]
    plain = [(pointer_of(error), error) for error in errors if field_problem(error) is None]
    problems += in_words_with_cures(data, plain, written or {}, _wrong_places)
    problems += contradictions(data)
    if problems or definition is None:
        raise DefinitionError(problems)
    return definition


def _validated(data: Any) -> tuple[Definition | None, list[Any]]:
    """The definition, or pydantic's errors."""
    try:
        return Definition.model_validate(data), []
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
        return None, [error for error in errors if error["type"] != "default_factory_not_called"]


def _wrong_places(data: Any) -> set[Pointer]:
    return {*map(pointer_of, _validated(data)[1]), *(problem.pointer for problem in contradictions(data))}


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a definition, for editors: as strict as reading one, where a schema can say it."""
    return rules.of_model(Definition.model_json_schema(by_alias=True), "Stepwell function")


def _completed(raw: dict[Any, Any]) -> dict[Any, Any]:
    """The definition with the defaults that depend on other fields: the only step, steps' ids, approvals' timeouts."""
    steps = _ONLY_STEP if raw.get("steps") in (None, {}) else raw["steps"]
    if not isinstance(steps, dict):
        return raw
    return {
        **raw,
        "steps": {
            key: {**step, "id": key if step.get("id") is None else step["id"], **_of_approval(step)}
            if isinstance(step, dict)
            else step
            for key, step in steps.items()
        },
    }


def _of_approval(step: dict[Any, Any]) -> dict[str, Any]:
    """The defaults of approvals alone."""
    runtime = step.get("runtime")
    if not isinstance(runtime, dict) or runtime.get("type") != "approval":
        return {}
    own = {"timeout": runtime.get("timeout") or "7d", "retries": {"attempts": 0}}
    if not _is_duration(own["timeout"]):
        del own["timeout"]  # it is refused where it stands, and not here too
    return {name: value for name, value in own.items() if step.get(name) is None}


def _is_duration(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(field_validators.duration(value))
    except ValueError:
        return False
