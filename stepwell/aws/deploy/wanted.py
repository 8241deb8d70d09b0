"""Computes the resources that functions need in an account: Lambdas, containers and values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stepwell.aws.deploy.modules import module_lambda
from stepwell.aws.deploy.packaging import StepLambda, check_place, check_timeout, dotenv_content, step_lambda
from stepwell.aws.deploy.runtimes import PackagingError
from stepwell.aws.deploy.step_lambdas import Json
from stepwell.aws.deploy.tasks import StepTask, step_task
from stepwell.aws.functions.versions import Target, Version
from stepwell.aws.naming import dotenv_parameter
from stepwell.aws.resources import Resources
from stepwell.core.compile import compile_plan
from stepwell.core.plan import Plan
from stepwell.project.code import CodeError
from stepwell.project.load import LoadedFunction, PlacedProblem
from stepwell.project.pushed import for_push

ON_ONE_MACHINE = ("celery", "faktory")  # runtimes whose steps other systems run, with connections to the server


class CannotPush(Exception):
    """The functions cannot run on AWS. `problems`: all problems, each with a file and line."""

    def __init__(self, problems: list[PlacedProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Wanted:
    """The resources that one Stepwell function needs, by step id.

    `arns`: Lambdas that steps name by ARN. `http`: the `.env` of `http` steps as JSON, or None if there is none.
    """

    id: str
    file: Path
    definition: Json
    plan: Plan
    code: dict[str, str]
    lambdas: dict[str, StepLambda] = field(default_factory=dict)
    tasks: dict[str, StepTask] = field(default_factory=dict)
    arns: dict[str, str] = field(default_factory=dict)
    http: dict[str, str | None] = field(default_factory=dict)

    @property
    def secrets(self) -> set[str]:
        return {name for step in self.plan.steps if step.id not in self.arns for name in step.secrets}

    @property
    def lambda_secrets(self) -> set[str]:
        """The secrets that the step Lambdas read themselves."""
        return {name for step in self.lambdas.values() for name in step.secrets}

    @property
    def needs_role(self) -> bool:
        return bool(self.lambdas or self.tasks)

    def dotenv(self, env: str) -> dict[str, str]:
        """The contents of the function's `.env` parameters, by the parameter's name."""
        fields = {id: step.dotenv for id, step in (self.lambdas | self.tasks).items()} | self.http
        return {
            dotenv_parameter(env, self.id, step): content for step, content in fields.items() if content is not None
        }


def wanted(functions: Iterable[LoadedFunction], resources: Resources) -> list[Wanted]:
    """The resources that these functions need. Raises CannotPush."""
    found, problems = [], []
    for function in map(for_push, functions):
        definition = function.normalised()
        plan = compile_plan(definition, 0)
        code = {step_id: code.hash for step_id, code in function.steps.items()}
        wanted = Wanted(plan.function_id, function.file, definition, plan, code)
        for index in range(len(plan.steps)):
            step_id = plan.steps[index].id
            try:
                _add_step(wanted, index, function, resources)
            except (PackagingError, CodeError) as error:
                pointer = ("steps", step_id)
                line, column = function.source.place(pointer)
                problems.append(PlacedProblem(function.file, line, column, pointer, f"step `{step_id}`: {error}"))
        found.append(wanted)
    if problems:
        raise CannotPush(problems)
    return found


def _add_step(wanted: Wanted, index: int, function: LoadedFunction, resources: Resources) -> None:
    step = wanted.plan.steps[index]
    code = function.steps.get(step.id)
    if step.is_approval or step.is_emit:
        return  # nothing is executed: people decide, or the engine sends an event
    if step.runtime.type in ON_ONE_MACHINE:
        raise PackagingError(
            f"the runtime {step.runtime.type} works only on one machine (`stepwell serve`); use the runtime lambda,"
            " docker or http on AWS"
        )
    if step.runtime.type == "docker":
        dotenv = dotenv_content(code) if code else None
        wanted.tasks[step.id] = step_task(wanted.id, step, code, dotenv, resources)
    elif step.runtime.type == "http":
        check_timeout(step)
        wanted.http[step.id] = dotenv_content(code) if code else None
    elif step.runtime.arn is not None:
        check_timeout(step)
        wanted.arns[step.id] = step.runtime.arn
    else:
        make = module_lambda if step.runtime.type == "wasm" else step_lambda
        made = make(wanted.id, step, code)
        check_place(made, resources)
        wanted.lambdas[step.id] = made


def targets(wanted: Wanted, resources: Resources, tasks: Mapping[str, Target]) -> dict[str, Target]:
    """The target of each step: the Lambda or task that executes it. `tasks`: the targets of containers, by step."""
    lambdas = {id: {"lambda": step.name(resources.env)} for id, step in wanted.lambdas.items()}
    return {**lambdas, **{step: {"lambda": arn} for step, arn in wanted.arns.items()}, **tasks}


def known_tasks(wanted: Wanted, resources: Resources, live: Version | None) -> dict[str, Target]:
    """The targets of containers that the live version has already, by step."""
    before = live.targets if live else {}
    return {
        step: before[step]
        for step, task in wanted.tasks.items()
        if step in before and before[step].get("hash") == task.hash(resources)
    }
