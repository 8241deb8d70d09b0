"""`/v1/functions/{id}/versions`, `routing`, and the operations promote, rollback, pause, resume and delete.

The rules of each change are in `core.routing.versions`; a platform only stores the result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

import orjson
from starlette.requests import Request

from stepwell.api.http.body import flag, read_object
from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.v1.event_types import TypeRegistry
from stepwell.api.views.routing import (
    PushedView,
    RolledBackView,
    RoutingView,
    VersionList,
    brought_type_view,
    routing_view,
    version_view,
)
from stepwell.core.routing import versions as version_rules
from stepwell.core.routing.guard import RunSample
from stepwell.core.routing.versions import NotPossible, Release, Routing, RoutingChange
from stepwell.reader import FunctionDetail, Reader


@dataclass(frozen=True, slots=True)
class Pushed:
    """A pushed function. `is_new`: the push has made a new version."""

    function_id: str
    version: int
    is_new: bool


_MAX_SAMPLES = 1000  # the newest runs, for failure rates and durations


class Lifecycle(Protocol):
    """Changes the versions of functions. Methods are called from any thread."""

    def read_samples(self, function_id: str, limit: int) -> Sequence[RunSample]:
        """The newest runs that were started by events, newest first, without reruns and replays."""

    def change_routing(self, function_id: str, change: RoutingChange) -> Routing:
        """Changes which versions new runs use, and carries out the consequences. Raises KeyError or NotPossible."""

    def cancel_runs(self, function_id: str) -> None:
        """Cancels the open runs of a function, at once or soon after."""

    def push(self, archive: IO[bytes], release: Release) -> Pushed:
        """Stores and releases the function in a zip archive. Raises Problem or NotPossible."""


_NUMBER = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_WEIGHT = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_PROMOTE = {
    "type": "object",
    "properties": {
        "weight": {**_WEIGHT, "description": "The canary's new share of runs; without it, the canary goes live."}
    },
    "additionalProperties": False,
}
_ROLL_BACK = {
    "type": "object",
    "properties": {"to": {**_NUMBER, "description": "The version to make live; default: the previous one."}},
    "additionalProperties": False,
}
_PAUSE = {
    "type": "object",
    "properties": {"drop": {"type": "boolean", "description": "Discard events instead of keeping them."}},
    "additionalProperties": False,
}
_ROUTING = {
    "type": "object",
    "required": ["canary"],
    "properties": {
        "canary": {
            "type": "object",
            "required": ["version", "weight"],
            "properties": {
                "version": _NUMBER,
                "weight": {**_WEIGHT, "exclusiveMaximum": 1},
                "sticky": {
                    "type": ["string", "null"],
                    "description": "A CEL expression; events with equal values use the same version.",
                },
                "guard": {
                    "type": "boolean",
                    "description": "Raise the weight, or roll back, according to the results of runs.",
                },
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}
_OF = "/v1/functions/{id}"

_ARCHIVE = {"type": "string", "format": "binary", "description": "A zip archive of the function's folder."}
_RELEASE = (
    Parameter("canary", "The version's share of new runs; default: all", {**_WEIGHT, "exclusiveMaximum": 1}),
    Parameter("sticky", "A CEL expression over event, user and data; events with equal values use the same version"),
    Parameter("guard", "Raise the canary's share, or roll back, according to the results of runs", {"type": "boolean"}),
    Parameter("author", "The name of the author"),
    Parameter("message", "A description of the change"),
)

OPERATIONS = (
    Operation("POST", "/v1/functions", "push", "Push a version of a function (not on AWS)",
              PushedView, _RELEASE, status=201, errors=(400, 409, 413), body=_ARCHIVE, media_type="application/zip"),
    Operation("GET", f"{_OF}/versions", "list_versions", "List the versions of a function, newest first", VersionList),
    Operation("GET", f"{_OF}/routing", "get_routing", "Get the versions that new runs use", RoutingView),
    Operation("PUT", f"{_OF}/routing", "put_canary", "Make an existing version the canary, with a share of new runs",
              RoutingView, errors=(409,), body=_ROUTING),
    Operation("POST", f"{_OF}/promote", "promote", "Make the canary live, or change the canary's weight", RoutingView,
              errors=(409,), body=_PROMOTE),
    Operation("POST", f"{_OF}/rollback", "roll_back", "Remove the canary, or make an earlier version live",
              RolledBackView, errors=(409,), body=_ROLL_BACK),
    Operation("POST", f"{_OF}/pause", "pause", "Pause a function; events are kept until it is resumed",
              RoutingView, errors=(409,), body=_PAUSE),
    Operation("POST", f"{_OF}/resume", "resume", "Resume a function; kept events start their runs first",
              RoutingView, errors=(409,)),
    Operation("DELETE", _OF, "delete", "Delete a function, and discard events that were kept", RoutingView,
              (Parameter("cancel", "Cancel open runs", {"type": "boolean", "default": False}),)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RoutingApi:
    reader: Reader
    lifecycle: Lifecycle
    types: TypeRegistry

    def list_versions(self, request: Request) -> VersionList:
        function = self._function(request)
        samples = self.lifecycle.read_samples(function.id, _MAX_SAMPLES)
        views = [version_view(version, function.routing, samples) for version in reversed(function.versions)]
        return {"data": views, "next": None}

    def get_routing(self, request: Request) -> RoutingView:
        function = self._function(request)
        return routing_view(function.id, function.routing)

    def push(self, request: Request) -> PushedView:
        query = request.query_params
        release = Release(
            author=query.get("author", "")[:200],
            message=query.get("message", "")[:2000],
            weight=_number(query.get("canary")),
            sticky=query.get("sticky"),
            guarded=flag(request, "guard"),
        )
        try:
            release.check()
            pushed = self.lifecycle.push(request.state.body, release)
        except NotPossible as reason:
            raise Problem(409, str(reason)) from None
        function = self.reader.read_function(pushed.function_id)
        assert function is not None
        view = routing_view(pushed.function_id, function.routing)
        return {"function_id": pushed.function_id, "version": pushed.version, "is_new": pushed.is_new, "routing": view}

    def put_canary(self, request: Request) -> RoutingView:
        body = read_object(request.state.body, _ROUTING)
        canary = body["canary"]
        number, weight = canary["version"], float(canary["weight"])

        def change(old: Routing, versions: Collection[int], now: int) -> Routing:
            if number not in versions:
                raise NotPossible(f"there is no version {number}")
            if old.live is None:
                raise NotPossible("the function is not live; push it")
            return version_rules.with_canary(old, number, weight, canary.get("sticky"), bool(canary.get("guard")), now)

        return self._change(request, change)

    def promote(self, request: Request) -> RoutingView:
        weight = read_object(request.state.body, _PROMOTE).get("weight")
        return self._change(request, lambda old, versions, now: version_rules.promoted(old, weight, now))

    def roll_back(self, request: Request) -> RolledBackView:
        from stepwell.event_types.impact import event_names  # imported late: it imports the expression checker

        to = read_object(request.state.body, _ROLL_BACK).get("to")
        before = self._function(request)
        view = self._change(request, lambda old, versions, now: version_rules.rolled_back(old, to, versions))
        made_at = next((version.created_at for version in before.versions if version.number == view["live"]), None)
        names = event_names(orjson.loads(before.definition)) if made_at is not None else set()
        found = [brought_type_view(self.types.read_type(name), made_at or 0) for name in sorted(names)]
        return {**view, "types": [item for item in found if item is not None]}

    def pause(self, request: Request) -> RoutingView:
        drop = read_object(request.state.body, _PAUSE).get("drop", False)
        return self._change(request, lambda old, versions, now: version_rules.paused(old, drop=drop))

    def resume(self, request: Request) -> RoutingView:
        return self._change(request, lambda old, versions, now: version_rules.resumed(old))

    def delete(self, request: Request) -> RoutingView:
        cancel = flag(request, "cancel")
        view = self._change(request, lambda old, versions, now: version_rules.deleted(old))
        if cancel:
            self.lifecycle.cancel_runs(view["function_id"])
        return view

    def _function(self, request: Request) -> FunctionDetail:
        function_id = request.path_params["id"]
        function = self.reader.read_function(function_id)
        if function is None:
            raise _unknown(function_id)
        return function

    def _change(self, request: Request, change: RoutingChange) -> RoutingView:
        function_id = request.path_params["id"]
        try:
            return routing_view(function_id, self.lifecycle.change_routing(function_id, change))
        except KeyError:
            raise _unknown(function_id) from None
        except NotPossible as reason:
            raise Problem(409, str(reason)) from None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise Problem(400, f"canary={text} is not a number between 0 and 1, such as 0.1") from None


def _unknown(function_id: str) -> Problem:
    return Problem(404, f"there is no function {function_id!r}")
