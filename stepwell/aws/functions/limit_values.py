"""The values of limits that apply now: those of the live definition, else those of the version that runs.

So what waits obeys a new version, within a minute.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.aws.functions.registry import Registry
from stepwell.core.flow.limits import groups_of
from stepwell.core.plan import Limit, Plan
from stepwell.core.routing.triggers import Catalog


class LimitValues:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._catalog: Catalog | None = None
        self._functions: dict[str, dict[str, Limit]] = {}
        self._groups: dict[str, Limit] | None = None

    def current(self, limit: Limit) -> Limit:
        """A limit with the values that apply now."""
        return self.of_id(limit.id) or limit

    def of_id(self, limit_id: str) -> Limit | None:
        """The limit that a live definition sets; None if there is none."""
        catalog = self._registry.catalog()
        if catalog is not self._catalog:
            self._catalog, self._functions, self._groups = catalog, {}, None
        return self._of_definitions(catalog, limit_id.partition("/")[0]).get(limit_id)

    def _of_definitions(self, catalog: Catalog, function_id: str) -> dict[str, Limit]:
        if function_id == "groups":
            if self._groups is None:
                self._groups = groups_of(limit for plan in catalog.live.values() for limit in limits_of(plan))
            return self._groups
        if function_id not in self._functions:
            plan = catalog.live.get(function_id)
            self._functions[function_id] = {} if plan is None else {found.id: found for found in limits_of(plan)}
        return self._functions[function_id]


def limits_of(plan: Plan) -> Iterator[Limit]:
    """The limits that a version sets; some may come several times."""
    yield from plan.start_limits
    for step in plan.steps:
        yield from step.limits
