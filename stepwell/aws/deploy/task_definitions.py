"""What ECS runs for a step: the user's image, with the step adapter beside it.

One rule: a definition is named by its content, so that an equal one is registered once.

The container `adapter` copies the adapter's binary to a volume that both containers have, and ends; then the container
`step` runs the user's program through it.
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
# CPU units (1,024 = one processor) and the MB of memory that Fargate gives with them:
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
    """ECS cannot run this container; the message says what can be."""


@dataclass(frozen=True, slots=True)
class Container:
    """What a step asks for. `secrets` and `dotenv` name SSM parameters; `command` is entrypoint and arguments."""

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
    """Register what runs this step, unless it is there; the step's target. Raises CannotRegister, ClientError.

    `ecs`, `logs`: boto3's clients. `prefix`: of the definition's name, as in stepwell-dev-my-function-my-step.
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
    """The smallest CPU units and MB on Fargate that hold this many processors and MB. Raises CannotRegister."""
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
    """A task whose log group is missing does not start."""
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
    # ECS refuses a name that is both; a secret counts more.
    env = {name: value for name, value in container.env.items() if name not in container.secrets}
    secrets = dict(container.secrets)
    if container.dotenv is not None:
        # A JSON object, whose variables count more than the image's and less than those that the step declares.
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
        "linuxParameters": {"initProcessEnabled": True},  # it reaps what a program leaves behind
    }


def _logs(resources: Resources, container: Container) -> dict[str, Any]:
    """Streams are named `stepwell/<container>/<task id>`. Logs never hold up a step: what cannot be sent is dropped."""
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
