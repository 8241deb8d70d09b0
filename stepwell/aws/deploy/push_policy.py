"""The IAM permissions that each command needs in an environment, as one table.

`stepwell policy` prints them, and `stepwell.cdk.PushRole` makes a role with them. The permissions of a push are
limited: it cannot give a role more than the environment's boundary allows, passes only roles of the environment's
steps, and reads no secret. But a pushed step can read the secrets that its definition names, so people who may push
must be trusted with them.

Actions, resources and condition keys are those of
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepwell.aws.naming import (
    CODE_PREFIX,
    dotenv_prefix,
    function_prefix,
    log_group,
    role_prefix,
    signing_keys_parameter,
    task_log_group,
)
from stepwell.aws.naming import secrets_prefix as secrets_of
from stepwell.aws.resources import Resources, parameter

Json = dict[str, Any]
Condition = Mapping[str, Mapping[str, Any]]


class UnknownCommand(Exception):
    """There is no policy for a command of this name. The message lists the commands that have one."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The names and ARNs of an environment's resources, as policies need them. Empty: the environment lacks it."""

    env: str
    partition: str
    region: str
    account: str
    table: str  # name
    bucket: str  # name
    boundary: str  # ARN of the policy that bounds steps' roles
    layers: tuple[str, ...]  # names of the adapter's layers
    repository: str = ""  # name
    execution_role: str = ""  # ARN
    kms_key: str = ""  # ARN
    step_lambdas: tuple[str, ...] = ()  # ARNs of Lambdas that steps name in `runtime.arn`
    vpc: bool = False  # Lambda steps may be in a VPC

    def has(self, feature: str) -> bool:
        """Whether the environment has `containers`, or a `vpc` for Lambda steps. Always true for an empty name."""
        return {"": True, "containers": bool(self.execution_role), "vpc": self.vpc}[feature]

    @classmethod
    def of(cls, resources: Resources, step_lambdas: Iterable[str] = ()) -> Environment:
        return cls(
            env=resources.env,
            partition=resources.partition,
            region=resources.region,
            account=resources.account,
            table=resources.table,
            bucket=resources.bucket,
            boundary=resources.role_boundary,
            layers=tuple(sorted({arn.split(":")[6] for arn in resources.layers.values()})),
            repository=resources.repository.partition("/")[2],
            execution_role=resources.execution_role,
            kms_key=resources.kms_key,
            step_lambdas=tuple(step_lambdas),
            vpc=bool(resources.step_subnets),
        )

    def arn(self, service: str, name: str, separator: str = ":") -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}{separator}{name}"

    def places(self) -> dict[str, list[str]]:
        """The ARNs behind each name that `Statement.places` uses."""
        prefix, env = function_prefix(self.env), self.env
        versions = [f"{self.arn('lambda', f'layer:{name}')}:*" for name in self.layers]
        return {
            "*": ["*"],
            "resources": [self.arn("ssm", f"parameter{parameter(env)}")],
            "table": [self.arn("dynamodb", f"table/{self.table}")],
            "index": [self.arn("dynamodb", f"table/{self.table}/index/*")],
            "bucket": [f"arn:{self.partition}:s3:::{self.bucket}"],
            "code": [f"arn:{self.partition}:s3:::{self.bucket}/{CODE_PREFIX}*"],
            "dotenv": [self.arn("ssm", f"parameter{dotenv_prefix(env)}*")],
            "secrets": [self.arn("ssm", f"parameter{secrets_of(env)}*")],
            "signing keys": [self.arn("ssm", f"parameter{signing_keys_parameter(env)}")],
            "lambdas": [self.arn("lambda", f"function:{prefix}*")],
            "given lambdas": list(self.step_lambdas),
            "layers": [self.arn("lambda", f"layer:{name}") for name in self.layers],
            "layer versions": versions,
            "roles": [f"arn:{self.partition}:iam::{self.account}:role/{role_prefix(env)}*"],
            "execution role": [self.execution_role] if self.execution_role else [],
            "stack roles": [f"arn:{self.partition}:iam::{self.account}:role/*"],
            "log groups": [self.arn("logs", f"log-group:{log_group(prefix)}*")]
            + ([self.arn("logs", f"log-group:{task_log_group(env, '')}*")] if self.has("containers") else []),
            "repository": [self.arn("ecr", f"repository/{self.repository}")] if self.repository else [],
            "key": [self.kms_key] if self.kms_key else [],
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """Actions of one service (`iam:GetRole GetRolePolicy`) on some places, separated by commas.

    `rows`: the statement is limited to these partitions of the table.
    """

    actions: str
    places: str
    rows: tuple[str, ...] = ()
    conditions: Condition | None = None
    only_with: str = ""  # `containers` or `vpc`: needed only if the environment has this


BOUNDED: Condition = {"StringEquals": {"iam:PermissionsBoundary": "{boundary}"}}
TO_LAMBDA: Condition = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
TO_ECS: Condition = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
OF_STEPS: Condition = {
    "StringEquals": {"aws:ResourceTag/stepwell:env": "{env}"},
    "StringLike": {"aws:ResourceTag/stepwell:function": "?*"},
}
FUNCTION, VERSIONS, CRON, STATE, TYPES, WEBHOOKS = "F", "V#*", "C", "META", "Y#*", "H"  # partitions: see table.py
ENVIRONMENT = Statement("ssm:GetParameter", "resources")

PUSH = (
    ENVIRONMENT,
    Statement("dynamodb:GetItem PutItem", "table", (FUNCTION, VERSIONS, STATE, TYPES)),
    Statement("dynamodb:GetItem", "table", (WEBHOOKS,)),
    Statement("dynamodb:UpdateItem", "table", (FUNCTION, VERSIONS)),
    Statement("dynamodb:Query", "table", (FUNCTION, VERSIONS, CRON, WEBHOOKS)),
    Statement("dynamodb:BatchWriteItem", "table", (CRON, WEBHOOKS)),
    Statement("s3:GetObject PutObject AbortMultipartUpload", "code"),
    Statement("s3:ListBucket", "bucket"),  # without it, S3 answers 403 instead of 404 for missing code
    Statement("ssm:GetParameters PutParameter", "dotenv"),
    Statement("ssm:DescribeParameters", "*"),  # names and versions of secrets, never a value
    Statement(
        "lambda:GetFunctionConfiguration GetFunctionEventInvokeConfig GetFunctionRecursionConfig CreateFunction"
        " TagResource UpdateFunctionConfiguration PutFunctionEventInvokeConfig PutFunctionRecursionConfig"
        " GetFunctionConcurrency PutFunctionConcurrency DeleteFunctionConcurrency"
        " DeleteFunction",  # a Lambda whose creation has failed is deleted and created again
        "lambdas",
    ),
    Statement(
        "lambda:GetFunctionConfiguration GetFunctionEventInvokeConfig GetFunctionRecursionConfig"
        " PutFunctionEventInvokeConfig PutFunctionRecursionConfig",
        "given lambdas",
    ),
    Statement("lambda:GetLayerVersion", "layer versions"),
    # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
    Statement("ec2:DescribeSecurityGroups DescribeSubnets DescribeVpcs", "*", only_with="vpc"),
    Statement(
        "iam:GetRole GetRolePolicy ListRolePolicies ListAttachedRolePolicies TagRole UpdateAssumeRolePolicy", "roles"
    ),
    Statement("iam:CreateRole PutRolePolicy PutRolePermissionsBoundary", "roles", conditions=BOUNDED),
    Statement("iam:PassRole", "roles", conditions=TO_LAMBDA),
    Statement("iam:PassRole", "roles, execution role", conditions=TO_ECS, only_with="containers"),
    Statement("logs:CreateLogGroup PutRetentionPolicy TagResource", "log groups"),
    Statement("logs:DescribeLogGroups", "*"),
    # These ECS actions do not support permissions for single task definitions.
    Statement("ecs:RegisterTaskDefinition DescribeTaskDefinition", "*", only_with="containers"),
    Statement("ecr:GetAuthorizationToken", "*", only_with="containers"),
    Statement(
        "ecr:BatchCheckLayerAvailability BatchGetImage CompleteLayerUpload GetDownloadUrlForLayer InitiateLayerUpload"
        " PutImage UploadLayerPart",
        "repository",
        only_with="containers",
    ),
)
SECRETS = (
    ENVIRONMENT,
    Statement("ssm:PutParameter DeleteParameter", "secrets"),
    Statement("ssm:DescribeParameters", "*"),
    Statement("lambda:ListFunctions", "*"),
    Statement("lambda:UpdateFunctionConfiguration", "lambdas"),
)
SIGNING_KEYS = (ENVIRONMENT, Statement("ssm:GetParameter PutParameter", "signing keys"))
KEYS = (ENVIRONMENT, Statement("dynamodb:Query PutItem UpdateItem", "table", ("KEY",)))
FUNCTIONS_COMMANDS = (
    ENVIRONMENT,
    Statement("dynamodb:GetItem", "table", (FUNCTION, VERSIONS, STATE)),
    Statement("dynamodb:PutItem", "table", (FUNCTION, STATE)),
    Statement("dynamodb:UpdateItem", "table", (FUNCTION, VERSIONS)),
    Statement("dynamodb:Query", "table", (FUNCTION, VERSIONS, CRON)),
    Statement("dynamodb:BatchWriteItem", "table", (CRON,)),
    Statement("dynamodb:Query", "index"),
    Statement("dynamodb:BatchGetItem", "table", ("R#*",)),  # the versions of open runs
    Statement("lambda:ListFunctions ListLayerVersions", "*"),
    Statement("lambda:ListTags GetFunctionConfiguration DeleteFunction", "lambdas"),
    Statement("lambda:DeleteLayerVersion", "layer versions"),
    Statement("iam:ListRoles", "*"),
    Statement(
        "iam:ListRoleTags ListAttachedRolePolicies ListRolePolicies DetachRolePolicy DeleteRolePolicy DeleteRole",
        "roles",
    ),
    Statement("iam:ListRoleTags", "stack roles"),
    Statement(
        "iam:ListAttachedRolePolicies ListRolePolicies DetachRolePolicy DeleteRolePolicy DeleteRole",
        "stack roles",
        conditions=OF_STEPS,
    ),
    Statement("cloudformation:DescribeStackResources", "*"),  # called with the name of a resource, not of a stack
    Statement("logs:DescribeLogGroups", "*"),
    Statement("logs:DescribeLogStreams ListTagsForResource DeleteLogGroup", "log groups"),
    Statement("ssm:DescribeParameters", "*"),
    Statement("ssm:DeleteParameter", "dotenv"),
    Statement("s3:ListBucket", "bucket"),
    Statement("s3:DeleteObject", "code"),
    Statement("ecs:ListTaskDefinitions DescribeTaskDefinition DeregisterTaskDefinition", "*", only_with="containers"),
    Statement("ecr:DescribeImages BatchDeleteImage", "repository", only_with="containers"),
)
COMMANDS: dict[str, tuple[Statement, ...]] = {
    "push": PUSH,
    "secrets": SECRETS,
    "keys": KEYS,
    "functions": FUNCTIONS_COMMANDS,
    "signing-keys": SIGNING_KEYS,
}
"""The commands that change an environment without the HTTP API. All others need an API key, and `ssm:GetParameter` to
find the API. All of these policies include that."""


def policy(environment: Environment, commands: Iterable[str] = ("push",)) -> Json:
    """A policy document with the permissions for these commands. Raises UnknownCommand."""
    statements: dict[str, Json] = {}
    for command in commands:
        if command not in COMMANDS:
            raise UnknownCommand(f"{command!r}: policies are for the commands {', '.join(COMMANDS)}")
        for statement in COMMANDS[command]:
            if environment.has(statement.only_with) and (made := _statement(statement, environment)):
                statements.setdefault(repr(made), made)
    found = list(statements.values())
    if environment.kms_key:
        found += _of_key(environment)
    return {"Version": "2012-10-17", "Statement": found}


def _statement(statement: Statement, environment: Environment) -> Json | None:
    service, _, actions = statement.actions.partition(":")
    places = environment.places()
    resources = [arn for place in statement.places.split(", ") for arn in places[place]]
    conditions: Json = {operator: dict(tests) for operator, tests in (statement.conditions or {}).items()}
    for tests in conditions.values():
        for key, value in tests.items():
            tests[key] = {"{boundary}": environment.boundary, "{env}": environment.env}.get(value, value)
    if statement.rows:
        conditions["ForAllValues:StringLike"] = {"dynamodb:LeadingKeys": list(statement.rows)}
    if not resources:
        return None
    made: Json = {"Effect": "Allow", "Action": [f"{service}:{action}" for action in actions.split()]}
    return {**made, "Resource": resources, **({"Condition": conditions} if conditions else {})}


def _of_key(environment: Environment) -> list[Json]:
    """The permissions on a customer-managed KMS key, limited to the services that use it."""
    services = [f"{service}.{environment.region}.amazonaws.com" for service in ("dynamodb", "s3", "ssm")]
    return [
        {
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"],
            "Resource": [environment.kms_key],
            "Condition": {"StringEquals": {"kms:ViaService": services}},
        }
    ]
