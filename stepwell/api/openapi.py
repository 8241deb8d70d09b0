"""Generates the OpenAPI 3.1 document from the table of operations and the response models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell import __version__
from stepwell.api.views import models
from stepwell.core.events.request import MAX_EVENTS

_REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    description: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and method. `handler` is the name of the method that handles it, `answer` the response model."""

    method: str
    path: str
    handler: str
    summary: str
    answer: Any
    query: tuple[Parameter, ...] = ()
    status: int = 200
    errors: tuple[int, ...] = ()
    media_type: str = "application/json"  # of the request body; for any other type the handler gets a file
    body: Any = None  # the JSON Schema of the request body, if any; the body is passed in `request.state.body`
    needs_body: bool = True
    is_public: bool = False  # no API key is needed
    is_alias: bool = False  # an older path of another operation; left out of the document


_EVENT = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 256, "examples": ["user/signed.up"]},
        "data": {"type": ["object", "null"]},
        "user": {"type": ["object", "null"]},
        "id": {
            "type": ["string", "null"],
            "maxLength": 256,
            "description": "An event with the same id is accepted only once, for at least 24 h.",
        },
        "ts": {"type": ["integer", "null"], "description": "The time of the event, in milliseconds since the epoch."},
        "v": {"type": ["string", "null"], "description": "The version of the event's type."},
    },
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document, as JSON data."""
    from pydantic import TypeAdapter  # imported late, because it is slow and only this document needs it

    operations = [operation for operation in operations if not operation.is_alias]
    shapes = [*{operation.answer for operation in operations}, models.Accepted, models.ProblemView, models.Health]
    inputs = [
        (shape, "serialization", TypeAdapter(shape)) for shape in sorted(shapes, key=lambda shape: shape.__name__)
    ]
    _, schemas = TypeAdapter.json_schemas(inputs, ref_template=_REF)  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {
        "/e/{key}": {"post": _send([_path_parameter("key")])},
        "/e": {"post": _send([])},
        "/healthz": {
            "get": {
                "summary": "Get the health of the server",
                "operationId": "health",
                "responses": {
                    "200": _answer(
                        "The server is running; `status` shows whether definitions are broken", models.Health
                    )
                },
            }
        },
    }
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    paths["/webhooks/{name}"] = {"post": _receive()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stepwell", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], "Event": _EVENT},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(operation: Operation) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", operation.path)
    parameters = [_path_parameter(name) for name in names]
    parameters += [_query_parameter(parameter) for parameter in operation.query]
    errors = {*operation.errors} if operation.is_public else {401, 403, *operation.errors}
    errors |= {404} if names else set()
    errors |= {400} if operation.query else set()
    errors |= {400, 413} if operation.body is not None else set()
    return {
        "summary": operation.summary,
        "operationId": operation.handler,
        "parameters": parameters,
        **({"security": []} if operation.is_public else {}),
        **({} if operation.body is None else {"requestBody": _request(operation)}),
        "responses": {
            str(operation.status): _answer(operation.summary, operation.answer),
            **{str(status): _problem() for status in sorted(errors)},
        },
    }


def _send(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    ref = {"$ref": _REF.format(model="Event")}
    schema = {"oneOf": [ref, {"type": "array", "items": ref, "minItems": 1, "maxItems": MAX_EVENTS}]}
    return {
        "summary": "Send one event or several; answered when they are durable",
        "operationId": "send_with_key" if parameters else "send",
        "parameters": parameters,
        "requestBody": _body(schema),
        "responses": {
            "200": _answer("The ids, in the order of the events", models.Accepted),
            **{str(status): _problem() for status in (400, 401, 413, 415, 503)},
        },
    }


def _receive() -> dict[str, Any]:
    types = ("application/json", "application/x-www-form-urlencoded", "text/plain")
    anything: dict[str, Any] = {media_type: {"schema": {}} for media_type in types}
    return {
        "summary": "Receive a webhook request of any sender; a rule turns it into an event",
        "operationId": "receive",
        "parameters": [_path_parameter("name")],
        "requestBody": {"content": anything},
        "responses": {
            "200": _answer("The event's id; no id if the rule ignores the request", models.Accepted),
            **{str(status): _problem() for status in (400, 401, 404, 413, 422, 503)},
        },
        "security": [],
    }


def _request(operation: Operation) -> dict[str, Any]:
    return {**_body(operation.body, operation.media_type), "required": operation.needs_body}


def _body(schema: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {"required": True, "content": {media_type: {"schema": schema}}}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    required = {"required": True} if parameter.is_required else {}
    return {
        "name": parameter.name, "in": "query", **required,
        "description": parameter.description, "schema": parameter.schema,
    }  # fmt: skip


def _answer(description: str, model: Any) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem() -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="ProblemView")}
    return {
        "description": "A problem document with the reason",
        "content": {"application/problem+json": {"schema": schema}},
    }
