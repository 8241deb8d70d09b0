"""What every Lambda knows of the functions, and how old that may be."""

from __future__ import annotations

from dataclasses import dataclass

from stepwell.aws.registry import Registry, Target
from stepwell.aws.resources import Resources
from stepwell.core.definition import parse_definition

DEFINITION = parse_definition({"id": "f", "triggers": [{"event": "go"}]}).normalised()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def push(resources: Resources, target: Target) -> int:
    """Register the one function there is, run by this target; the version that it has then."""
    return Registry(resources).register(DEFINITION, {"step-1": target}, {}, "", "", "stepwell.json", 1).version


def test_to_retire_what_nobody_registered_changes_nothing(resources: Resources) -> None:
    registry = Registry(resources)
    registry.retire(["nobody"])
    assert registry.functions() == []
    assert registry.catalog().live == {}


def test_a_retired_function_stays_known(resources: Resources) -> None:
    push(resources, {"lambda": "one"})
    registry = Registry(resources)
    registry.retire(["f"])
    assert [(row.id, row.live) for row in registry.functions()] == [("f", None)]
    assert registry.version("f", 1).targets == {"step-1": {"lambda": "one"}}


def test_what_runs_an_unchanged_version_is_looked_at_again_after_a_minute(
    resources: Resources, requests: list[str]
) -> None:
    assert push(resources, {"lambda": "old"}) == 1
    clock = Clock()
    warm = Registry(resources, clock)
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "old"}}
    assert push(resources, {"lambda": "new"}) == 1
    requests.clear()
    clock.now += 59
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "old"}}
    assert requests == []
    clock.now += 1
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "new"}}
    clock.now += 60
    requests.clear()
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "new"}}
    assert requests == ["GetItem"]  # nothing has changed


def test_whoever_starts_runs_knows_what_runs_them_as_soon_as_the_functions(resources: Resources) -> None:
    push(resources, {"lambda": "old"})
    clock = Clock()
    warm = Registry(resources, clock)
    assert warm.catalog().live.keys() == {"f"}
    push(resources, {"lambda": "new"})
    clock.now += resources.cache_s
    assert warm.catalog().live.keys() == {"f"}
    assert warm.version("f", 1).targets == {"step-1": {"lambda": "new"}}
