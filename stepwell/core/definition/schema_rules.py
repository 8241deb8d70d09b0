"""The patterns and the rules across fields that the JSON Schemas for editors have besides the models.

A schema must accept every valid definition. It cannot express some rules, which only `stepwell validate` checks: that
a step's id equals the key, that the step in `after` exists, and whether expressions are correct.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stepwell.core.definition import field_validators

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_CONTROL = r"\u0000-\u001f\u007f-\u009f"


def whole(pattern: str) -> str:
    """A pattern that matches the whole text. In some languages, `$` also matches before a final newline."""
    return f"{pattern}(?!\\n)" if pattern.endswith("$") else pattern


def keys(pattern: str) -> Schema:
    """A schema whose objects have only field names that match a pattern."""
    return {"propertyNames": {"pattern": whole(pattern)}}


DURATION = whole(r"^(?!(0+(\.0+)?(ms|s|m|h|d|w))+$)([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$")
EXACT_EVENT = whole(rf"^(?! )[^*{_CONTROL}]*[^* {_CONTROL}]$")
SENT_EVENT = whole(rf"^(?! )(?!stepwell/)[^*{_CONTROL}]*[^* {_CONTROL}]$")
EVENT_PATTERN = whole(rf"^(?! )(?!stepwell/.*\*$)[^*{_CONTROL}]*(\*|[^* {_CONTROL}])$")
PATH = r"^$|^file://(?!/)(?!(\.?/+)*\.\.(/|$))[^\u0000]*$"
FILE = r"^file://(?!/)(?!(\.?/+)*\.\.(/|$))(?!.*\.cue$)[^\u0000]*$"
PLAIN = r"^[^\u0000]*$"
URL = r"^[hH][tT][tT][pP][sS]?://[^/?# ][^\u0000-\u0020\u007f-\u009f]*$"
ADDRESS = rf"{field_validators.ADDRESS}[^\u0000-\u0020\u007f-\u009f]*(?![\s\S])"
ONE_LINE = whole(rf"^(?! )[^{_CONTROL}]*[^ {_CONTROL}]$")
HEADER_VALUE = whole(r"^[\u0020-\u007e]*$")
HANDLER = whole(rf"^(?!.*\.\.)(?!.*//){field_validators.HANDLER[1:]}")
WASM_MODULE = whole(rf"^(?!.*\.\.)(?!.*//){field_validators.WASM_MODULE[1:]}")
CRON = r"^\s*\S+(\s+\S+){4}\s*$"

_NULL: Schema = {"type": "null"}


def given(*names: str) -> Schema:
    """A schema that requires these fields with a value: null counts as absent."""
    return {"required": list(names), "properties": {name: {"not": _NULL} for name in names}}


def _not_given(*names: str) -> Schema:
    return {"properties": dict.fromkeys(names, _NULL)}


def _no_two_of(*names: str) -> list[Schema]:
    return [given(one, other) for i, one in enumerate(names) for other in names[i + 1 :]]


def _runtime(kind: str, *fields: str) -> Schema:
    """A schema that requires a step's runtime to have this type and these fields."""
    values = given("type", *fields)
    values["properties"]["type"] = {"const": kind}
    return {"required": ["runtime"], "properties": {"runtime": {"type": "object", **values}}}


TRIGGER: Schema = {
    "oneOf": [
        {**given("event"), "allOf": [_not_given("cron", "timezone")]},
        {**given("cron"), "allOf": [_not_given("event", "expression", "definition")]},
    ],
    "if": given("event", "definition"),
    "then": {"properties": {"event": {"pattern": r"[^*]$"}}},
}
OF_OWN_LAMBDA = ("ephemeral_storage", "layers", "vpc", "tracing")  # not allowed with `arn`
LAMBDA: Schema = {
    "not": {"anyOf": [*_no_two_of("command", "handler", "arn"), *(given("arn", name) for name in OF_OWN_LAMBDA)]}
}
_NEEDS_NO_PATH = [
    _runtime("http"),
    _runtime("approval"),
    _runtime("celery"),
    _runtime("faktory"),
    _runtime("emit"),
    _runtime("lambda", "arn"),
    _runtime("docker", "image"),
]
_HAS_PATH: Schema = {"required": ["path"], "properties": {"path": {"type": "string", "minLength": 1}}}
_NO_CODE: Schema = {"path": {"enum": [None, ""]}, "env": {"maxProperties": 0}, "secrets": {"maxItems": 0}}
_OF_APPROVAL: Schema = {
    "properties": {
        **_NO_CODE,
        "retries": {
            "anyOf": [
                _NULL,
                {"maxProperties": 0},
                {"required": ["attempts"], "properties": {"attempts": {"const": 0}}},
            ]
        },
    }
}
_OF_EMIT: Schema = {"properties": {**_OF_APPROVAL["properties"], "timeout": {"enum": [None, "15m"]}}}
STEP: Schema = {
    "anyOf": [_HAS_PATH, *_NEEDS_NO_PATH],
    "allOf": [
        {"if": _runtime("approval"), "then": _OF_APPROVAL},
        {"if": _runtime("emit"), "then": _OF_EMIT},
        {"if": _runtime("faktory"), "then": {"properties": _NO_CODE}},
    ],
}
EDGE: Schema = {"if": {"properties": {"step": {"const": "$trigger"}}, "required": ["step"]}, "then": _not_given("on")}
TIMEOUTS: Schema = {"anyOf": [given("start"), given("finish")]}
EVENT_DEFINITION: Schema = {
    "if": {"properties": {"format": {"const": "cue"}}, "required": ["format"]},
    "then": {"properties": {"def": {"type": "string", "minLength": 1}}},
    "else": {"properties": {"def": {"anyOf": [{"type": "object"}, {"type": "string", "pattern": FILE}]}}},
}


def of_verify(only: Mapping[str, Collection[str]]) -> Schema:
    """The rules across the fields of a webhook's `verify`.

    `only`: fields that not all types have, with the types that have them.
    """
    return {
        "allOf": [
            *(
                {"if": given(field), "then": {"properties": {"type": {"enum": sorted(kinds)}}}}
                for field, kinds in only.items()
            ),
            {
                "if": {"properties": {"type": {"const": "sns"}}, "required": ["type"]},
                "then": _not_given("secret", "header"),
                "else": given("secret"),
            },
            {"if": {"properties": {"type": {"const": "hmac"}}, "required": ["type"]}, "then": given("header")},
            {"if": {"properties": {"type": {"const": "token"}}}, "then": {"not": given("header", "query")}},
            {"if": given("timestamp"), "then": given("over")},
            {"if": {"properties": {"confirm": {"const": True}}, "required": ["confirm"]}, "then": given("topics")},
        ]
    }


def of_model(model: Schema, title: str) -> Schema:
    """The JSON Schema of a model, from the one that pydantic generates. It accepts null for optional fields."""
    for item in (model, *model.get("$defs", {}).values()):
        for name, field in item.get("properties", {}).items():
            if name not in item.get("required", ()):
                item["properties"][name] = _or_null(field)
    return {"$schema": DIALECT, **model, "title": title}


def _or_null(field: Schema) -> Schema:
    """The schema of a field that may also be null, which means absent."""
    if any(branch == _NULL for branch in field.get("anyOf", ())):
        return field
    about: Schema = {key: field[key] for key in ("default", "description", "examples", "title") if key in field}
    return {"anyOf": [{key: value for key, value in field.items() if key not in about}, _NULL], **about}
