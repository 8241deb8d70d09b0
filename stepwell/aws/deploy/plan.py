"""Computes the actions of a push: compares what functions need with what the account has. Pure.

There is an action only where something differs. A push of functions that are already live does nothing.
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
    check_free,
    configuration,
    invocation_changes,
    is_traced,
    lambda_changes,
)
from stepwell.aws.deploy.step_policy import StepNeeds, merged, policy
from stepwell.aws.deploy.values import Parameter, values_hash
from stepwell.aws.deploy.wanted import Wanted, known_tasks, targets
from stepwell.aws.functions.versions import Version
from stepwell.aws.naming import dotenv_parameter, log_group, role_name, secret_parameter, task_log_group
from stepwell.aws.resources import Resources


class MissingSecrets(Exception):
    """Steps need secrets that are not set in the environment. The message names them, and the commands to set them."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the account has of the things that functions need. Missing things are not in the dictionaries."""

    roles: Mapping[str, RoleState]
    parameters: Mapping[str, Parameter]
    lambdas: Mapping[str, LambdaState]  # by name, or by ARN if the step names an ARN
    log_groups: Mapping[str, int]  # name -> retention in days; 0: for ever
    code: frozenset[str]  # keys in the bucket
    live: Mapping[str, Version]  # by function id


def plan(functions: Iterable[Wanted], found: Found, resources: Resources) -> list[Action]:
    """The actions to take, in an order that works.

    Raises MissingSecrets, step_lambdas.NoLayer, step_lambdas.DestinationInUse.
    """
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
    return list(_without_repeats(actions))


def _without_repeats(actions: Iterable[Action]) -> Iterator[Action]:
    """The actions, each thing once. Functions may share code and Lambdas, and concurrent writes of one thing fail."""
    targets: set[tuple[str, str]] = set()
    for action in actions:
        if (action.kind, action.name) not in targets:
            targets.add((action.kind, action.name))
            yield action


def role_arn(wanted: Wanted, found: Found, resources: Resources) -> str:
    name = role_name(resources.env, wanted.id)
    partition = resources.partition
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
        fixes = "; ".join(f"`stepwell secrets set {name} --env {env}`" for name in missing)
        raise MissingSecrets(f"secrets that steps need are not set: {', '.join(missing)}; {fixes}")


def _preparations(wanted: Wanted, found: Found, resources: Resources) -> list[Action]:
    """The actions that must precede Lambdas and tasks: values, the role, log groups."""
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
            dotenv=any(step.dotenv is not None for step in wanted.lambdas.values()),
            containers=bool(wanted.tasks),
            vpc=any(step.vpc for step in wanted.lambdas.values()),
            tracing=any(is_traced(step, resources) for step in wanted.lambdas.values()),
        )
        allowed = merged(policy(resources, needs), state.policy if state else None)
        if state is None or not state.matches(allowed, resources):
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
        changes = lambda_changes(
            found.lambdas.get(name), configuration(step, resources, role), _values(step, found, resources), resources
        )
        if "create" in changes and step.code_key not in found.code:
            actions.append(Upload("upload", "code", step.code_key, step=step))
        if changes:
            verb = new_or_changed(name in found.lambdas)
            detail = ", ".join(changes) if verb == "update" else f"{step.runtime} {step.architecture}"
            actions.append(PutLambda(verb, "lambda", name, detail, step=step, changes=changes))
    return actions


def _values(step: StepLambda, found: Found, resources: Resources) -> str | None:
    """The hash of the Lambda's values after the push. Empty if it is unknown until the values are written; None if the
    Lambda has no values."""
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
        changes = invocation_changes(found.lambdas[arn], resources)
        if changes:
            actions.append(Adopt("update", "lambda", arn, ", ".join(changes), changes=changes))
    return actions


def _register(wanted: Wanted, found: Found, resources: Resources) -> list[Action]:
    live = found.live.get(wanted.id)
    known = known_tasks(wanted, resources, live)
    if live is not None and len(known) == len(wanted.tasks):
        is_same = orjson.loads(live.definition) == wanted.definition
        if is_same and live.targets == targets(wanted, resources, known):
            return []
    return [Register(new_or_changed(live is not None), "function", wanted.id, wanted=wanted)]
