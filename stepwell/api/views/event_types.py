"""The API's views of event types and of changes to them."""

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
    """An event type.

    `version` is the version of `schema`; in lists, the newest version. `default` is the version for events without `v`.
    If `is_chosen` is true, the default was set explicitly, and stays when newer versions are registered.
    """

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
    """A place in the definition of a live function that does not fit the new version of a type."""

    function_id: str
    pointer: str
    message: str


class TypeChangeView(TypedDict):
    """The result of a registration.

    `breaking` are the differences from the version `compared_with` that make valid events invalid. `affected` are the
    places in live functions that no longer fit. `default` is the version for events without `v` from now on.
    """

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
    """A removed version. `default` is the version for events without `v` now; null if no version is left."""

    name: str
    removed: str
    default: str | None


class SettingsView(TypedDict):
    unknown_types: PolicyName


def change_view(change: TypeChange, schema: Any, functions: Iterable[Mapping[str, Any]]) -> TypeChangeView:
    """The view of a registration, with the places in the definitions of live functions that it affects."""
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
    from stepwell.event_types.impact import affected, breaking  # imported late: it imports the expression checker

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
