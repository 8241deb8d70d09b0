"""Options of steps in a stack: settings that take constructs instead of ids, beyond the definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from aws_cdk import Fn, Size, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stepwell.aws.deploy.packaging import StepLambda, is_reserved
from stepwell.aws.resources import Resources
from stepwell.core.definition.problems import nearest

_MOST_LAYERS = 4  # of five: one is the adapter's


class CannotDeploy(Exception):
    """A function cannot be part of a stack. The message gives the reason and the fix."""


@dataclass(frozen=True)
class StepOptions:
    """Options of Lambda steps. They override the definition; `environment` and `layers` are added to it.

    `vpc_subnets`: the default is the private subnets of `vpc`. `security_groups`: by default, one is created for each
    step. Connections (`database.connections.allow_default_port_from(step)`) use the first group.
    """

    vpc: ec2.IVpc | None = None
    vpc_subnets: ec2.SubnetSelection | None = None
    security_groups: Sequence[ec2.ISecurityGroup] = ()
    layers: Sequence[lambda_.ILayerVersion] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_size: int | None = None  # MB
    ephemeral_storage_size: Size | None = None
    tracing: bool | None = None

    def over(self, defaults: StepOptions) -> StepOptions:
        """The options combined: `self` overrides `defaults`."""
        own = {option.name: getattr(self, option.name) for option in fields(self)}
        combined = replace(defaults, **{name: value for name, value in own.items() if value not in (None, (), [], {})})
        return replace(combined, environment={**defaults.environment, **self.environment})

    def applied(self, step: StepLambda) -> StepLambda:
        """The step with the options that are plain values. Raises CannotDeploy."""
        name = f"{step.function_id}/{step.step_id}"
        for variable in self.environment:
            if is_reserved(variable):
                raise CannotDeploy(f"{name}: the variable {variable} is reserved by Lambda or Stepwell; rename it")
        if len(step.layers) + len(self.layers) > _MOST_LAYERS:
            raise CannotDeploy(
                f"{name}: it has more than {_MOST_LAYERS} layers; Lambda allows five, and one is the adapter's"
            )
        storage = self.ephemeral_storage_size
        return replace(
            step,
            env=tuple(sorted({**dict(step.env), **self.environment}.items())),
            memory=self.memory_size or step.memory,
            ephemeral_storage=step.ephemeral_storage if storage is None else int(storage.to_mebibytes()),
            tracing=step.tracing if self.tracing is None else self.tracing,
            vpc=step.vpc or self.vpc is not None,
        )


def check_names(steps: Mapping[str, StepOptions], known: Sequence[str]) -> None:
    """Raises CannotDeploy if there are options for a step that does not exist or is not a Lambda."""
    for name in steps:
        if name not in known:
            raise CannotDeploy(f"there are options for {name!r}, which is not a Lambda step; {nearest(name, known)}")


@dataclass(frozen=True)
class Network:
    """The network of one Lambda. `group`: the first security group, which connections use."""

    subnet_ids: list[str]
    group_ids: list[str]
    group: ec2.ISecurityGroup

    @property
    def config(self) -> lambda_.CfnFunction.VpcConfigProperty:
        return lambda_.CfnFunction.VpcConfigProperty(subnet_ids=self.subnet_ids, security_group_ids=self.group_ids)


def network(scope: Construct, options: StepOptions, step: StepLambda, resources: Resources) -> Network | None:
    """The network of a step's Lambda: from the options, or else the environment's. None: the Lambda is not in a VPC.

    Raises CannotDeploy.
    """
    if options.vpc is not None:
        return _in_vpc(scope, options.vpc, options, step)
    if not step.vpc:
        return None
    subnets, groups = list(resources.step_subnets), list(resources.step_security_groups)
    first = ec2.SecurityGroup.from_security_group_id(scope, "SecurityGroup", Fn.select(0, groups))
    return Network(subnets, groups, first)


def _in_vpc(scope: Construct, vpc: ec2.IVpc, options: StepOptions, step: StepLambda) -> Network:
    chosen = options.vpc_subnets
    if chosen is None:
        selected = vpc.select_subnets()
    else:
        selected = vpc.select_subnets(
            subnet_type=chosen.subnet_type,
            subnet_group_name=chosen.subnet_group_name,
            subnets=chosen.subnets,
            availability_zones=chosen.availability_zones,
            one_per_az=chosen.one_per_az,
            subnet_filters=chosen.subnet_filters,
        )
    if selected.has_public:
        raise CannotDeploy(
            f"{step.function_id}/{step.step_id}: a Lambda in a public subnet has no public address, so it cannot reach"
            " anything outside the VPC; choose private subnets with vpc_subnets"
        )
    groups = list(options.security_groups) or [
        ec2.SecurityGroup(scope, "SecurityGroup", vpc=vpc, description=f"Step {step.step_id} of {step.function_id}")
    ]
    return Network(selected.subnet_ids, [group.security_group_id for group in groups], groups[0])


def content(stack: Stack, layers: Sequence[lambda_.ILayerVersion]) -> list[Any]:
    """Values that change when a layer changes: the ARNs, and the content of layers that this app creates."""
    found: list[Any] = []
    for layer in layers:
        made = layer.node.default_child
        found.append(stack.resolve(layer.layer_version_arn))
        if isinstance(made, lambda_.CfnLayerVersion):
            found.append(stack.resolve(made.content))
    return found
