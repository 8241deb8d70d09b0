"""Stepwell functions in your own stack, for teams that deploy only with `cdk deploy`.

Packaging and names are those of `stepwell push`, but CloudFormation creates the resources. Each step is one Lambda, and
each change publishes a version. Versions are retained, so that open runs continue on them. A version is frozen: a
changed secret takes effect when the version's sandboxes have ended, within hours.

When a step is removed from the stack, its resources stay in the account, because open runs may need them. `stepwell
functions prune` removes them later (docs/internals/adr/0018-what-leaves-a-stack.md).

    Functions(self, "Functions", path="functions/", env="prod")
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jsii
from aws_cdk import (
    Annotations,
    Aspects,
    CfnResource,
    CustomResource,
    IAspect,
    RemovalPolicy,
    Stack,
)
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_ssm as ssm
from constructs import Construct, IConstruct

from stepwell.aws.deploy.modules import write_package
from stepwell.aws.deploy.packaging import StepLambda
from stepwell.aws.deploy.wanted import Wanted, wanted
from stepwell.aws.functions.custom_resource import FUNCTION, TYPE, WEBHOOK
from stepwell.aws.resources import Resources
from stepwell.cdk.deployed import Deployed
from stepwell.cdk.environment import registrar_parameter
from stepwell.cdk.options import CannotDeploy, StepOptions, check_names
from stepwell.cdk.step import Step, StepRole
from stepwell.core.definition.problems import nearest
from stepwell.core.definition.runtimes import Docker, Lambda
from stepwell.event_types.registry import TypeVersion
from stepwell.project.event_types import project_types
from stepwell.project.expression_checks import check_expressions
from stepwell.project.load import LoadedFunction, LoadError, load_all
from stepwell.project.pushed import not_pushed
from stepwell.project.rule_files import RuleFile
from stepwell.project.search import Tree
from stepwell.project.webhooks import find_webhooks


class Functions(Construct):
    """All functions at or below `path`, with event types and webhooks.

    `env`: the environment's name; the default is `env` in the CDK context, or `dev`. `resources`: the environment's
    values; without them CloudFormation reads the values at deployment. `options`: for all Lambda steps; `steps`:
    for single Lambda steps, by `function/step`. Docker steps and `.env` files are not supported.

    Raises CannotDeploy, LoadError, CannotPush.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        path: str | Path,
        *,
        env: str | None = None,
        resources: Resources | None = None,
        options: StepOptions | None = None,
        steps: Mapping[str, StepOptions] | None = None,
    ) -> None:
        super().__init__(scope, id)
        env = env or self.node.try_get_context("env") or "dev"
        self._options, self._own_options = options or StepOptions(), steps or {}
        self.registrar = ssm.StringParameter.value_for_string_parameter(self, registrar_parameter(env))
        project = _read_project(Path(path))
        for warning in project.warnings:
            Annotations.of(self).add_warning_v2("stepwell:doubt", warning)
        self.zips = Path(tempfile.mkdtemp(prefix="stepwell-"))
        types = Construct(self, "Types")
        _add_types(types, project.types, self.registrar)
        found = self._wanted(project.functions, env, resources)
        live = [_Function(self, function) for function in found]
        self._steps = {f"{function.node.id}/{id}": step for function in live for id, step in function.steps.items()}
        check_names(self._own_options, [*self._steps])
        for function in live:
            function.node.add_dependency(types)  # event types are registered before the function is live
        for webhook in project.webhooks:
            rule = {"Rule": json.dumps(webhook.rule)}
            made = _custom(self, f"Webhook-{webhook.name}", self.registrar, WEBHOOK, rule)
            made.node.add_dependency(*live)

    def _wanted(self, functions: Sequence[LoadedFunction], env: str, resources: Resources | None) -> list[Wanted]:
        """The resources that the functions need, with the options of their steps applied."""
        needs_network = any(self._needs_network(function) for function in functions)
        self.deployed = Deployed(self, "Environment", env, resources, network=needs_network)
        _check_runtimes(functions)
        available = self.deployed.resources
        if not needs_network:
            available = replace(available, step_subnets=("from the options",))
        found = [self._with_options(function) for function in wanted(functions, available)]
        self.deployed.find_layers(step.architecture for function in found for step in function.lambdas.values())
        return found

    def step(self, function_id: str, step_id: str) -> lambda_.IFunction:
        """The Lambda of a step, for grants (`table.grant_read_write_data(...)`) and connections.

        The step gets a separate role, so that the function's other steps do not receive the grants. Raises
        CannotDeploy.
        """
        name = f"{function_id}/{step_id}"
        if name not in self._steps:
            raise CannotDeploy(f"there is no Lambda step {name!r} in this stack; {nearest(name, self._steps)}")
        return self._steps[name].granted()

    def options_of(self, function_id: str, step_id: str) -> StepOptions:
        own = self._own_options.get(f"{function_id}/{step_id}")
        return self._options if own is None else own.over(self._options)

    def _needs_network(self, function: LoadedFunction) -> bool:
        """Whether a step has `vpc: true`, and the options name no VPC."""
        definition = function.definition
        in_vpc = [id for id, step in definition.steps.items() if isinstance(step.runtime, Lambda) and step.runtime.vpc]
        return any(self.options_of(definition.id, id).vpc is None for id in in_vpc)

    def _with_options(self, function: Wanted) -> Wanted:
        lambdas = {id: self.options_of(function.id, id).applied(step) for id, step in function.lambdas.items()}
        return replace(function, lambdas=lambdas)


@dataclass(frozen=True)
class _Project:
    functions: Sequence[LoadedFunction]
    types: Sequence[TypeVersion]
    webhooks: Sequence[RuleFile]
    warnings: Sequence[str]


def _read_project(path: Path) -> _Project:
    """Reads the functions, types and webhooks at or below a path. Raises LoadError."""
    tree = Tree([path])
    functions, errors = load_all(tree)
    if errors:
        raise errors[0]
    types, webhooks = project_types(tree, functions), find_webhooks(tree)
    if problems := [*types.problems, *webhooks.problems]:
        raise LoadError(problems)
    wrong_expressions = check_expressions(functions, types).errors
    omitted = [note for function in functions for note in not_pushed(function)]
    warnings = [*tree.passed_over, *omitted, *types.warnings, *wrong_expressions, *webhooks.warnings]
    return _Project(functions, types.types, webhooks.rules, list(map(str, warnings)))


def _check_runtimes(functions: Iterable[LoadedFunction]) -> None:
    for definition in (function.definition for function in functions):
        if any(isinstance(step.runtime, Docker) for step in definition.steps.values()):
            raise CannotDeploy(f"{definition.id}: docker steps are not supported in a stack; use `stepwell push`")


def _add_types(scope: Construct, types: Iterable[TypeVersion], registrar: str) -> None:
    """Adds the types. Each version depends on the previous version of the type, so they are registered in order."""
    last: dict[str, CustomResource] = {}
    for version in types:
        properties = {"Name": version.name, "Version": version.version, "Schema": json.dumps(version.schema)}
        properties |= {} if version.policy is None else {"Policy": version.policy.value}
        digest = hashlib.sha256(f"{version.name} {version.version}".encode()).hexdigest()[:12]
        made = _custom(scope, f"Type{digest}", registrar, TYPE, properties)
        if version.name in last:
            made.node.add_dependency(last[version.name])
        last[version.name] = made


def _custom(scope: Construct, id: str, registrar: str, kind: str, properties: dict[str, str]) -> CustomResource:
    return CustomResource(scope, id, service_token=registrar, resource_type=kind, properties=properties)


@jsii.implements(IAspect)
class _Retain:
    """Retains the resources of steps that leave the stack. A failed deployment still removes what it has just created:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-deletionpolicy.html"""

    def visit(self, node: IConstruct) -> None:
        if isinstance(node, CfnResource) and not node.cfn_resource_type.startswith("Custom::"):
            node.apply_removal_policy(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)


class _Function(Construct):
    def __init__(self, scope: Functions, wanted: Wanted) -> None:
        super().__init__(scope, wanted.id)
        self._functions, self._wanted, self._resources = scope, wanted, scope.deployed.resources
        self._check()
        self.steps = self._made_steps()
        targets = {step: {"lambda": arn} for step, arn in wanted.arns.items()}
        targets |= {id: {"lambda": step.target} for id, step in self.steps.items()}
        properties = {
            "Definition": json.dumps(wanted.definition),
            "Targets": Stack.of(self).to_json_string(targets),
            "Code": json.dumps(wanted.code),
            "File": wanted.file.name,
        }
        registered = _custom(self, "Registered", scope.registrar, FUNCTION, properties)
        for child in self.node.children:
            if child is not registered:  # the version goes live last, as in a push
                registered.node.add_dependency(child)
        Aspects.of(self).add(_Retain())

    def _check(self) -> None:
        if self._wanted.dotenv(self._resources.env):
            raise CannotDeploy(
                f"{self._wanted.id}: CloudFormation cannot create secret parameters; use secrets instead of .env"
            )

    def _made_steps(self) -> dict[str, Step]:
        lambdas, deployed = self._wanted.lambdas, self._functions.deployed
        if not lambdas:
            return {}
        role = StepRole(self, deployed, list(lambdas.values()))
        return {
            id: Step(self, deployed, step, self._functions.options_of(self._wanted.id, id), role, self._zip(step))
            for id, step in lambdas.items()
        }

    def _zip(self, step: StepLambda) -> Path:
        path = self._functions.zips / step.code_key.rpartition("/")[2]
        if not path.exists():
            with path.open("w+b") as file:
                write_package(step, file)
        return path
