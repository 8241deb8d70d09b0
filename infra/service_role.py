"""The service-linked role of ECS, AWSServiceRoleForECS, created before an account's first cluster.

ECS creates the role together with the first cluster, which is too late: CloudFormation fails with "Unable to assume the
service linked role". `AWS::IAM::ServiceLinkedRole` fails if the role exists already, and an account has only one. So a
Lambda creates the role if it does not exist.
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
    """The service-linked role. Constructs that need the role must depend on this one."""

    def __init__(self, scope: Construct, settings: Settings) -> None:
        super().__init__(scope, "ServiceRole")
        self.node.set_context("@aws-cdk/aws-lambda:useCdkManagedLogGroup", False)  # the log group is created here
        arn = f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"
        role = LambdaRole(self, "Role", STATEMENTS, {"service role": [arn]})
        function = lambda_.Function(
            self,
            "Function",
            description=f"Stepwell {settings.env}: creates the service-linked role of ECS, if the account has none",
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
        exists = CustomResource(self, "Exists", service_token=function.function_arn, resource_type="Custom::EcsRole")
        exists.node.add_dependency(log)
