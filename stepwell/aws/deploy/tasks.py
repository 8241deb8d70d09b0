"""Docker steps on ECS: builds the image if there is a Dockerfile, and registers the task definition."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.aws.deploy.account import Account
from stepwell.aws.deploy.runtimes import PackagingError
from stepwell.aws.naming import dotenv_parameter, function_prefix, role_name, secret_parameter, task_log_group
from stepwell.aws.resources import Resources
from stepwell.core.plan import Step
from stepwell.project.code import StepCode


@dataclass(frozen=True, slots=True)
class StepTask:
    function_id: str
    step: Step
    code: StepCode | None
    dotenv: str | None  # JSON, the content of the SSM parameter

    @property
    def name(self) -> str:
        return f"{self.function_id}/{self.step.id}"

    def hash(self, resources: Resources) -> str:
        """A hash of everything that determines the step's target. A target with an equal hash is not made again."""
        runtime = self.step.runtime
        fields = {
            "function": self.function_id,
            "step": self.step.id,
            "code": self.code.hash if self.code and runtime.image is None else None,
            "runtime": [runtime.image, runtime.entrypoint, runtime.cpu, runtime.memory],
            "env": self.step.env,
            "dotenv": self.dotenv is not None,
            "secrets": sorted(self.step.secrets),
            "environment": [resources.adapter_images, resources.execution_role, resources.repository],
        }
        return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    def parameters(self, env: str) -> list[str]:
        dotenv = [dotenv_parameter(env, self.function_id, self.step.id)] if self.dotenv is not None else []
        return [*dotenv, *(secret_parameter(env, name) for name in self.step.secrets)]


def step_task(
    function_id: str, step: Step, code: StepCode | None, dotenv: str | None, resources: Resources
) -> StepTask:
    """The task of a docker step. Raises PackagingError if the environment runs no containers, or there is no image."""
    if not resources.cluster:
        raise PackagingError("this environment runs no containers; deploy it with containers, or use runtime lambda")
    if step.runtime.image is None and code is None:
        raise PackagingError("the step has neither an image nor a Dockerfile; add one of them")
    return StepTask(function_id, step, code, dotenv)


def make_task(task: StepTask, account: Account, resources: Resources, log: Callable[[str], None]) -> dict[str, Any]:
    """Builds and pushes the image if it is missing, registers the task definition, and returns the step's target.

    Raises ImageError, CannotRegister, CodeError.
    """
    from stepwell.aws.deploy.images import built_image, named_image
    from stepwell.aws.deploy.task_definitions import Container, register_task_definition

    step, env = task.step, resources.env
    if step.runtime.image is not None:
        image = named_image(step.runtime.image, step.runtime.entrypoint)
    else:
        assert task.code is not None
        image = built_image(resources, task.code, step.runtime.entrypoint, log)
    role = f"arn:{resources.partition}:iam::{resources.account}:role/{role_name(env, task.function_id)}"
    container = Container(
        image=image.reference,
        command=image.command,
        task_role=role,
        log_group=task_log_group(env, task.function_id),
        architecture=image.architecture,
        cpu=step.runtime.cpu,
        memory=step.runtime.memory,
        env=dict(step.env),
        secrets={name: secret_parameter(env, name) for name in step.secrets},
        dotenv=dotenv_parameter(env, task.function_id, step.id) if task.dotenv is not None else None,
    )
    prefix = f"{function_prefix(env)}{task.function_id}-{step.id}"
    return {
        **register_task_definition(account.ecs, account.logs, resources, prefix, container),
        "hash": task.hash(resources),
    }
