"""`/v1/types` and `/v1/settings`: the types of events, and what becomes of events that are not as their types say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, Protocol

import orjson
from starlette.requests import Request
from typing_extensions import TypedDict

from stepwell.api.body import read_object
from stepwell.api.models import Time
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.problem import Problem
from stepwell.core.problems import nearest
from stepwell.core.times import time_text
from stepwell.event_types.types import Change, Policy, Refused, TypeDetail, TypeVersion
from stepwell.event_types.validation import json_pointer
from stepwell.platform import FunctionDetail


class TypeRegistry(Protocol):
    """What the API reads and changes of types; called from any thread."""

    def read_types(self) -> list[TypeDetail]:
        """All, by name."""

    def read_type(self, name: str) -> TypeDetail | None: ...

    def read_schema(self, name: str, version: str) -> Any: ...

    def register_type(self, its: TypeVersion) -> Change:
        """Raises event_types.types.Refused."""

    def set_policy(self, name: str, policy: Policy) -> bool:
        """False if there is no such type."""

    def unknown_types(self) -> Policy:
        """What becomes of events whose names have no type."""

    def set_unknown_types(self, policy: Policy) -> None: ...


# --- shapes ----------------------------------------------------------------------------------------------------------

PolicyName = Literal["reject", "warn", "off"]


class TypeVersionView(TypedDict):
    version: str
    created_at: Time


class TypeView(TypedDict):
    """`schema`: that of `version`, in the view of one type."""

    name: str
    policy: PolicyName
    version: str
    versions: list[TypeVersionView]
    schema: NotRequired[Any]


class TypeList(TypedDict):
    data: list[TypeView]
    next: None


class SchemaProblemView(TypedDict):
    pointer: str
    message: str


class AffectedView(TypedDict):
    """A place in a live function's definition that the type's new version is no longer right for."""

    function_id: str
    pointer: str
    message: str


class TypeChangeView(TypedDict):
    """What a registration did. `breaking`: how the version differs from `compared_with`, so that events which were
    right are no longer; `affected`: what live functions ask of such events that no longer fits."""

    name: str
    version: str
    policy: PolicyName
    change: Literal["created", "updated", "unchanged"]
    compared_with: str | None
    breaking: list[SchemaProblemView]
    affected: list[AffectedView]


class SettingsView(TypedDict):
    unknown_types: PolicyName


_POLICY = {"enum": [policy.value for policy in Policy]}
_REGISTRATION = {
    "type": "object",
    "required": ["name", "version", "schema"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "of the events", "examples": ["order/placed"]},
        "version": {"type": "string", "maxLength": 128, "description": "v of the events", "examples": ["2026-11-23.1"]},
        "schema": {"type": ["object", "boolean"], "description": "JSON Schema 2020-12"},
        "policy": _POLICY,
    },
}
_NEW_POLICY = {
    "type": "object", "required": ["policy"], "additionalProperties": False, "properties": {"policy": _POLICY}
}  # fmt: skip
_SETTINGS = {
    "type": "object",
    "required": ["unknown_types"],
    "additionalProperties": False,
    "properties": {"unknown_types": {**_POLICY, "description": "for events whose names have no type"}},
}

OPERATIONS = (
    Operation("GET", "/v1/types", "list_types", "The types of events", TypeList),
    Operation("POST", "/v1/types", "register_type", "Register a version of a type", TypeChangeView, errors=(409,),
              body=_REGISTRATION),
    Operation("GET", "/v1/types/{id}", "get_type", "A type, by the name of its events", TypeView,
              (Parameter("version", "whose schema to show; default: the newest"),)),
    Operation("PATCH", "/v1/types/{id}", "change_type", "Change what becomes of wrong events of a type", TypeView,
              body=_NEW_POLICY),
    Operation("GET", "/v1/settings", "get_settings", "The server's settings", SettingsView),
    Operation("PUT", "/v1/settings", "put_settings", "Change the server's settings", SettingsView, body=_SETTINGS),
)  # fmt: skip


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypesApi:
    registry: TypeRegistry
    read_functions: Callable[[], list[FunctionDetail]]

    def list_types(self, request: Request) -> Any:
        return {"data": [_view(its) for its in self.registry.read_types()], "next": None}

    def get_type(self, request: Request) -> Any:
        its = self._found(request)
        version = request.query_params.get("version", its.versions[-1][0])
        if version not in dict(its.versions):
            hint = nearest(version, [v for v, _ in its.versions])
            raise Problem(404, f"{its.name} has no version {version!r}; {hint}")
        return {**_view(its), "version": version, "schema": self.registry.read_schema(its.name, version)}

    def register_type(self, request: Request) -> Any:
        body = read_object(request.state.body, _REGISTRATION)
        policy = Policy(body["policy"]) if "policy" in body else None
        try:
            change = self.registry.register_type(TypeVersion(body["name"], body["version"], body["schema"], policy))
        except Refused as refused:
            errors = [{"pointer": f"/schema{json_pointer(p.pointer)}", "message": p.message} for p in refused.problems]
            status = 409 if refused.is_conflict else 400
            raise Problem(status, str(refused), errors=errors or [{"pointer": "", "message": str(refused)}]) from None
        return change_view(change, body["schema"], [orjson.loads(f.definition) for f in self.read_functions()])

    def change_type(self, request: Request) -> Any:
        policy = Policy(read_object(request.state.body, _NEW_POLICY)["policy"])
        its = self._found(request)
        self.registry.set_policy(its.name, policy)
        return _view(self._found(request))

    def get_settings(self, request: Request) -> Any:
        return {"unknown_types": self.registry.unknown_types()}

    def put_settings(self, request: Request) -> Any:
        self.registry.set_unknown_types(Policy(read_object(request.state.body, _SETTINGS)["unknown_types"]))
        return self.get_settings(request)

    def _found(self, request: Request) -> TypeDetail:
        name = request.path_params["id"]
        its = self.registry.read_type(name)
        if its is None:
            raise Problem(404, f"no type is registered for {name!r}; `stepwell types push` registers one")
        return its


def change_view(change: Change, schema: Any, functions: Iterable[Mapping[str, Any]]) -> TypeChangeView:
    """What a registration did, with what it means for the definitions of live functions."""
    view: TypeChangeView = {
        "name": change.name,
        "version": change.version,
        "policy": change.policy.value,
        "change": change.what,
        "compared_with": change.before_version,
        "breaking": [],
        "affected": [],
    }
    if change.what == "unchanged" or change.before is None:
        return view
    from stepwell.event_types.impact import affected, breaking  # with what checks expressions

    for its in breaking(change.before, schema):
        view["breaking"].append({"pointer": json_pointer(its.pointer), "message": its.message})
    if view["breaking"]:
        for function_id, its in affected(functions, change.name, change.before, schema):
            pointer = json_pointer(its.pointer)
            view["affected"].append({"function_id": function_id, "pointer": pointer, "message": its.message})
    return view


def _view(its: TypeDetail) -> TypeView:
    return {
        "name": its.name,
        "policy": its.policy.value,
        "version": its.versions[-1][0],
        "versions": [{"version": version, "created_at": time_text(at)} for version, at in its.versions],
    }
