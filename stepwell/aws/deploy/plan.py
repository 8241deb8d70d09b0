"""What a push would do: what functions need, compared with what the account has. Pure.

One rule: an action is there only if something differs, so a push of what is already live does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from stepwell.aws.deploy.packaging import StepLambda, check_place, check_timeout, dotenv_content, step_lambda
from stepwell.aws.deploy.roles import Policy, RoleState, merged, policy
from stepwell.aws.deploy.runtimes import PackagingError
from stepwell.aws.deploy.step_lambdas import (
    Json,
    LambdaState,
    changes,
    check_free,
    configuration,
    invocation_changes,
    is_traced,
)
from stepwell.aws.deploy.tasks import StepTask, step_task
from stepwell.aws.deploy.values import Parameter, values_hash
from stepwell.aws.functions.versions import Target, Version
from stepwell.aws.naming import dotenv_parameter, log_group, role_name, secret_parameter, task_log_group
from stepwell.aws.resources import Resources
from stepwell.core.compile import compile_plan
from stepwell.core.plan import Plan
from stepwell.project.code import CodeError
from stepwell.project.load import LoadedFunction, PlacedProblem
from stepwell.project.pushed import for_push


class CannotPush(Exception):
    """What is to be pushed cannot run on AWS; `problems` holds everything that is wrong, each with its place."""

    def __init__(self, problems: list[PlacedProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class MissingSecrets(Exception):
    """A step needs a secret that the environment has not; the message says which, and how to set it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one Stepwell function needs. By step id: its Lambdas, containers and Lambdas given by ARN; and the `.env`,
    as its parameter holds it, of steps that the engine's own Lambda runs."""

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
        """Those that its Lambdas read themselves."""
        return {name for one in self.lambdas.values() for name in one.secrets}

    @property
    def needs_role(self) -> bool:
        return bool(self.lambdas or self.tasks)

    def dotenv(self, env: str) -> dict[str, str]:
        """The contents of its `.env` parameters, by name."""
        fields = {step: one.dotenv for step, one in (self.lambdas | self.tasks).items()} | self.http
        return {
            dotenv_parameter(env, self.id, step): content for step, content in fields.items() if content is not None
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What the account has of all that. What is not there is not in the dictionaries."""

    roles: Mapping[str, RoleState]
    parameters: Mapping[str, Parameter]
    lambdas: Mapping[str, LambdaState]  # by name, or by the ARN that was given
    log_groups: Mapping[str, int]  # days that they keep logs; 0: for ever
    code: frozenset[str]  # keys in the bucket
    live: Mapping[str, Version]  # by function


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    verb: str
    kind: str
    name: str
    detail: str = ""

    def as_json(self) -> Json:
        fields = {"action": self.verb, "kind": self.kind, "name": self.name}
        return {**fields, "detail": self.detail} if self.detail else fields


@dataclass(frozen=True, slots=True)
class PutParameter(Action):
    value: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PutRole(Action):
    function_id: str = ""
    policy: Policy = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PutLogGroup(Action): ...


@dataclass(frozen=True, slots=True)
class Upload(Action):
    step: StepLambda | None = None


@dataclass(frozen=True, slots=True)
class PutLambda(Action):
    step: StepLambda | None = None
    todo: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adopt(Action):
    """Make a Lambda that was given by its ARN answer to us."""

    todo: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PutTask(Action):
    task: StepTask | None = None


@dataclass(frozen=True, slots=True)
class Register(Action):
    wanted: Wanted | None = None


def new_or_changed(exists: bool) -> str:
    return "update" if exists else "create"


# --- what is wanted --------------------------------------------------------------------------------------------------


def wanted(functions: Iterable[LoadedFunction], resources: Resources) -> list[Wanted]:
    """What these functions need. Raises CannotPush."""
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
    if step.is_approval:
        return  # people decide it: nothing is executed
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
        made = step_lambda(wanted.id, step, code)
        check_place(made, resources)
        wanted.lambdas[step.id] = made


def targets(wanted: Wanted, resources: Resources, tasks: Mapping[str, Target]) -> dict[str, Target]:
    """What executes each step; `tasks`: the targets of its containers, by step."""
    lambdas = {step: {"lambda": one.name(resources.env)} for step, one in wanted.lambdas.items()}
    return {**lambdas, **{step: {"lambda": arn} for step, arn in wanted.arns.items()}, **tasks}


def known_tasks(wanted: Wanted, resources: Resources, live: Version | None) -> dict[str, Target]:
    """Those of its containers' targets that the live version has already."""
    before = live.targets if live else {}
    return {
        step: before[step]
        for step, task in wanted.tasks.items()
        if step in before and before[step].get("hash") == task.hash(resources)
    }


# --- the plan --------------------------------------------------------------------------------------------------------


def plan(functions: Iterable[Wanted], found: Found, resources: Resources) -> list[Action]:
    """What to do, in an order that works. Raises MissingSecrets, step_lambdas.NoLayer, step_lambdas.Taken."""
    actions: list[Action] = []
    functions = list(functions)
    _check_secrets(functions, found, resources.env)
    for function in functions:
        actions += _preparations(function, found, resources)
        actions += _lambdas(function, found, resources)
        actions += _arns(function, found, resources)
        known = known_tasks(function, resources, found.live.get(function.id))
        actions += [
            PutTask("create", "task definition", t.name, task=t) for s, t in function.tasks.items() if s not in known
        ]
        actions += _register(function, found, resources)
    return list(_each_once(actions))


def _each_once(actions: Iterable[Action]) -> Iterator[Action]:
    """Functions may share code and Lambdas; two that write one thing at the same time would be in each other's way."""
    seen: set[tuple[str, str]] = set()
    for action in actions:
        if (action.kind, action.name) not in seen:
            seen.add((action.kind, action.name))
            yield action


def role_arn(wanted: Wanted, found: Found, resources: Resources) -> str:
    name = role_name(resources.env, wanted.id)
    partition = resources.outcomes_queue_arn.split(":")[1]
    state = found.roles.get(name)
    return state.arn if state else f"arn:{partition}:iam::{resources.account}:role/{name}"


def _check_secrets(functions: list[Wanted], found: Found, env: str) -> None:
    missing = sorted(
        {
            name
            for function in functions
            for name in function.secrets
            if secret_parameter(env, name) not in found.parameters
        }
    )
    if missing:
        cures = "; ".join(f"`stepwell secrets set {name} --env {env}`" for name in missing)
        raise MissingSecrets(f"secrets that steps need are not set: {', '.join(missing)}; {cures}")


def _preparations(wanted: Wanted, found: Found, resources: Resources) -> list[Action]:
    """What has to be there before a Lambda or a task can be: values, the role, log groups."""
    actions: list[Action] = []
    for name, value in wanted.dotenv(resources.env).items():
        if name not in found.parameters or found.parameters[name].value != value:
            actions.append(PutParameter(new_or_changed(name in found.parameters), "parameter", name, value=value))
    if wanted.needs_role:
        name = role_name(resources.env, wanted.id)
        state = found.roles.get(name)
        allowed = policy(
            resources,
            wanted.id,
            lambdas=bool(wanted.lambdas),
            secrets=wanted.lambda_secrets,
            dotenv=any(one.dotenv is not None for one in wanted.lambdas.values()),
            containers=bool(wanted.tasks),
            vpc=any(one.vpc for one in wanted.lambdas.values()),
            tracing=any(is_traced(one, resources) for one in wanted.lambdas.values()),
        )
        allowed = merged(allowed, state.policy if state else None)
        if state is None or not state.is_as(allowed, resources):
            verb = new_or_changed(state is not None)
            actions.append(PutRole(verb, "role", name, function_id=wanted.id, policy=allowed))
    groups = {log_group(step.name(resources.env)) for step in wanted.lambdas.values()}
    groups |= {task_log_group(resources.env, wanted.id)} if wanted.tasks else set()
    for group in sorted(groups):
        if found.log_groups.get(group) != resources.retention_days:
            verb = new_or_changed(group in found.log_groups)
            actions.append(PutLogGroup(verb, "log group", group, f"{resources.retention_days} days"))
    return actions


def _lambdas(wanted: Wanted, found: Found, resources: Resources) -> list[Action]:
    actions: list[Action] = []
    role = role_arn(wanted, found, resources)
    for name, step in {step.name(resources.env): step for step in reversed(wanted.lambdas.values())}.items():
        todo = changes(
            found.lambdas.get(name), configuration(step, resources, role), _values(step, found, resources), resources
        )
        if "create" in todo and step.code_key not in found.code:
            actions.append(Upload("upload", "code", step.code_key, step=step))
        if todo:
            verb = new_or_changed(name in found.lambdas)
            detail = ", ".join(todo) if verb == "update" else f"{step.runtime} {step.architecture}"
            actions.append(PutLambda(verb, "lambda", name, detail, step=step, todo=todo))
    return actions


def _values(step: StepLambda, found: Found, resources: Resources) -> str | None:
    """The hash of its values as they will be; empty if that is not known before they are put."""
    if not step.has_values:
        return None
    names = step.parameters(resources.env)
    own = dotenv_parameter(resources.env, step.function_id, step.step_id)
    is_old = own in names and (own not in found.parameters or found.parameters[own].value != step.dotenv)
    return "" if is_old or any(name not in found.parameters for name in names) else values_hash(names, found.parameters)


def _arns(wanted: Wanted, found: Found, resources: Resources) -> list[Action]:
    actions: list[Action] = []
    for arn in dict.fromkeys(wanted.arns.values()):
        check_free(arn, found.lambdas[arn], resources)
        todo = invocation_changes(found.lambdas[arn], resources)
        if todo:
            actions.append(Adopt("update", "lambda", arn, ", ".join(todo), todo=todo))
    return actions


def _register(wanted: Wanted, found: Found, resources: Resources) -> list[Action]:
    live = found.live.get(wanted.id)
    known = known_tasks(wanted, resources, live)
    if live is not None and len(known) == len(wanted.tasks):
        is_same = orjson.loads(live.definition) == wanted.definition
        if is_same and live.targets == targets(wanted, resources, known):
            return []
    return [Register(new_or_changed(live is not None), "function", wanted.id, wanted=wanted)]
