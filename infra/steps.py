"""The resources that steps run on: the adapter's layers, and a cluster for containers with the setting `vpc`.

The steps themselves are not part of the stack. `stepwell push` creates them, so a new function needs no deployment.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import cast

from aws_cdk import (
    Aws,
    CfnDeletionPolicy,
    RemovalPolicy,
    Stack,
    Token,
)
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.key import key_of, via
from infra.nag import acknowledge_wildcards
from infra.roles import for_this_account
from infra.service_role import ServiceRole
from infra.setting_fields import BadSetting
from infra.settings import Settings
from stepwell.aws.deploy import adapter
from stepwell.aws.deploy.step_policy import boundary
from stepwell.aws.naming import dotenv_prefix, secrets_prefix, task_log_group
from stepwell.aws.resources import Resources

ARCHITECTURES = {"arm64": lambda_.Architecture.ARM_64, "x86_64": lambda_.Architecture.X86_64}
PLATFORMS = {"arm64": ecr_assets.Platform.LINUX_ARM64, "x86_64": ecr_assets.Platform.LINUX_AMD64}


class StepLayers(Construct):
    """The step adapter as a Lambda layer, for each architecture that a step can have.

    Replaced versions of a layer are retained, since steps of earlier pushes use them. Lambda does not create or
    configure a function with a deleted version (https://docs.aws.amazon.com/lambda/latest/dg/delete-layer.html).
    `stepwell functions prune` deletes a replaced version once no function uses it. The newest version is deleted with
    the stack.
    """

    def __init__(self, scope: Construct, build: Path) -> None:
        super().__init__(scope, "StepLayers")
        self._build = build
        self.arns = {name: self._layer(name).layer_version_arn for name in ARCHITECTURES}

    def _layer(self, architecture: str) -> lambda_.LayerVersion:
        layer = lambda_.LayerVersion(
            self,
            architecture,
            code=lambda_.Code.from_asset(str(_with_adapter(self._build / f"layer-{architecture}", architecture))),
            compatible_architectures=[ARCHITECTURES[architecture]],
            description="Runs any program as a step of Stepwell",
        )
        made = cast(lambda_.CfnLayerVersion, layer.node.default_child)
        made.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
        made.cfn_options.deletion_policy = CfnDeletionPolicy.DELETE
        return layer


class StepBoundary(Construct):
    """The permissions boundary for the roles of steps that `stepwell push` creates."""

    def __init__(self, scope: Construct, settings: Settings, resources: Resources) -> None:
        super().__init__(scope, "StepBoundary")
        document = boundary(resources, settings.step_action_list)
        policy = iam.CfnManagedPolicy(
            self,
            "Policy",
            managed_policy_name=f"stepwell-{settings.env}-steps-{Aws.REGION}",
            description=f"The most that steps of Stepwell {settings.env} may do",
            policy_document=document,
        )
        self.arn = policy.ref
        acknowledge_wildcards(self, document)


class Containers(Construct):
    """A cluster on Fargate, and the resources that tasks need. It costs nothing while no task runs."""

    def __init__(self, scope: Construct, settings: Settings, build: Path) -> None:
        super().__init__(scope, "Containers")
        self.settings = settings
        vpc_id, self.subnets = self._network()
        self.cluster = ecs.CfnCluster(self, "Cluster", capacity_providers=["FARGATE", "FARGATE_SPOT"])
        self.cluster.node.add_dependency(ServiceRole(self, settings))
        self.security_group = ec2.CfnSecurityGroup(
            self,
            "SecurityGroup",
            group_description=f"Containers of Stepwell {settings.env}: out to everywhere, in from nowhere",
            vpc_id=vpc_id,
            security_group_egress=[{"ipProtocol": "-1", "cidrIp": "0.0.0.0/0"}],
        )
        self.repository = self._repository()
        self.images = {name: self._adapter_image(build, name) for name in PLATFORMS}
        self.execution_role = self._execution_role()

    def _network(self) -> tuple[str, list[str]]:
        """The VPC's id and the ids of subnets; looked up in the account unless the settings have them."""
        settings = self.settings
        if settings.subnet_ids:
            return settings.vpc, settings.subnet_ids
        if Token.is_unresolved(Stack.of(self).account):
            raise BadSetting(
                f"vpc: to look up {settings.vpc}, CDK needs the account: use AWS credentials,"
                " or set the subnets too: -c vpc=vpc-... -c subnets=subnet-...,subnet-..."
            )
        wanted = {"is_default": True} if settings.vpc == "default" else {"vpc_id": settings.vpc}
        vpc = ec2.Vpc.from_lookup(self, "Vpc", **wanted)
        subnets = vpc.private_subnets or vpc.public_subnets
        return vpc.vpc_id, [subnet.subnet_id for subnet in subnets]

    def _repository(self) -> ecr.Repository:
        keep, key = self.settings.keep_data, key_of(self, self.settings)
        return ecr.Repository(
            self,
            "Images",
            encryption=None if key is None else ecr.RepositoryEncryption.KMS,
            encryption_key=key,
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            removal_policy=RemovalPolicy.RETAIN if keep else RemovalPolicy.DESTROY,
            empty_on_delete=not keep,
        )

    def _adapter_image(self, build: Path, architecture: str) -> ecr_assets.DockerImageAsset:
        """An image that contains only the adapter. Docker (or the program in CDK_DOCKER) builds it at deployment, for
        either architecture on any machine: the build only copies a file."""
        folder = _with_adapter(build / f"image-{architecture}", architecture)
        (folder / "Dockerfile").write_text('FROM scratch\nCOPY bootstrap /bootstrap\nENTRYPOINT ["/bootstrap"]\n')
        return ecr_assets.DockerImageAsset(
            self, f"Adapter-{architecture}", directory=str(folder), platform=PLATFORMS[architecture]
        )

    def _execution_role(self) -> iam.Role:
        """The role that ECS uses to start a task: to pull the images, write the log, and read the values in SSM."""
        env = self.settings.env
        parameters = parameter_arns(env)
        logs = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:{task_log_group(env, '')}*"
        role = iam.Role(
            self,
            "ExecutionRole",
            assumed_by=for_this_account("ecs-tasks.amazonaws.com"),
            inline_policies={
                "stepwell": iam.PolicyDocument(
                    statements=[
                        iam.PolicyStatement(actions=["ssm:GetParameters"], resources=parameters),
                        iam.PolicyStatement(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[logs]),
                        *self._decrypt_values(),
                    ]
                )
            },
        )
        self.repository.grant_pull(role)
        for image in self.images.values():
            image.repository.grant_pull(role)
        return role

    def _decrypt_values(self) -> list[iam.PolicyStatement]:
        key = self.settings.kms_key
        return [iam.PolicyStatement(actions=["kms:Decrypt"], resources=[key], conditions=via("ssm"))] if key else []


def parameter_arns(env: str) -> list[str]:
    """The ARNs of parameters in SSM that steps may read: `.env` files and secrets."""
    return [parameter_arn(f"{prefix}*") for prefix in (dotenv_prefix(env), secrets_prefix(env))]


def parameter_arn(name: str) -> str:
    return f"arn:{Aws.PARTITION}:ssm:{Aws.REGION}:{Aws.ACCOUNT_ID}:parameter{name}"


def _with_adapter(folder: Path, architecture: str) -> Path:
    """The folder with the adapter as `bootstrap`, the name that Lambda requires. The file is replaced atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as new:
        copied = Path(shutil.copy(adapter.binary(architecture), new))
        copied.chmod(0o755)
        copied.replace(folder / "bootstrap")
    return folder
