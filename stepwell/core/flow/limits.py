"""The limits of a definition, with the ids under which they are counted, shown and set.

The id of a limit is the function's id, then the step for a limit of a step, then what it limits: `orders/concurrency`,
`orders/concurrency/1` for the second one of a list, `orders/steps/charge/throttle`. Limits of a group have the ids
`groups/NAME/concurrency` and `groups/NAME/throttle`, because they belong to no function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepwell.core.duration import parse_duration
from stepwell.core.plan import Limit

MAX_LIMIT = 100_000
MAX_PERIOD_MS = 31 * 86_400_000
NOTHING_EXECUTES = ("approval", "emit")  # the runtimes of steps that the engine does by itself


def limits_of_starts(definition: Mapping[str, Any]) -> tuple[Limit, ...]:
    """The limits that the start of a run obeys. `definition`: normalised."""
    place = definition["id"]
    found = [limit for limit, scope in _concurrency(definition, place) if scope == "run"]
    return (*found, *_throttle(definition, place))


def limits_of_steps(definition: Mapping[str, Any]) -> tuple[Limit, ...]:
    """The limits of the function that each attempt of each step obeys."""
    return tuple(limit for limit, scope in _concurrency(definition, definition["id"]) if scope == "steps")


def limits_of_step(definition: Mapping[str, Any], step_id: str) -> tuple[Limit, ...]:
    """The limits that each attempt of a step obeys: those of the function, then those of the step itself.

    A step that executes nothing, such as an approval, has none.
    """
    step = definition["steps"][step_id]
    if step["runtime"]["type"] in NOTHING_EXECUTES:
        return ()
    place = f"{definition['id']}/steps/{step_id}"
    of_step = [limit for limit, _ in _concurrency(step, place)]
    return (*limits_of_steps(definition), *of_step, *_throttle(step, place))


def limits_of(definition: Mapping[str, Any]) -> Iterator[Limit]:
    """All limits that a definition sets, each once."""
    yield from limits_of_starts(definition)
    seen: set[str] = set()
    for step_id in definition["steps"]:
        for limit in limits_of_step(definition, step_id):
            if limit.id not in seen:
                seen.add(limit.id)
                yield limit


def groups_of(limits: Iterable[Limit]) -> dict[str, Limit]:
    """The limits of groups among the limits of live functions, by id. If several set one, the smallest applies."""
    groups: dict[str, Limit] = {}
    for limit in limits:
        if limit.id.startswith("groups/") and limit.limit is not None:
            before = groups.get(limit.id)
            if before is None or _rate(limit) < _rate(before):
                groups[limit.id] = limit
    return groups


def _rate(limit: Limit) -> float:
    return (limit.limit or 0) / (limit.period_ms or 1)


def _concurrency(fields: Mapping[str, Any], place: str) -> Iterator[tuple[Limit, str]]:
    """The limits of `concurrency`, each with the scope."""
    for number, item in enumerate(fields.get("concurrency", ())):
        own_id = f"{place}/concurrency/{number}" if number else f"{place}/concurrency"
        group = item.get("group")
        limit_id = own_id if group is None else f"groups/{group}/concurrency"
        yield Limit(limit_id, item.get("limit"), item.get("key")), item.get("scope", "steps")


def _throttle(fields: Mapping[str, Any], place: str) -> Iterator[Limit]:
    if (item := fields.get("throttle")) is not None:
        group = item.get("group")
        limit_id = f"{place}/throttle" if group is None else f"groups/{group}/throttle"
        yield Limit(limit_id, item["limit"], item.get("key"), parse_duration(item["period"]), item["burst"])
