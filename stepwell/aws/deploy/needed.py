"""Finds the AWS resources that versions still need: live versions, those that a rollback uses, those with open runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from stepwell.aws import naming
from stepwell.aws.deploy.retained import lambda_of
from stepwell.aws.engine.sweeper import open_runs
from stepwell.aws.functions.registry import FunctionRow, Registry
from stepwell.aws.functions.versions import Target, Version
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_items
from stepwell.aws.table.keys import STATUS_SHARDS, run_key


@dataclass(slots=True)
class Needed:
    """Names of the Lambdas, task definitions, `.env` parameters and Stepwell functions that are needed.

    `users`: the functions and versions that run on each Lambda and task definition, whether it is needed or not.
    """

    lambdas: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    users: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def users_of(self, name: str) -> list[tuple[str, int]]:
        """The functions and versions that run on a Lambda. Targets may be the ARNs of published versions of it."""
        return [user for target, users in self.users.items() if lambda_of(target) == name for user in users]


def read_needed(resources: Resources, replaced_since: int) -> Needed:
    """The resources that are needed now, or by versions replaced after `replaced_since` (ms since the epoch)."""
    needed, registry, running = Needed(), Registry(resources), _running(resources)
    for row in registry.functions():
        versions = registry.versions(row.id)
        numbers = _needed_versions(row, versions, replaced_since) | {number for id, number in running if id == row.id}
        for number, version in versions:
            for target in version.targets.values():
                needed.users.setdefault(target.get("lambda") or target.get("ecs", ""), []).append((row.id, number))
            if number in numbers:
                needed.functions.add(row.id)
                _add_targets(needed, version.targets.values())
                steps = (step.id for step in version.plan.steps)
                needed.parameters |= {naming.dotenv_parameter(resources.env, row.id, step) for step in steps}
    return needed


def _needed_versions(row: FunctionRow, versions: list[tuple[int, Version]], replaced_since: int) -> set[int | None]:
    """The versions that new runs use, used until `replaced_since`, or would use after a rollback."""
    canary = None if row.routing.canary is None else row.routing.canary.version
    previous = None if row.live is None else row.routing.previous
    replaced = {old for (old, _), (_, new) in pairwise(versions) if new.created_at > replaced_since}
    return {row.live, canary, previous, *replaced}


def _running(resources: Resources) -> set[tuple[str, int]]:
    """The functions and versions that have open runs."""
    found = set()
    for shard in range(STATUS_SHARDS):
        for rows, _ in open_runs(resources, shard, page=100):
            keys = [run_key(row.run_id) for row in rows]
            for item in read_items(resources.table, keys, consistent=False):
                found.add((item["f"]["S"], int(item["n"]["N"])))
    return found


def _add_targets(needed: Needed, targets: Iterable[Target]) -> None:
    for target in targets:
        if "lambda" in target:
            needed.lambdas.add(target["lambda"])
        if "ecs" in target:
            needed.tasks.add(target["ecs"])
