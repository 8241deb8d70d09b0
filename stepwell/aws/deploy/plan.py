"""What a push would do: what functions need, compared with what the account has. Pure.

One rule: an action is there only if something differs, so a push of what is already live does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import orjson

from stepwell.aws.deploy.actions import (
    Action,
    Adopt,
    PutLambda,
    PutLogGroup,
    PutParameter,
    PutRole,
    PutTask,
    Register,
    Upload,
    new_or_changed,
)
from stepwell.aws.deploy.packaging import StepLambda
from stepwell.aws.deploy.roles import RoleState
from stepwell.aws.deploy.step_lambdas import (
    LambdaState,
    changes,
    check_free,
    configuration,
    invocation_changes,
    is_traced,
)
from stepwell.aws.deploy.step_policy import StepNeeds, merged, policy
from stepwell.aws.deploy.values import Parameter, values_hash
from stepwell.aws.deploy.wanted import Wanted, known_tasks, targets
from stepwell.aws.functions.versions import Version
from stepwell.aws.naming import dotenv_parameter, log_group, role_name, secret_parameter, task_log_group
from stepwell.aws.resources import Resources


class MissingSecrets(Exception):
    """A step needs a secret that the environment has not; the message says which, and how to set it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the account has of all that. What is not there is not in the dictionaries."""

    roles: Mapping[str, RoleState]
    parameters: Mapping[str, Parameter]
    lambdas: Mapping[str, LambdaState]  # by name, or by the ARN that was given
    log_groups: Mapping[str, int]  # days that they keep logs; 0: for ever
    code: frozenset[str]  # keys in the bucket
    live: Mapping[str, Version]  # by function


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
        needs = StepNeeds(
            wanted.id,
            lambdas=bool(wanted.lambdas),
            secrets=wanted.lambda_secrets,
            dotenv=any(one.dotenv is not None for one in wanted.lambdas.values()),
            containers=bool(wanted.tasks),
            vpc=any(one.vpc for one in wanted.lambdas.values()),
            tracing=any(is_traced(one, resources) for one in wanted.lambdas.values()),
        )
        allowed = merged(policy(resources, needs), state.policy if state else None)
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
