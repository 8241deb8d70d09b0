"""Protection against overload: reserved instances, a warm table; and CloudFormation's limit of resources."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.aws.resources import Resources
from stepwell.aws.topology import FUNCTIONS
from tests.infra.conftest import Synth
from tests.infra.test_stack import functions, resources

every_environment = pytest.mark.parametrize("env", ["dev", "all", "bare"])
MOST_RESOURCES = 500
"""In a stack: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html"""


def reserved(synth: Synth, env: str) -> dict[str, Any]:
    name = "ReservedConcurrentExecutions"
    return {text: made[name] for text, made in functions(synth, env).items() if name in made}


def test_no_instance_is_reserved_unless_it_is_asked_for(synth: Synth) -> None:
    assert reserved(synth, "dev") == reserved(synth, "bare") == {}


def test_instances_are_reserved_for_each_lambda_by_its_own_setting(synth: Synth) -> None:
    settings = synth.settings["all"]
    assert reserved(synth, "all") == {
        "ingest": settings.ingest_concurrency,
        "api": settings.api_concurrency,
        "tick": settings.tick_concurrency,
        "route": settings.route_concurrency,
        "advance": settings.advance_concurrency,
    }


@every_environment
def test_the_resources_contain_the_concurrency_of_steps(synth: Synth, env: str) -> None:
    parameters = {
        resource["Name"]: resource["Value"] for resource in synth.resources(env, "AWS::SSM::Parameter").values()
    }
    known: Resources = resources(parameters[f"/stepwell/{env}/resources"])
    assert known.step_concurrency == synth.settings[env].step_concurrency


@every_environment
def test_the_table_and_the_index_have_the_warm_throughput_setting(synth: Synth, env: str) -> None:
    (table,) = synth.resources(env, "AWS::DynamoDB::Table").values()
    (index,) = table["GlobalSecondaryIndexes"]
    warm = None
    if units := synth.settings[env].warm_units:
        warm = {"ReadUnitsPerSecond": units[0], "WriteUnitsPerSecond": units[1]}
    assert table.get("WarmThroughput") == index.get("WarmThroughput") == warm


def test_a_stack_with_everything_is_below_a_third_of_the_resource_limit(synth: Synth) -> None:
    """A third of the limit leaves room for growth. Before raising this number, consider nested stacks."""
    counts = {env: len(template.to_json()["Resources"]) for env, template in synth.templates.items()}
    print(counts)
    assert max(counts.values()) == counts["all"] < MOST_RESOURCES / 3


def test_every_lambda_whose_instances_can_be_reserved_is_one_of_the_engine_s() -> None:
    assert {"ingest", "api", "tick", "route", "advance"} < {function.name for function in FUNCTIONS}
