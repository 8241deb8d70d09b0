"""What the API shows of event types, and of what changes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from stepwell.api.views.models import Time
from stepwell.core.times import time_text
from stepwell.event_types.registry import TypeChange, TypeDetail
from stepwell.event_types.validation import json_pointer

PolicyName = Literal["reject", "warn", "off"]


class TypeVersionView(TypedDict):
    version: str
    created_at: Time


class TypeView(TypedDict):
    """`version`: the newest, or in the view of one type the one that `schema` is of. `default`: the version that counts
    for events without `v`; `is_chosen`: whether somebody chose it, so that it stays when newer ones come."""

    name: str
    policy: PolicyName
    version: str
    default: str
    is_chosen: bool
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
    right are no longer; `affected`: what live functions ask of such events that no longer fits. `default`: the version
    that counts for events without `v` from now on."""

    name: str
    version: str
    policy: PolicyName
    change: Literal["created", "updated", "unchanged"]
    compared_with: str | None
    default: str
    breaking: list[SchemaProblemView]
    affected: list[AffectedView]


class TypeChangeList(TypedDict):
    data: list[TypeChangeView]
    next: None


class RemovedVersionView(TypedDict):
    """`default`: the version that counts for events without `v` now; null if the type is gone with its last version."""

    name: str
    removed: str
    default: str | None


class SettingsView(TypedDict):
    unknown_types: PolicyName


def change_view(change: TypeChange, schema: Any, functions: Iterable[Mapping[str, Any]]) -> TypeChangeView:
    """What a registration did, with what it means for the definitions of live functions."""
    view: TypeChangeView = {
        "name": change.name,
        "version": change.version,
        "policy": change.policy.value,
        "change": change.what,
        "compared_with": change.before_version,
        "default": change.default,
        "breaking": [],
        "affected": [],
    }
    if change.what == "unchanged" or change.before is None:
        return view
    from stepwell.event_types.impact import affected, breaking  # with what checks expressions

    for problem in breaking(change.before, schema):
        view["breaking"].append({"pointer": json_pointer(problem.pointer), "message": problem.message})
    if view["breaking"]:
        for function_id, problem in affected(functions, change.name, change.before, schema):
            pointer = json_pointer(problem.pointer)
            view["affected"].append({"function_id": function_id, "pointer": pointer, "message": problem.message})
    return view


def type_view(type_detail: TypeDetail) -> TypeView:
    return {
        "name": type_detail.name,
        "policy": type_detail.policy.value,
        "version": type_detail.versions[-1][0],
        "default": type_detail.default,
        "is_chosen": type_detail.chosen is not None,
        "versions": [{"version": version, "created_at": time_text(at)} for version, at in type_detail.versions],
    }
