"""What the versions of functions need in an account: those that are live or may be again, and those with open runs."""

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
    """By name: Lambdas, task definitions, parameters of `.env` files; and Stepwell functions with any version. `users`:
    the functions and versions that run on each Lambda and task definition, needed or not."""

    lambdas: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    users: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def users_of(self, name: str) -> list[tuple[str, int]]:
        """Of a Lambda, also if versions name it by the ARN of one of its versions."""
        return [user for target, users in self.users.items() if lambda_of(target) == name for user in users]


def read_needed(resources: Resources, replaced_since: int) -> Needed:
    """What is needed now; also by versions that were replaced since then (ms)."""
    needed, registry, running = Needed(), Registry(resources), _running(resources)
    for row in registry.functions():
        versions = registry.versions(row.id)
        kept = _kept(row, versions, replaced_since) | {number for id, number in running if id == row.id}
        for number, version in versions:
            for target in version.targets.values():
                needed.users.setdefault(target.get("lambda") or target.get("ecs", ""), []).append((row.id, number))
            if number in kept:
                needed.functions.add(row.id)
                _add_targets(needed, version.targets.values())
                steps = (step.id for step in version.plan.steps)
                needed.parameters |= {naming.dotenv_parameter(resources.env, row.id, step) for step in steps}
    return needed


def _kept(row: FunctionRow, versions: list[tuple[int, Version]], replaced_since: int) -> set[int | None]:
    """Versions that new runs use, or used until a moment ago, or use after a rollback."""
    canary = None if row.routing.canary is None else row.routing.canary.version
    previous = None if row.live is None else row.routing.previous
    replaced = {old for (old, _), (_, new) in pairwise(versions) if new.created_at > replaced_since}
    return {row.live, canary, previous, *replaced}


def _running(resources: Resources) -> set[tuple[str, int]]:
    """Functions and versions that have open runs."""
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
