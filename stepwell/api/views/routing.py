"""The API's views of a function's versions and routing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from stepwell.api.views.models import Time
from stepwell.core.routing.guard import RunSample, percentile
from stepwell.core.routing.versions import Routing
from stepwell.core.run.run import RunStatus
from stepwell.core.times import time_text
from stepwell.event_types.registry import TypeDetail
from stepwell.reader import VersionDetail


class CanaryView(TypedDict):
    """A second version that gets a share of the new runs. `since` is the time at which the weight was set."""

    version: int
    weight: float
    sticky: str | None
    guarded: bool
    since: Time


class RoutingView(TypedDict):
    function_id: str
    live: int | None
    canary: CanaryView | None
    state: Literal["on", "paused", "dropping", "deleted"]


class BroughtTypeView(TypedDict):
    """A type whose default version is newer than the function's version that is live again, and may not fit it.

    `before` is the version of the type that was the newest at that time.
    """

    name: str
    version: str
    before: str


class RolledBackView(RoutingView):
    """The routing after a rollback. `types` are newer types of events that the function uses; they are not rolled
    back."""

    types: list[BroughtTypeView]


class VersionStatsView(TypedDict):
    """A version, with statistics of the newest 1,000 runs of the function.

    `runs` is the number of runs of this version, `failure_rate` the share of ended runs that failed, `p50_ms` and
    `p95_ms` are durations of completed runs. `weight` is the version's share of new runs.
    """

    version: int
    weight: float
    runs: int
    failure_rate: float | None
    p50_ms: int | None
    p95_ms: int | None
    author: str
    message: str
    hash: str
    created_at: Time


class PushedView(TypedDict):
    function_id: str
    version: int
    is_new: bool
    routing: RoutingView


class VersionList(TypedDict):
    data: list[VersionStatsView]
    next: None


def routing_view(function_id: str, routing: Routing) -> RoutingView:
    canary = routing.canary
    return {
        "function_id": function_id,
        "live": routing.live,
        "canary": None
        if canary is None
        else {
            "version": canary.version,
            "weight": canary.weight,
            "sticky": canary.sticky,
            "guarded": canary.guard is not None,
            "since": time_text(canary.since),
        },
        "state": routing.state.value,
    }


def version_view(version: VersionDetail, routing: Routing, samples: Sequence[RunSample]) -> VersionStatsView:
    runs = [run for run in samples if run.version == version.number]
    failed = sum(run.status is RunStatus.FAILED for run in runs)
    took = sorted(
        run.ended_at - run.created_at for run in runs if run.status is RunStatus.COMPLETED and run.ended_at is not None
    )
    ended = failed + len(took)
    return {
        "version": version.number,
        "weight": _weight(version.number, routing),
        "runs": len(runs),
        "failure_rate": failed / ended if ended else None,
        "p50_ms": percentile(took, 0.5),
        "p95_ms": percentile(took, 0.95),
        "author": version.author,
        "message": version.message,
        "hash": version.hash,
        "created_at": time_text(version.created_at),
    }


def _weight(number: int, routing: Routing) -> float:
    share = routing.canary.weight if routing.canary is not None else 0.0
    if routing.canary is not None and routing.canary.version == number:
        return share
    return 1 - share if routing.live == number else 0.0


def brought_type_view(type_detail: TypeDetail | None, made_at: int) -> BroughtTypeView | None:
    """The type, if the default version was registered after `made_at`; otherwise None."""
    if type_detail is None or dict(type_detail.versions)[type_detail.default] <= made_at:
        return None
    earlier = [version for version, registered_at in type_detail.versions if registered_at <= made_at]
    return {"name": type_detail.name, "version": type_detail.default, "before": earlier[-1]} if earlier else None
