"""The task definition that is registered with ECS for a step, on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.deploy.task_definitions import CannotRegister, Container, fargate_size, register_task_definition
from stepwell.aws.resources import Resources
from tests.aws.conftest import RESOURCES

CONTAINER = Container("busybox:1", ("/bin/sh", "-c", "x"), "arn:aws:iam::123456789012:role/step", "/stepwell/test")


@pytest.fixture
def cluster(account: None) -> Resources:
    role = "arn:aws:iam::123456789012:role/execution"
    images = {"x86_64": "adapter:intel", "arm64": "adapter:arm"}
    return replace(RESOURCES, cluster="stepwell", adapter_images=images, execution_role=role, retention_days=40)


def _register(resources: Resources, container: Container) -> dict[str, Any]:
    ecs, logs = clients.client("ecs"), clients.client("logs")
    return register_task_definition(ecs, logs, resources, "stepwell-test-f-s", container)


def _read(target: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = clients.client("ecs").describe_task_definition(taskDefinition=target["ecs"])
    return found["taskDefinition"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("cpu", "memory", "size"),
    [
        (None, None, (256, 512)),  # the cheapest
        (None, 16, (256, 512)),
        (None, 513, (256, 1024)),
        (None, 2049, (512, 3072)),  # more memory requires more processor
        (None, 122_880, (16_384, 122_880)),
        (0.25, None, (256, 512)),
        (0.3, 512, (512, 1024)),
        (1, 2048, (1024, 2048)),
        (3, 8000, (4096, 8192)),
        (8, 17_000, (8192, 20_480)),
        (16, None, (16_384, 32_768)),
    ],
)
def test_sizes_are_rounded_up_to_what_fargate_has(cpu: float | None, memory: int | None, size: tuple[int, int]) -> None:
    assert fargate_size(cpu, memory) == size


@pytest.mark.parametrize(("cpu", "memory"), [(17, None), (None, 122_881)])
def test_what_fargate_has_not_is_refused_with_what_it_has(cpu: float | None, memory: int | None) -> None:
    with pytest.raises(CannotRegister, match="cpu 16: 32768 to 122880 MB"):
        fargate_size(cpu, memory)


def test_an_equal_definition_is_registered_once(cluster: Resources) -> None:
    target = _register(cluster, CONTAINER)
    assert target == {"ecs": target["ecs"], "log_group": "/stepwell/test", "container": "step"}
    assert _register(cluster, CONTAINER) == target
    assert _register(cluster, replace(CONTAINER, memory=4096)) != target
    assert len(clients.client("ecs").list_task_definitions()["taskDefinitionArns"]) == 2


def test_the_adapter_ends_before_the_program_begins(cluster: Resources) -> None:
    definition = _read(_register(cluster, CONTAINER))
    adapter, step = definition["containerDefinitions"]
    assert (adapter["essential"], adapter["command"]) == (False, ["install", "/stepwell"])
    assert step["entryPoint"] == ["/stepwell/bootstrap", "exec", "--"]
    assert step["command"] == ["/bin/sh", "-c", "x"]
    assert step["dependsOn"] == [{"containerName": "adapter", "condition": "SUCCESS"}]
    assert adapter["mountPoints"] == step["mountPoints"]


@pytest.mark.parametrize(("architecture", "name", "image"), [("x86_64", "X86_64", "intel"), ("arm64", "ARM64", "arm")])
def test_the_adapter_is_for_the_processor_that_the_image_is_for(
    cluster: Resources, architecture: str, name: str, image: str
) -> None:
    definition = _read(_register(cluster, replace(CONTAINER, architecture=architecture)))
    assert definition["runtimePlatform"]["cpuArchitecture"] == name
    assert definition["containerDefinitions"][0]["image"] == f"adapter:{image}"


def test_without_an_adapter_for_the_processor_nothing_is_registered(cluster: Resources) -> None:
    with pytest.raises(CannotRegister, match="no step adapter for arm64; deploy it again"):
        _register(replace(cluster, adapter_images={"x86_64": "adapter:1"}), replace(CONTAINER, architecture="arm64"))


def test_a_name_that_is_both_variable_and_secret_is_a_secret(cluster: Resources) -> None:
    container = replace(CONTAINER, env={"A": "1", "B": "2"}, secrets={"B": "/b"}, dotenv="/dotenv")
    step = _read(_register(cluster, container))["containerDefinitions"][1]
    assert step["environment"] == [{"name": "A", "value": "1"}, {"name": "STEPWELL_DECLARED", "value": "A B"}]
    assert step["secrets"] == [
        {"name": "B", "valueFrom": "/b"},
        {"name": "STEPWELL_DOTENV", "valueFrom": "/dotenv"},
    ]


def test_logs_are_kept_as_long_as_runs_or_a_little_longer(cluster: Resources) -> None:
    _register(cluster, CONTAINER)
    (group,) = clients.client("logs").describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == ("/stepwell/test", 60)


def test_without_a_cluster_nothing_is_registered(account: None) -> None:
    with pytest.raises(CannotRegister, match="no cluster for containers"):
        _register(RESOURCES, CONTAINER)
