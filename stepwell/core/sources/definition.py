"""Checks the definition of a source, and makes the JSON Schema of sources for editors.

As with webhooks, plain data is stored and used. Reading it back (`core.sources.source`) needs no pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stepwell.core.cel.expressions import Scope
from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.definition import DefinitionError
from stepwell.core.definition.fields import names_of
from stepwell.core.definition.problems import Pointer, Problem, nearest
from stepwell.core.definition.suggestions import problems_with_fixes
from stepwell.core.rules.checks import rule_problems
from stepwell.core.sources.types import TYPES, Source


def parse_source(raw: object, name: str, written: Mapping[Pointer, str] | None = None) -> dict[str, Any]:
    """The source with this name in its stored form, from plain JSON data. Raises DefinitionError with all problems.

    `written`: as for `parse_definition`.
    """
    if not isinstance(raw, dict):
        raise DefinitionError([Problem((), "a source must be an object that has at least a `type`")])
    model = _model_of(raw)
    source, errors = _validated(model, raw)
    problems = [problem for error in errors if (problem := _of_name(model, error)) is not None]
    plain = [(error["loc"], error) for error in errors if _of_name(model, error) is None]
    problems += problems_with_fixes(raw, plain, written or {}, lambda data: _wrong_places(data, name))
    problems += rule_problems(raw, name, Scope.RECORD, "source")
    if problems or source is None:
        raise DefinitionError(problems)
    return {"name": name, **source.model_dump(by_alias=True, exclude_none=True, exclude={"schema_", "name"})}


def _model_of(raw: dict[Any, Any]) -> type[Source]:
    kind = raw.get("type")
    if kind is None:
        listed = ", ".join(TYPES)
        raise DefinitionError([Problem((), f"`type` is missing; add this field: the kind of broker, one of {listed}")])
    model = TYPES.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise DefinitionError([Problem(("type",), f"type: unknown type {kind!r:.100}; {nearest(str(kind), [*TYPES])}")])
    return model


def _validated(model: type[Source], raw: Any) -> tuple[Source | None, list[Any]]:
    """The source and no errors, or None and pydantic's errors."""
    try:
        return model.model_validate(raw), []
    except ValidationError as refused:
        return None, list(refused.errors(include_url=False))


def _wrong_places(raw: Any, name: str) -> set[Pointer]:
    errors = _validated(_model_of(raw), raw)[1]
    problems = rule_problems(raw, name, Scope.RECORD, "source")
    return {*(error["loc"] for error in errors), *(problem.pointer for problem in problems)}


def _of_name(model: type[Source], error: Any) -> Problem | None:
    """The problem, if the error is about the name of a field; None if it is about a value."""
    pointer = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            names = names_of(model) if len(pointer) == 1 else []
            hint = f"; {nearest(str(pointer[-1]), names)}" if names else "; remove it"
            return Problem(pointer, f"unknown field `{str(pointer[-1])[:100]}`{hint}")
        case "missing":
            field = model.model_fields.get(str(pointer[-1])) if len(pointer) == 1 else None
            about = f": {field.description}" if field is not None else ""
            return Problem(pointer, f"`{pointer[-1]}` is missing; add this field{about}")
    return None


def warnings(source: dict[str, Any]) -> list[Problem]:
    """The parts of a source that are allowed, but probably a mistake."""
    if "event" not in source:
        message = "the source has no `event`, so records that are not CloudEvents go to the quarantine"
        return [Problem((), message)]
    return []


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a source, for editors: one branch for each type."""
    branches: dict[str, Any] = {}
    for kind, model in TYPES.items():
        one = rules.of_model(
            model.model_json_schema(by_alias=True, ref_template=f"#/$defs/{kind}/$defs/{{model}}"), kind
        )
        one["properties"]["name"]["anyOf"][0].pop("default", None)
        one["properties"]["name"].pop("default", None)
        one.pop("$schema")
        branches[kind] = one
    return {
        "$schema": rules.DIALECT,
        "title": "Stepwell source",
        "description": "How events are created from the records of another queue. CEL expressions can use `body`,"
        " `headers`, `key`, `attributes`, `timestamp` and the place of the record.",
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": [*TYPES]}},
        "allOf": [
            {
                "if": {"required": ["type"], "properties": {"type": {"const": kind}}},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind in TYPES
        ],
        "$defs": branches,
    }
