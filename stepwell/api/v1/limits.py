"""`/v1/limits`: the limits of functions and groups, who uses and waits for them, and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from typing_extensions import TypedDict

from stepwell.api.http.body import check_object, json_body
from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.paging import found
from stepwell.api.views.models import Time
from stepwell.core.duration import duration_text, parse_duration
from stepwell.core.flow.limits import MAX_LIMIT, MAX_PERIOD_MS
from stepwell.core.plan import Limit
from stepwell.core.times import time_text
from stepwell.event_types.validation import json_pointer


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One key of a limit: the value as JSON (empty: the limit has no key), how many it allows now, how many wait, since
    when the first of them, and when a throttle has room again. Times are in ms since the epoch."""

    key: str
    used: int
    waiting: int
    oldest: int | None
    next_at: int | None


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A limit with the values that apply now, and the keys that are in use, those with the most waiting first.

    `limit` is None if it is not set. `keys_in_use` counts all keys, also those that are left out.
    """

    limit: Limit
    is_set: bool
    keys: Sequence[KeyUse]
    keys_in_use: int


class UnknownLimit(KeyError):
    """There is no limit with this id. `known`: those that there are."""

    def __init__(self, limit_id: str, known: Sequence[str]) -> None:
        super().__init__(limit_id)
        self.known = known


class Limits(Protocol):
    """Reads and sets limits. Methods are called from any thread."""

    def read_limits(self, function: str | None) -> list[LimitUse]:
        """The limits of a function, or all, by id."""

    def set_limits(self, settings: Mapping[str, Mapping[str, int] | None]) -> None:
        """Sets values of limits by id: `limit`, and for throttles `period_ms` and `burst`.

        None: those of the definition apply again. Raises UnknownLimit; then nothing is set."""


class KeyView(TypedDict):
    """`key`: the value of the limit's key; null if it has none. `next_at`: when a throttle allows the next start."""

    key: Any
    used: int
    waiting: int
    oldest: Time | None
    next_at: Time | None


class LimitView(TypedDict):
    """`limit`: the maximum; null if it is not set. `period` and `burst`: of a throttle. `is_set`: whether it has a
    setting, which replaces the definition's values. `keys`: up to 100, those with the most waiting first."""

    id: str
    limit: int | None
    period: str | None
    burst: int
    is_set: bool
    keys: list[KeyView]
    keys_in_use: int


class LimitList(TypedDict):
    data: list[LimitView]
    next: None


_SETTING = {
    "type": ["object", "null"],
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
        "period": {"type": "string", "description": "Of a throttle: a duration, as in 1m."},
        "burst": {"type": "integer", "minimum": 0, "maximum": MAX_LIMIT, "description": "Of a throttle."},
    },
}
_SETTINGS = {
    "type": "object",
    "required": ["limits"],
    "additionalProperties": False,
    "properties": {
        "limits": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": _SETTING,
            "description": "The new values by limit; null: those of the definition apply again.",
        }
    },
}
_FUNCTION = Parameter("function", "Only limits of this function, without groups.")

OPERATIONS = (
    Operation("GET", "/v1/limits", "list_limits", "List limits, with who uses and waits for them (not on AWS)",
              LimitList, (_FUNCTION,)),
    Operation("PUT", "/v1/limits", "set_limits", "Set limits by id; what waits obeys at once (not on AWS)", LimitList,
              body=_SETTINGS),
    Operation("PUT", "/v1/functions/{id}/limits", "set_function_limits",
              "Set limits of a function, such as `concurrency` (not on AWS)", LimitList, body=_SETTINGS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LimitsApi:
    limits: Limits

    def list_limits(self, request: Request) -> LimitList:
        return self._list(request.query_params.get("function"))

    def set_limits(self, request: Request) -> LimitList:
        settings = self._set(request, "")
        return {"data": [view for view in self._list(None)["data"] if view["id"] in settings], "next": None}

    def set_function_limits(self, request: Request) -> LimitList:
        function = request.path_params["id"]
        found(self.limits.read_limits(function) or None, "function with limits", function)
        self._set(request, f"{function}/")
        return self._list(function)

    def _list(self, function: str | None) -> LimitList:
        return {"data": [_view(use) for use in self.limits.read_limits(function)], "next": None}

    def _set(self, request: Request, prefix: str) -> Mapping[str, Mapping[str, int] | None]:
        body = json_body(request.state.body)
        check_object(body, _SETTINGS)
        throttles = {use.limit.id for use in self.limits.read_limits(None) if use.limit.period_ms}
        settings = {
            prefix + name: _setting(name, values, is_throttle=prefix + name in throttles)
            for name, values in body["limits"].items()
        }
        try:
            self.limits.set_limits(settings)
        except UnknownLimit as unknown:
            name = str(unknown.args[0]).removeprefix(prefix)
            known = [limit_id.removeprefix(prefix) for limit_id in unknown.known if limit_id.startswith(prefix)]
            cure = f"the limits are {', '.join(known[:20])}" if known else "no live function has a limit"
            raise Problem(404, f"there is no limit {name[:200]}; {cure}") from None
        return settings


def _setting(name: str, values: Mapping[str, Any] | None, *, is_throttle: bool) -> dict[str, int] | None:
    """The values of a limit as they are stored. Raises Problem."""
    if values is None:
        return None
    stored = {field: int(value) for field, value in values.items() if field != "period"}
    if not is_throttle and (wrong := [field for field in ("period", "burst") if field in values]):
        raise _wrong(name, wrong[0], "only throttles have this field")
    if "period" in values:
        try:
            stored["period_ms"] = parse_duration(values["period"])
        except ValueError as reason:
            raise _wrong(name, "period", str(reason)) from None
        if not 0 < stored["period_ms"] <= MAX_PERIOD_MS:
            raise _wrong(name, "period", "the period is more than 0 and at most 31 days")
    return stored


def _wrong(name: str, field: str, message: str) -> Problem:
    return Problem(400, message, errors=[{"pointer": json_pointer(("limits", name, field)), "message": message}])


def _view(use: LimitUse) -> LimitView:
    limit = use.limit
    return {
        "id": limit.id,
        "limit": limit.limit,
        "period": duration_text(limit.period_ms) if limit.period_ms else None,
        "burst": limit.burst,
        "is_set": use.is_set,
        "keys": [
            {
                "key": orjson.loads(key.key) if key.key else None,
                "used": key.used,
                "waiting": key.waiting,
                "oldest": None if key.oldest is None else time_text(key.oldest),
                "next_at": None if key.next_at is None else time_text(key.next_at),
            }
            for key in use.keys
        ],
        "keys_in_use": use.keys_in_use,
    }
