"""`/v1/types` and `/v1/settings`: event types, and the policies for events that do not match their schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.requests import Request

from stepwell.api.http.body import flag, read_object
from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.views.event_types import (
    RemovedVersionView,
    SettingsView,
    TypeChangeList,
    TypeChangeView,
    TypeList,
    TypeView,
    change_view,
    type_view,
)
from stepwell.core.definition.problems import nearest
from stepwell.event_types.changes import UnknownVersion, version_of
from stepwell.event_types.registry import Policy, TypeChange, TypeDetail, TypeRefused, TypeVersion
from stepwell.event_types.validation import json_pointer
from stepwell.reader import FunctionDetail


class TypeRegistry(Protocol):
    """The event types that the API reads and changes. Methods are called from any thread."""

    def read_types(self) -> list[TypeDetail]:
        """All types, ordered by name."""

    def read_type(self, name: str) -> TypeDetail | None: ...

    def read_schema(self, name: str, version: str) -> Any: ...

    def register_types(self, types: Sequence[TypeVersion], *, dry_run: bool = False) -> list[TypeChange]:
        """Registers all versions or none, and returns the changes. With `dry_run`, nothing is stored. Raises
        TypeRefused."""

    def choose_default(self, name: str, version: str | None) -> None:
        """Sets the version for events without `v`; None: always the newest. Raises KeyError or UnknownVersion."""

    def remove_version(self, name: str, version: str, carried_by: Iterable[str]) -> None:
        """Removes a version. `carried_by` are the live functions whose triggers contain it.

        Raises KeyError, UnknownVersion or TypeRefused.
        """

    def set_policy(self, name: str, policy: Policy) -> bool:
        """Sets the policy of a type. Returns False if there is no such type."""

    def unknown_types(self) -> Policy:
        """The policy for events whose names have no type."""

    def set_unknown_types(self, policy: Policy) -> None: ...


_POLICY = {"enum": [policy.value for policy in Policy]}
_REGISTRATION = {
    "type": "object",
    "required": ["name", "version", "schema"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "The events' name.", "examples": ["order/placed"]},
        "version": {
            "type": "string",
            "maxLength": 128,
            "description": "The `v` of the events.",
            "examples": ["2026-11-23.1"],
        },
        "schema": {"type": ["object", "boolean"], "description": "A JSON Schema 2020-12."},
        "policy": _POLICY,
        "may_break": {
            "type": "boolean",
            "default": True,
            "description": "Whether the version may become the default if it rejects events that are valid now.",
        },
    },
}
_REGISTRATIONS = {
    "type": "object",
    "required": ["types"],
    "additionalProperties": False,
    "properties": {"types": {"type": "array", "items": _REGISTRATION, "maxItems": 2000}},
}
_TYPE_CHANGE = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "policy": _POLICY,
        "default": {
            "type": ["string", "null"],
            "description": "The version for events without `v`, also if newer ones are registered; null: the newest.",
        },
    },
}
_SETTINGS = {
    "type": "object",
    "required": ["unknown_types"],
    "additionalProperties": False,
    "properties": {"unknown_types": {**_POLICY, "description": "The policy for events whose name has no type."}},
}

OPERATIONS = (
    Operation("GET", "/v1/types", "list_types", "List event types", TypeList),
    Operation("POST", "/v1/types", "register_type", "Register a version of a type", TypeChangeView, errors=(409,),
              body=_REGISTRATION),
    Operation("PUT", "/v1/types", "register_types", "Register versions of types, all or none", TypeChangeList,
              (Parameter("dry_run", "Return the changes without storing them", {"type": "boolean", "default": False}),),
              errors=(409,), body=_REGISTRATIONS),
    Operation("GET", "/v1/types/{id}", "get_type", "Get a type, by the name of the events", TypeView,
              (Parameter("version", "The version of the schema to return; default: the default version"),)),
    Operation("PATCH", "/v1/types/{id}", "change_type", "Change the policy or the default version of a type", TypeView,
              body=_TYPE_CHANGE),
    Operation("DELETE", "/v1/types/{id}", "remove_version", "Remove a version of a type", RemovedVersionView,
              (Parameter("version", "The version to remove", is_required=True),), errors=(409,)),
    Operation("GET", "/v1/settings", "get_settings", "Get the server's settings", SettingsView),
    Operation("PUT", "/v1/settings", "put_settings", "Change the server's settings", SettingsView, body=_SETTINGS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TypesApi:
    registry: TypeRegistry
    read_functions: Callable[[], list[FunctionDetail]]

    def list_types(self, request: Request) -> Any:
        return {"data": [type_view(type_detail) for type_detail in self.registry.read_types()], "next": None}

    def get_type(self, request: Request) -> Any:
        type_detail = self._found(request)
        version = request.query_params.get("version", type_detail.default)
        if version not in dict(type_detail.versions):
            hint = nearest(version, [v for v, _ in type_detail.versions])
            raise Problem(404, f"{type_detail.name} has no version {version!r}; {hint}")
        return {
            **type_view(type_detail),
            "version": version,
            "schema": self.registry.read_schema(type_detail.name, version),
        }

    def register_type(self, request: Request) -> Any:
        body = read_object(request.state.body, _REGISTRATION)
        (change,) = self._register([body], [""], dry_run=False)
        return change

    def register_types(self, request: Request) -> Any:
        types = read_object(request.state.body, _REGISTRATIONS)["types"]
        places = [f"/types/{i}" for i in range(len(types))]
        return {"data": self._register(types, places, dry_run=flag(request, "dry_run")), "next": None}

    def _register(self, bodies: Sequence[Mapping[str, Any]], places: Sequence[str], dry_run: bool) -> list[Any]:
        """Registers types. `places` are the JSON pointers of the bodies in the request."""
        types = [_registration(body) for body in bodies]
        try:
            changes = self.registry.register_types(types, dry_run=dry_run)
        except TypeRefused as refused:
            at = next(
                (place for version, place in zip(types, places, strict=True) if version is refused.version), places[0]
            )
            errors = [{"pointer": f"{at}/schema{json_pointer(p.pointer)}", "message": p.message}
                      for p in refused.problems]  # fmt: skip
            status = 409 if refused.is_conflict else 400
            raise Problem(status, str(refused), errors=errors or [{"pointer": at, "message": str(refused)}]) from None
        live = [orjson.loads(f.definition) for f in self.read_functions()] if changes else []
        return [change_view(change, version.schema, live) for change, version in zip(changes, types, strict=True)]

    def change_type(self, request: Request) -> Any:
        body = read_object(request.state.body, _TYPE_CHANGE)
        type_detail = self._found(request)
        try:
            if "default" in body:
                self.registry.choose_default(type_detail.name, body["default"])
        except UnknownVersion as unknown:
            raise Problem(404, str(unknown)) from None
        if "policy" in body:
            self.registry.set_policy(type_detail.name, Policy(body["policy"]))
        return type_view(self._found(request))

    def remove_version(self, request: Request) -> Any:
        version = request.query_params.get("version")
        if version is None:
            raise Problem(400, "the version to remove is missing; add ?version=")
        type_detail = self._found(request)
        live = (orjson.loads(function.definition) for function in self.read_functions() if function.version is not None)
        carriers = [definition["id"] for definition in live if _carries(definition, type_detail.name, version)]
        try:
            self.registry.remove_version(type_detail.name, version, carriers)
        except UnknownVersion as unknown:
            raise Problem(404, str(unknown)) from None
        except TypeRefused as refused:
            raise Problem(409, str(refused)) from None
        left = self.registry.read_type(type_detail.name)
        return {"name": type_detail.name, "removed": version, "default": left.default if left else None}

    def get_settings(self, request: Request) -> Any:
        return {"unknown_types": self.registry.unknown_types()}

    def put_settings(self, request: Request) -> Any:
        self.registry.set_unknown_types(Policy(read_object(request.state.body, _SETTINGS)["unknown_types"]))
        return self.get_settings(request)

    def _found(self, request: Request) -> TypeDetail:
        name = request.path_params["id"]
        type_detail = self.registry.read_type(name)
        if type_detail is None:
            raise Problem(404, f"no type is registered for {name!r}; `stepwell types push` registers one")
        return type_detail


def _registration(body: Mapping[str, Any]) -> TypeVersion:
    policy = Policy(body["policy"]) if "policy" in body else None
    return TypeVersion(body["name"], body["version"], body["schema"], policy, body.get("may_break", True))


def _carries(definition: Mapping[str, Any], name: str, version: str) -> bool:
    """Whether a trigger of a function contains this version of a type."""
    own = [t["definition"]["def"] for t in definition["triggers"] if t.get("event") == name and "definition" in t]
    return any(version_of(schema) == version for schema in own)
