"""The role with which ECS works in an account, made before the first cluster.

ECS makes AWSServiceRoleForECS by itself with an account's first cluster, too late for it: CloudFormation's first try
fails with "Unable to assume the service linked role". `AWS::IAM::ServiceLinkedRole` in turn fails where the role exists
already, and an account has only one. So a Lambda makes it unless it is there.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using-service-linked-roles.html
https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/818
"""

from __future__ import annotations

from pathlib import Path

from aws_cdk import Aws, CustomResource, Duration
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.logs import log_group
from infra.roles import LambdaRole, Statement, let_log
from infra.settings import Settings

HANDLER = Path(__file__).parent / "service_role_handler.py"
FOR_ECS = {"StringEquals": {"iam:AWSServiceName": "ecs.amazonaws.com"}}
STATEMENTS = (
    Statement("iam:GetRole", ("service role",)),
    Statement("iam:CreateServiceLinkedRole", ("service role",), FOR_ECS),
)


class ServiceRole(Construct):
    """Whatever needs the role depends on this construct."""

    def __init__(self, scope: Construct, settings: Settings) -> None:
        super().__init__(scope, "ServiceRole")
        self.node.set_context("@aws-cdk/aws-lambda:useCdkManagedLogGroup", False)  # its log group is made here
        arn = f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"
        role = LambdaRole(self, "Role", STATEMENTS, {"service role": [arn]})
        function = lambda_.Function(
            self,
            "Function",
            description=f"Stepwell {settings.env}: makes the role of ECS, if the account has none",
            code=lambda_.Code.from_inline(HANDLER.read_text()),
            handler="index.handler",
            runtime=lambda_.Runtime(
                f"python{settings.python}", lambda_.RuntimeFamily.PYTHON, supports_inline_code=True
            ),
            architecture=lambda_.Architecture.custom(settings.architecture),
            timeout=Duration.seconds(60),
            role=role.without_policy_updates(),
        )
        log = log_group(self, "Log", settings, f"/aws/lambda/{function.function_name}")
        let_log(self, role, log.log_group_arn)
        there = CustomResource(self, "Exists", service_token=function.function_arn, resource_type="Custom::EcsRole")
        there.node.add_dependency(log)
