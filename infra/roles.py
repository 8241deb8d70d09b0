"""The permissions of each of the engine's Lambdas, as one table.

A role has exactly these statements: CDK's own grants are switched off. Statements refer to resources by short names,
called places; `infra/stack.py` maps them to ARNs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.key import key_actions, via
from infra.settings import Settings
from stepwell.aws.topology import Queue, function

Condition = Mapping[str, Mapping[str, str | tuple[str, ...]]]
"""Operator -> condition key -> value. `{name}` is replaced with the ARNs of the place."""


@dataclass(frozen=True)
class Statement:
    """Actions of one service (`dynamodb:GetItem PutItem`) on some places."""

    actions: str
    places: tuple[str, ...]
    conditions: Condition = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        service, _, actions = self.actions.partition(":")
        return [f"{service}:{action}" for action in actions.split()]


Statements = tuple[Statement, ...]


def partitions(*patterns: str) -> Condition:
    """A condition that limits a statement to these partitions of the table (`stepwell/aws/table/keys.py`).

    `ForAllValues` is also true for a request without a partition. So do not use it with actions such as Scan.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
    """
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": patterns}}


IN_CLUSTER: Condition = {"ArnEquals": {"ecs:cluster": "{cluster}"}}
PASSED_TO_ECS: Condition = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}

READ_QUEUE = "sqs:ReceiveMessage DeleteMessage GetQueueAttributes ChangeMessageVisibility"
START_STEPS: Statements = (Statement("lambda:InvokeFunction", ("step lambdas", "step_http")),)
ENGINE: Statements = (
    Statement("dynamodb:GetItem BatchGetItem Query PutItem BatchWriteItem", ("table",)),
    Statement("dynamodb:UpdateItem", ("table",), partitions("B#*")),
    Statement("sqs:SendMessage", ("outcomes",)),
    Statement("events:PutEvents", ("bus",)),
)
READ_STATUS: Statements = (Statement("dynamodb:Query", ("index",)),)

READ_KEY: Statements = (Statement("ssm:GetParameter", ("signing keys",)),)
READ_KEYS = ("route", "advance", "tick", "api")
"""The Lambdas that sign or check signatures. Only these and `register`, which creates the keys, may read the keys."""

STATEMENTS: dict[str, Statements] = {
    "ingest": (
        Statement("dynamodb:GetItem", ("table",), partitions("KEY", "META", "Y#*", "H")),
        Statement("ssm:GetParameters", ("secrets",)),
    ),
    "route": (*ENGINE, *START_STEPS),
    "advance": (*ENGINE, *READ_STATUS, *START_STEPS),
    "tick": (  # it only finds what is due, and sends messages to `advance`
        Statement("dynamodb:GetItem BatchGetItem Query UpdateItem BatchWriteItem", ("table",)),
        Statement("dynamodb:PutItem", ("table",), partitions("F", "META")),  # it rolls back a guarded canary
        Statement("sqs:SendMessage", ("outcomes",)),
        *READ_STATUS,
    ),
    "api": (
        *ENGINE,
        *READ_STATUS,
        *START_STEPS,
        Statement("dynamodb:UpdateItem", ("table",)),
        Statement("dynamodb:DeleteItem", ("table",), partitions("G#*", "I#*", "N#*")),  # claims of an erased user
        Statement("logs:FilterLogEvents GetLogEvents", ("step logs", "step_http log")),
    ),
    "step_http": (
        Statement("ssm:GetParameters", ("parameters",)),
        Statement("sqs:SendMessage", ("outcomes",)),  # results, which Lambda sends with this role
    ),
    "register": (
        Statement("dynamodb:GetItem Query PutItem UpdateItem BatchWriteItem", ("table",)),
        Statement("ssm:GetParameter PutParameter", ("signing keys",)),
    ),
}
SEND: dict[str, Statement] = {  # by the setting `ingest`
    "bus": Statement("events:PutEvents", ("bus",)),
    "direct": Statement("sqs:SendMessage", ("events",)),
}
START_CONTAINERS: Statements = (
    Statement("ecs:RunTask", ("task definitions",), IN_CLUSTER),
    Statement("iam:PassRole", ("step roles", "execution role"), PASSED_TO_ECS),
    Statement("s3:PutObject", ("inputs",)),
)
FIND_CONTAINERS = Statement("ecs:ListTasks", ("*",), IN_CLUSTER)
CONTAINERS: dict[str, Statements] = {  # only with the setting `vpc`
    "route": START_CONTAINERS,
    "advance": (
        *START_CONTAINERS,
        Statement("s3:GetObject", ("inputs",)),
        Statement("s3:ListBucket", ("bucket",)),  # without it, S3 answers 403 instead of 404 for a missing report
        FIND_CONTAINERS,
        Statement("ecs:DescribeTasks StopTask", ("tasks",)),
    ),
    "api": (
        *START_CONTAINERS,
        FIND_CONTAINERS,
        Statement("ecs:StopTask", ("tasks",)),
        Statement("logs:GetLogEvents", ("container logs",)),
    ),
}
TRACES: Statements = (Statement("xray:PutTraceSegments PutTelemetryRecords", ("*",)),)


def statements(name: str, settings: Settings) -> Statements:
    """The statements for a Lambda of this name, under these settings."""
    statements = STATEMENTS[name]
    trigger = function(name).trigger
    if isinstance(trigger, Queue):
        statements = (Statement(READ_QUEUE, (trigger.name,)), *statements)
    if name == "ingest":
        statements = (*statements, SEND[settings.ingest])
    if name in READ_KEYS:
        statements = (*statements, *READ_KEY)
    if name == "register" and not settings.keep_data:
        statements = (*statements, Statement("ssm:DeleteParameter", ("signing keys",)))  # with the stack
    if settings.has_containers:
        statements = (*statements, *CONTAINERS.get(name, ()))
    if settings.tracing:
        statements = (*statements, *TRACES)
    if settings.kms_key:
        statements = (*statements, *_use_of_key(statements))
    return statements


def _use_of_key(statements: Statements) -> Statements:
    """The statements on the KMS key that these statements depend on.

    For SSM they are limited to the parameters that may be read: SSM passes the parameter's ARN as encryption context.
    https://docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html
    """
    parameters = tuple(
        f"{{{place}}}" for item in statements if item.actions.startswith("ssm:") for place in item.places
    )
    of_parameters: Condition = {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": tuple(dict.fromkeys(parameters))}}
    return tuple(
        Statement(f"kms:{' '.join(actions)}", ("key",), {**via(service), **(of_parameters if service == "ssm" else {})})
        for service, actions in key_actions(name for item in statements for name in item.names).items()
    )


class LambdaRole(iam.Role):
    """The role of one of the engine's Lambdas. `places`: ARNs by the names that the statements use."""

    def __init__(self, scope: Construct, id: str, statements: Statements, places: Mapping[str, list[str]]) -> None:
        super().__init__(
            scope,
            id,
            assumed_by=for_this_account("lambda.amazonaws.com"),
            inline_policies={
                "stepwell": iam.PolicyDocument(statements=[_statement(item, places) for item in statements])
            },
        )


def for_this_account(service: str) -> iam.ServicePrincipal:
    """An AWS service as principal, limited to this account. `stepwell.aws.deploy.roles.trust` cites the sources."""
    return iam.ServicePrincipal(service, conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}})


def let_log(scope: Construct, role: iam.IRole, log_group: str) -> None:
    """Lets the role write to the log group, by a separate policy.

    The log group's name depends on the Lambda, and the Lambda is created after the role.
    """
    write = iam.PolicyStatement(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log_group])
    iam.Policy(scope, "WriteLog", roles=[role], statements=[write])


def _statement(statement: Statement, places: Mapping[str, list[str]]) -> iam.PolicyStatement:
    return iam.PolicyStatement(
        actions=statement.names,
        resources=[arn for place in statement.places for arn in (["*"] if place == "*" else places[place])],
        conditions={
            operator: {key: _value(value, places) for key, value in tests.items()}
            for operator, tests in statement.conditions.items()
        }
        or None,
    )


def _value(value: str | tuple[str, ...], places: Mapping[str, list[str]]) -> str | list[str]:
    """The value of a condition, with places replaced by ARNs: a text if it is only one, else a list."""
    parts = [value] if isinstance(value, str) else value
    found = [text for part in parts for text in (places[part[1:-1]] if part.startswith("{") else [part])]
    return found[0] if len(found) == 1 else found
