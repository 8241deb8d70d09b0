"""The signing keys: a SecureString in SSM, created by the Lambda `register`, as CloudFormation cannot create one.

The keys are created before the Lambdas that use them. Older versions of Stepwell have a key in the table; it is deleted
after all these Lambdas are updated.
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ssm-parameter.html
"""

from __future__ import annotations

from aws_cdk import CustomResource, RemovalPolicy
from constructs import Construct

from infra.functions import Functions
from infra.roles import READ_KEYS
from infra.settings import Settings
from stepwell.aws.functions.custom_resource import SECRET_IN_TABLE, SIGNING_KEYS
from stepwell.aws.naming import signing_keys_parameter


class SigningKeys(Construct):
    def __init__(self, scope: Construct, settings: Settings, functions: Functions, table: str) -> None:
        super().__init__(scope, "SigningKeys")
        register = functions.by_name["register"]
        users = [functions.by_name[name] for name in READ_KEYS]
        keys = CustomResource(
            self,
            "Keys",
            service_token=register.function_arn,
            resource_type=SIGNING_KEYS,
            removal_policy=RemovalPolicy.RETAIN if settings.keep_data else RemovalPolicy.DESTROY,
            properties={"Parameter": signing_keys_parameter(settings.env), "KmsKey": settings.kms_key},
        )
        keys.node.add_dependency(functions.scope_of("register"))
        for user in users:
            user.node.add_dependency(keys)
        secret = CustomResource(
            self,
            "SecretInTable",
            service_token=register.function_arn,
            resource_type=SECRET_IN_TABLE,
            properties={"Table": table},
        )
        secret.node.add_dependency(*users)
