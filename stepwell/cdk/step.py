"""One Lambda step in a stack: the Lambda, the published versions, the role, and grants.

A published version is frozen with code and settings. Each change publishes another version, and open runs continue on
theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aws_cdk import CfnTag, Stack, Token
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from stepwell.aws.deploy.packaging import StepLambda
from stepwell.aws.deploy.roles import POLICY, trust
from stepwell.aws.deploy.step_lambdas import configuration
from stepwell.aws.deploy.step_policy import StepNeeds, policy
from stepwell.aws.naming import ENV_TAG, FUNCTION_TAG, function_name, log_group
from stepwell.cdk.deployed import Deployed
from stepwell.cdk.options import StepOptions, content, network


class StepRole:
    """The role of Lambda steps of one function, created in `scope`.

    Each secret and the network have a separate policy. When a new version no longer needs one, the policy is retained
    with the role, for open runs of earlier versions.
    """

    def __init__(self, scope: Construct, deployed: Deployed, steps: Sequence[StepLambda]) -> None:
        self._scope, self._deployed, self._function_id = scope, deployed, steps[0].function_id
        resources = deployed.resources
        tracing = [step.tracing for step in steps]
        may_trace = deployed.may_trace(tracing)
        document = policy(resources, StepNeeds(self._function_id, lambdas=True, tracing=may_trace))
        document = deployed.policy(document, traced=any(tracing))
        self.role = iam.CfnRole(
            scope,
            "Role",
            assume_role_policy_document=trust(resources.account),
            permissions_boundary=deployed.permissions_boundary,
            policies=[iam.CfnRole.PolicyProperty(policy_name=POLICY, policy_document=document)],
            tags=tags(resources.env, self._function_id),
        )
        names = sorted(_secrets(steps))
        self.policies = [self._allow(f"secret-{n}", StepNeeds(self._function_id, secrets=[n])) for n in names]
        if any(step.vpc for step in steps):
            self.policies.append(self._allow("network", StepNeeds(self._function_id, vpc=True)))

    def _allow(self, name: str, needs: StepNeeds) -> iam.CfnPolicy:
        document = self._deployed.policy(policy(self._deployed.resources, needs))
        id = name[0].upper() + name[1:]
        return iam.CfnPolicy(self._scope, id, policy_name=name, policy_document=document, roles=[self.role.ref])


def _secrets(steps: Sequence[StepLambda]) -> set[str]:
    return {name for step in steps for name in step.secrets}


def tags(env: str, function_id: str) -> list[CfnTag]:
    return [CfnTag(key=ENV_TAG, value=env), CfnTag(key=FUNCTION_TAG, value=function_id)]


class Step(Construct):
    """A Lambda step. `role`: the role of all steps of the function."""

    def __init__(
        self,
        scope: Construct,
        deployed: Deployed,
        step: StepLambda,
        options: StepOptions,
        role: StepRole,
        zip: Path,
    ) -> None:
        super().__init__(scope, step.step_id)
        self._deployed, self._step, self._options = deployed, step, options
        self._network = network(self, options, step, deployed.resources)
        self._lambda = self._make(role, zip)
        layer = deployed.resources.layers.get(step.architecture, "")
        self._known = "" if Token.is_unresolved(layer) else layer  # a token's text differs in each synthesis
        digest = self._digest(has_own_role=False)
        self._version = lambda_.CfnVersion(self, f"Version{digest}", function_name=self._lambda.ref)
        self._invoke = self._outcomes(f"Outcomes{digest}")
        self._granted: lambda_.IFunction | None = None

    @property
    def target(self) -> str:
        """The ARN of the published version with this code and these settings."""
        return self._version.ref

    def granted(self) -> lambda_.IFunction:
        """The Lambda, for grants and connections. The first call gives the step a separate role, so that the function's
        other steps do not receive the grants."""
        if self._granted is None:
            own = StepRole(self, self._deployed, [self._step])
            self._use(self._lambda, own)
            self._rename(self._digest(has_own_role=True))
            self._granted = lambda_.Function.from_function_attributes(
                self,
                "Granted",
                function_arn=self._lambda.attr_arn,
                role=iam.Role.from_role_name(self, "Grants", own.role.ref),
                security_group=self._network.group if self._network else None,
                same_environment=True,
            )
        return self._granted

    def _digest(self, *, has_own_role: bool) -> str:
        stack, options = Stack.of(self), self._options
        env = dict(self._step.env)
        known = stack.resolve(env)  # a token's text differs in each synthesis
        parts = [self._step.hash if known == env else f"{replace(self._step, env=()).hash} {known}", self._known]
        if options.layers or self._network or has_own_role:
            ids = self._network and [self._network.subnet_ids, self._network.group_ids]
            parts.append(json.dumps([content(stack, options.layers), stack.resolve(ids), has_own_role]))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

    def _rename(self, digest: str) -> None:
        """Gives the version another logical id, so that CloudFormation creates it and retains the previous version."""
        prefix = Stack.of(self).get_logical_id(self._lambda)
        self._version.override_logical_id(f"{prefix}Version{digest}")
        self._invoke.override_logical_id(f"{prefix}Outcomes{digest}")

    def _outcomes(self, id: str) -> lambda_.CfnEventInvokeConfig:
        queue = self._deployed.resources.outcomes_queue_arn
        return lambda_.CfnEventInvokeConfig(
            self,
            id,
            function_name=self._lambda.ref,
            qualifier=self._version.attr_version,
            maximum_retry_attempts=0,
            maximum_event_age_in_seconds=self._deployed.resources.event_age_s,
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_success=lambda_.CfnEventInvokeConfig.OnSuccessProperty(destination=queue),
                on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=queue),
            ),
        )

    def _use(self, made: lambda_.CfnFunction, role: StepRole) -> None:
        """Sets the Lambda's role, and makes the Lambda depend on the role's policies: Lambda checks at creation whether
        the role may create network interfaces."""
        made.role = role.role.attr_arn
        for needed in role.policies:
            made.add_resource_dependency(needed)

    def _make(self, role: StepRole, zip: Path) -> lambda_.CfnFunction:
        step, resources = self._step, self._deployed.resources
        place = hashlib.sha256(f"cdk {step.function_id} {step.step_id}".encode()).hexdigest()
        name = function_name(resources.env, step.function_id, place)
        group = logs.CfnLogGroup(
            self,
            "Log",
            log_group_name=log_group(name),
            retention_in_days=resources.retention_days,
            kms_key_id=self._deployed.kms_key,
        )
        self._deployed.acknowledge(group)
        asset = assets.Asset(self, "Code", path=str(zip))
        settings = configuration(step, resources, role.role.attr_arn)
        own_layers = [layer.layer_version_arn for layer in self._options.layers]
        made = lambda_.CfnFunction(
            self,
            "Function",
            function_name=name,
            description=settings["Description"],
            code=lambda_.CfnFunction.CodeProperty(s3_bucket=asset.s3_bucket_name, s3_key=asset.s3_object_key),
            runtime=settings["Runtime"],
            handler=settings["Handler"],
            memory_size=settings["MemorySize"],
            timeout=settings["Timeout"],
            role=settings["Role"],
            layers=[*settings["Layers"][:-1], *own_layers, settings["Layers"][-1]],  # the adapter's is last
            architectures=[step.architecture],
            environment=lambda_.CfnFunction.EnvironmentProperty(variables=settings["Environment"]["Variables"]),
            ephemeral_storage=lambda_.CfnFunction.EphemeralStorageProperty(size=settings["EphemeralStorage"]["Size"]),
            tracing_config=lambda_.CfnFunction.TracingConfigProperty(mode=self._deployed.tracing_mode(step.tracing)),
            vpc_config=self._network.config if self._network else None,
            recursive_loop="Allow",
            tags=tags(resources.env, step.function_id),
        )
        made.add_resource_dependency(group)
        self._use(made, role)
        return made
