"""The definition that the contract began with (tests/test_section_two.py) runs on AWS exactly as written.

The first step runs in a container on ECS, the second one on Lambda, both through the adapter.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from stepwell.aws.clients import client
from stepwell.aws.functions.registry import Registry
from stepwell.testing.ecs.containers import ContainerStepwell
from tests.containers import BUSYBOX

FUNCTION = Path(__file__).parents[1] / "fixtures" / "section-two"


@pytest.fixture
def deployed(aws: ContainerStepwell, tmp_path: Path) -> dict[str, Any]:
    """The target of each step."""
    folder = shutil.copytree(FUNCTION, tmp_path / "function")
    shutil.copy(BUSYBOX, folder / "steps" / "send-sms-dispatch" / "busybox")
    assert aws.deploy(folder) == 1
    targets = Registry(aws.resources).version("prompt-deer-ede40d", 1).targets
    task = client("ecs").describe_task_definition(taskDefinition=targets["step-1"]["ecs"])
    function = client("lambda").get_function(FunctionName=targets["step-2"]["lambda"])
    return {"step-1": task["taskDefinition"], "step-2": function["Configuration"]}


def test_section_2_runs_in_a_container_and_on_lambda(aws: ContainerStepwell, deployed: dict[str, Any]) -> None:
    event = aws.send("user/signed.up", user={"created_at": "2024-03-01"})
    (run,) = aws.runs(event)
    assert run["status"] == "completed"
    assert run["output"] == {"step-2": {"created_at": "2024-03-01", "sms": {"sent": True}}}
    assert run["steps"]["step-1"]["output"] == {"sent": True}
    assert [[attempt["status"] for attempt in step["attempts"]] for step in run["steps"].values()] == [
        ["completed"]
    ] * 2
    assert aws.ecs.started == 1


def test_both_steps_of_section_2_are_run_by_the_adapter(aws: ContainerStepwell, deployed: dict[str, Any]) -> None:
    adapter, step = deployed["step-1"]["containerDefinitions"]
    assert adapter["image"] in aws.resources.adapter_images.values()
    assert step["image"].startswith(f"{aws.resources.repository}:")
    assert step["entryPoint"] == ["/stepwell/bootstrap", "exec", "--"]
    assert step["command"] == ["/bin/sh", "step.sh"]
    assert [layer["Arn"] in aws.resources.layers.values() for layer in deployed["step-2"]["Layers"]] == [True]


def test_section_2_starts_only_for_users_since_2020(aws: ContainerStepwell, deployed: dict[str, Any]) -> None:
    event = aws.send("user/signed.up", user={"created_at": "2019-12-31"})
    assert aws.runs(event) == []
    assert aws.ecs.started == 0
