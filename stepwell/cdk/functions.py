"""Stepwell functions as part of a stack of your own, for teams whose `cdk deploy` is the only way into an account.

It packages and names as `stepwell push` does; what differs is who makes it. A step is one Lambda here, and each of its
versions is kept, so that open runs go on with theirs. A version is frozen: a changed secret reaches it when its
sandboxes have ended, within hours. What a step runs on stays in the account when the step leaves the stack, because
open runs may need it; `stepwell functions prune` removes it later (docs/adr/0018-what-leaves-a-stack.md).

    Functions(self, "Functions", path="functions/", env="prod")
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jsii
from aws_cdk import (
    Annotations,
    Aspects,
    CfnResource,
    CfnTag,
    CustomResource,
    IAspect,
    RemovalPolicy,
    Stack,
    Token,
)
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_ssm as ssm
from constructs import Construct, IConstruct

from stepwell.aws.deployment import Wanted, wanted
from stepwell.aws.naming import ENV_TAG, FUNCTION_TAG, function_name, log_group
from stepwell.aws.packaging import StepLambda, write_zip
from stepwell.aws.registrar import FUNCTION, TYPE, WEBHOOK
from stepwell.aws.resources import Resources
from stepwell.aws.roles import POLICY, policy, trust
from stepwell.aws.step_lambdas import configuration
from stepwell.cdk.environment import registrar_parameter
from stepwell.event_types.types import TypeVersion
from stepwell.project.expression_checks import check_expressions
from stepwell.project.load import LoadError, load_all
from stepwell.project.pushed import left_out
from stepwell.project.search import Tree
from stepwell.project.types import project_types
from stepwell.project.webhooks import find_webhooks


class CannotDeploy(Exception):
    """A function cannot be part of a stack; the message says why, and the cure."""


class Functions(Construct):
    """Every function at or below `path`, with the types of its events, and webhooks. `env`: the environment; else the
    CDK context's `env`, as for Stepwell's own app. `resources`: of the environment; else read from the account, when
    the stack is synthesised. Functions with docker steps or `.env` files are no part of a stack. Raises CannotDeploy,
    LoadError, Refused, NoEnvironment."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        path: str | Path,
        *,
        env: str | None = None,
        resources: Resources | None = None,
    ) -> None:
        super().__init__(scope, id)
        env = env or self.node.try_get_context("env") or "dev"
        self.resources = resources or Resources.of_environment(env)
        self.registrar = ssm.StringParameter.value_for_string_parameter(self, registrar_parameter(env))
        tree = Tree([Path(path)])
        functions, errors = load_all(tree)
        if errors:
            raise errors[0]
        types, webhooks = project_types(tree, functions), find_webhooks(tree)
        if problems := [*types.problems, *webhooks.problems]:
            raise LoadError(problems)
        wrong = check_expressions(functions, types).errors
        left = [note for function in functions for note in left_out(function)]
        for warning in (*tree.passed_over, *left, *types.warnings, *wrong, *webhooks.warnings):
            Annotations.of(self).add_warning_v2("stepwell:doubt", str(warning))
        self.zips = Path(tempfile.mkdtemp(prefix="stepwell-"))
        made = Construct(self, "Types")
        _add_types(made, types.types, self.registrar)
        live = [_Function(self, its) for its in wanted(functions, self.resources)]
        for function in live:
            function.node.add_dependency(made)  # what its events must look like is known before it is live
        for its in webhooks.webhooks:
            webhook = _custom(self, f"Webhook-{its.name}", self.registrar, WEBHOOK, {"Rule": json.dumps(its.rule)})
            webhook.node.add_dependency(*live)


def _add_types(scope: Construct, types: Iterable[TypeVersion], registrar: str) -> None:
    """Each version after the one before it."""
    last: dict[str, CustomResource] = {}
    for its in types:
        properties = {"Name": its.name, "Version": its.version, "Schema": json.dumps(its.schema)}
        properties |= {} if its.policy is None else {"Policy": its.policy.value}
        digest = hashlib.sha256(f"{its.name} {its.version}".encode()).hexdigest()[:12]
        made = _custom(scope, f"Type{digest}", registrar, TYPE, properties)
        if its.name in last:
            made.node.add_dependency(last[its.name])
        last[its.name] = made


def _custom(scope: Construct, id: str, registrar: str, kind: str, properties: dict[str, str]) -> CustomResource:
    return CustomResource(scope, id, service_token=registrar, resource_type=kind, properties=properties)


@jsii.implements(IAspect)
class _Retain:
    """Keeps what steps run on when it leaves the stack; what a deploy that fails has just made goes again:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-deletionpolicy.html"""

    def visit(self, node: IConstruct) -> None:
        if isinstance(node, CfnResource) and not node.cfn_resource_type.startswith("Custom::"):
            node.apply_removal_policy(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)


class _Function(Construct):
    def __init__(self, scope: Functions, its: Wanted) -> None:
        super().__init__(scope, its.id)
        self._all, self._its, self._resources = scope, its, scope.resources
        self._check()
        self._tags = [CfnTag(key=ENV_TAG, value=self._resources.env), CfnTag(key=FUNCTION_TAG, value=its.id)]
        role = self._role() if its.lambdas else ""
        targets = {step: {"lambda": arn} for step, arn in its.arns.items()}
        targets |= {step: {"lambda": self._version(one, role)} for step, one in its.lambdas.items()}
        properties = {
            "Definition": json.dumps(its.definition),
            "Targets": Stack.of(self).to_json_string(targets),
            "Code": json.dumps(its.code),
            "File": its.file.name,
        }
        registered = _custom(self, "Registered", scope.registrar, FUNCTION, properties)
        for child in self.node.children:
            if child is not registered:  # live last, as with a push
                registered.node.add_dependency(child)
        Aspects.of(self).add(_Retain())

    def _check(self) -> None:
        if self._its.tasks:
            raise CannotDeploy(f"{self._its.id}: docker steps are no part of a stack; use `stepwell push`")
        if self._its.dotenv(self._resources.env):
            raise CannotDeploy(
                f"{self._its.id}: CloudFormation makes no secret parameters; use secrets instead of .env"
            )

    def _role(self) -> str:
        resources, its = self._resources, self._its
        document = policy(resources, its.id, lambdas=True)
        role = iam.CfnRole(
            self,
            "Role",
            assume_role_policy_document=trust(resources.account),
            permissions_boundary=resources.permissions_boundary or None,
            policies=[iam.CfnRole.PolicyProperty(policy_name=POLICY, policy_document=document)],
            tags=self._tags,
        )
        self._let_read(role)
        return role.attr_arn

    def _let_read(self, role: iam.CfnRole) -> None:
        """One policy for each secret: when a new version does without a secret, its policy stays with the role, for the
        open runs of earlier versions."""
        for name in sorted(self._its.lambda_secrets):
            document = policy(self._resources, self._its.id, secrets=[name])
            iam.CfnPolicy(
                self, f"Secret-{name}", policy_name=f"secret-{name}", policy_document=document, roles=[role.ref]
            )

    def _version(self, step: StepLambda, role: str) -> str:
        """The ARN of the version of the step's Lambda that has this code and these settings."""
        scope = Construct(self, step.step_id)
        made = self._lambda(scope, step, role)
        layer = self._resources.layers.get(step.architecture, "")
        known = "" if Token.is_unresolved(layer) else layer  # a token's text is another each time
        digest = hashlib.sha256(f"{step.hash} {known}".encode()).hexdigest()[:12]
        version = lambda_.CfnVersion(scope, f"Version{digest}", function_name=made.ref)
        queue = self._resources.outcomes_queue_arn
        lambda_.CfnEventInvokeConfig(
            scope,
            f"Outcomes{digest}",
            function_name=made.ref,
            qualifier=version.attr_version,
            maximum_retry_attempts=0,
            maximum_event_age_in_seconds=self._resources.event_age_s,
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_success=lambda_.CfnEventInvokeConfig.OnSuccessProperty(destination=queue),
                on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=queue),
            ),
        )
        return version.ref

    def _lambda(self, scope: Construct, step: StepLambda, role: str) -> lambda_.CfnFunction:
        env, place = self._resources.env, hashlib.sha256(f"cdk {step.function_id} {step.step_id}".encode()).hexdigest()
        name = function_name(env, step.function_id, place)
        group = logs.CfnLogGroup(
            scope,
            "Log",
            log_group_name=log_group(name),
            retention_in_days=self._resources.retention_days,
            kms_key_id=self._resources.kms_key or None,
        )
        asset = assets.Asset(scope, "Code", path=str(self._zip(step)))
        its = configuration(step, self._resources, role)
        made = lambda_.CfnFunction(
            scope,
            "Function",
            function_name=name,
            description=its["Description"],
            code=lambda_.CfnFunction.CodeProperty(s3_bucket=asset.s3_bucket_name, s3_key=asset.s3_object_key),
            runtime=its["Runtime"],
            handler=its["Handler"],
            memory_size=its["MemorySize"],
            timeout=its["Timeout"],
            role=role,
            layers=its["Layers"],
            architectures=[step.architecture],
            environment=lambda_.CfnFunction.EnvironmentProperty(variables=its["Environment"]["Variables"]),
            recursive_loop="Allow",
            tags=self._tags,
        )
        made.add_dependency(group)
        return made

    def _zip(self, step: StepLambda) -> Path:
        path = self._all.zips / step.code_key.rpartition("/")[2]
        if not path.exists():
            with path.open("wb") as file:
                write_zip(step.code, step.layout, file)
        return path
