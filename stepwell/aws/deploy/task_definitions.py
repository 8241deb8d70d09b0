"""The ECS task definition of a container step: the user's image, with the step adapter beside it.

The name contains a hash of the content, so equal definitions are registered once. The container `adapter` copies the
adapter's binary to a shared volume, and ends. Then the container `step` runs the user's program through the adapter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.aws.resources import Resources
from stepwell.aws.steps.container_names import ADAPTER, STEP

VOLUME = "/stepwell"
_RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
_ARCHITECTURES = {"x86_64": "X86_64", "arm64": "ARM64"}
# CPU units (1,024 = one processor) -> the MB of memory that Fargate offers with them:
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
_SIZES: dict[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
    8192: tuple(range(16384, 61440 + 1, 4096)),
    16384: tuple(range(32768, 122880 + 1, 8192)),
}


class CannotRegister(Exception):
    """ECS cannot run this container. The message gives the reason and the possible values."""


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a step. `secrets` and `dotenv` name SSM parameters; `command`: entrypoint and arguments."""

    image: str
    command: tuple[str, ...]
    task_role: str
    log_group: str
    architecture: str = "x86_64"
    cpu: float | None = None
    memory: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    dotenv: str | None = None


def register_task_definition(
    ecs: Any, logs: Any, resources: Resources, prefix: str, container: Container
) -> dict[str, Any]:
    """Registers the step's task definition, unless it exists, and returns the step's target.

    `ecs`, `logs`: boto3 clients. `prefix`: the beginning of the definition's name, as in
    stepwell-dev-my-function-my-step. Raises CannotRegister, ClientError.
    """
    if not resources.cluster:
        raise CannotRegister("this environment has no cluster for containers; deploy it with containers")
    _make_log_group(logs, container.log_group, resources.retention_days)
    definition = _definition(resources, container)
    digest = hashlib.sha256(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    family = f"{prefix[:200]}-{digest}"
    arn = _registered(ecs, family)
    if arn is None:
        arn = ecs.register_task_definition(family=family, **definition)["taskDefinition"]["taskDefinitionArn"]
    return {"ecs": arn, "log_group": container.log_group, "container": STEP}


def fargate_size(cpu: float | None, memory: int | None) -> tuple[int, int]:
    """The smallest size on Fargate, as CPU units and MB, with this many processors and MB. Raises CannotRegister."""
    wanted_cpu, wanted_memory = (cpu or 0) * 1024, memory or 0
    for units, memories in _SIZES.items():
        if units >= wanted_cpu:
            for size in memories:
                if size >= wanted_memory:
                    return units, size
    possible = "; ".join(f"cpu {units / 1024:g}: {sizes[0]} to {sizes[-1]} MB" for units, sizes in _SIZES.items())
    raise CannotRegister(f"Fargate has no task with cpu {cpu or 'any'} and {memory or 'any'} MB; it has {possible}")


def _registered(ecs: Any, family: str) -> str | None:
    try:
        found = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
    except ecs.exceptions.ClientException:
        return None
    arn: str | None = found["taskDefinitionArn"] if found["status"] == "ACTIVE" else None
    return arn


def _make_log_group(logs: Any, name: str, days: int) -> None:
    """Creates the log group if it is missing: ECS does not start a task without it."""
    try:
        logs.create_log_group(logGroupName=name)
    except logs.exceptions.ResourceAlreadyExistsException:
        return
    enough = next((choice for choice in _RETENTIONS if choice >= days), _RETENTIONS[-1])
    logs.put_retention_policy(logGroupName=name, retentionInDays=enough)


def _definition(resources: Resources, container: Container) -> dict[str, Any]:
    cpu, memory = fargate_size(container.cpu, container.memory)
    return {
        "cpu": str(cpu),
        "memory": str(memory),
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "runtimePlatform": {
            "cpuArchitecture": _ARCHITECTURES[container.architecture],
            "operatingSystemFamily": "LINUX",
        },
        "executionRoleArn": resources.execution_role,
        "taskRoleArn": container.task_role,
        "volumes": [{"name": "stepwell"}],
        "containerDefinitions": [_adapter(resources, container), _step(resources, container)],
    }


def _adapter(resources: Resources, container: Container) -> dict[str, Any]:
    image = resources.adapter_images.get(container.architecture)
    if image is None:
        raise CannotRegister(f"this environment has no step adapter for {container.architecture}; deploy it again")
    return {
        "name": ADAPTER,
        "image": image,
        "essential": False,  # it ends before the step begins
        "command": ["install", VOLUME],
        "mountPoints": [{"sourceVolume": "stepwell", "containerPath": VOLUME}],
        "logConfiguration": _logs(resources, container),
    }


def _step(resources: Resources, container: Container) -> dict[str, Any]:
    # ECS rejects a name that is both a variable and a secret; the secret takes precedence.
    env = {name: value for name, value in container.env.items() if name not in container.secrets}
    secrets = dict(container.secrets)
    if container.dotenv is not None:
        # A JSON object of variables. They override the image's; those in STEPWELL_DECLARED override them.
        secrets["STEPWELL_DOTENV"] = container.dotenv
        env["STEPWELL_DECLARED"] = " ".join(sorted({*container.env, *container.secrets}))
    return {
        "name": STEP,
        "image": container.image,
        "essential": True,
        "entryPoint": [f"{VOLUME}/bootstrap", "exec", "--"],
        "command": list(container.command),
        "environment": [{"name": name, "value": value} for name, value in sorted(env.items())],
        "secrets": [{"name": name, "valueFrom": parameter} for name, parameter in sorted(secrets.items())],
        "dependsOn": [{"containerName": ADAPTER, "condition": "SUCCESS"}],
        "mountPoints": [{"sourceVolume": "stepwell", "containerPath": VOLUME}],
        "logConfiguration": _logs(resources, container),
        "linuxParameters": {"initProcessEnabled": True},  # reaps zombie processes
    }


def _logs(resources: Resources, container: Container) -> dict[str, Any]:
    """The log configuration. Streams are named `stepwell/<container>/<task id>`. A full buffer drops logs, so that
    logging never blocks a step."""
    return {
        "logDriver": "awslogs",
        "options": {
            "awslogs-group": container.log_group,
            "awslogs-region": resources.region,
            "awslogs-stream-prefix": "stepwell",
            "mode": "non-blocking",
            "max-buffer-size": "4m",
        },
    }
