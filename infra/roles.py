"""What each of the engine's Lambdas may do: one table, and nothing besides it.

One rule: a role holds exactly the statements that stand here, and CDK's own grants are switched off. Statements name
places by words; `infra/stack.py` knows the ARNs.
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
"""Operators, condition keys and values; `{word}` stands for the ARNs of a place."""


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
    """Items of these partitions alone (`stepwell/aws/table/keys.py`). The operator also holds where a request names no
    partition, so it must not stand with actions that need none, such as Scan.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
    """
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": patterns}}


IN_CLUSTER: Condition = {"ArnEquals": {"ecs:cluster": "{cluster}"}}
PASSED_TO_ECS: Condition = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}

READ_QUEUE = "sqs:ReceiveMessage DeleteMessage GetQueueAttributes ChangeMessageVisibility"
START_STEPS: Statements = (Statement("lambda:InvokeFunction", ("step lambdas", "step_http")),)
ENGINE: Statements = (
    Statement("dynamodb:GetItem BatchGetItem Query PutItem BatchWriteItem", ("table",)),
    Statement("sqs:SendMessage", ("outcomes",)),
    Statement("events:PutEvents", ("bus",)),
)
READ_STATUS: Statements = (Statement("dynamodb:Query", ("index",)),)

READ_KEY: Statements = (Statement("ssm:GetParameter", ("signing keys",)),)
READ_KEYS = ("route", "advance", "tick", "api")
"""Who signs, or checks signatures. Nobody else may read the signing keys but `register`, which makes them."""

STATEMENTS: dict[str, Statements] = {
    "ingest": (
        Statement("dynamodb:GetItem", ("table",), partitions("KEY", "META", "Y#*", "H")),
        Statement("ssm:GetParameters", ("secrets",)),
    ),
    "route": (*ENGINE, *START_STEPS),
    "advance": (*ENGINE, *READ_STATUS, *START_STEPS),
    "tick": (  # it does nothing but find, and asks `advance` to act
        Statement("dynamodb:GetItem BatchGetItem Query UpdateItem BatchWriteItem", ("table",)),
        Statement("dynamodb:PutItem", ("table",), partitions("F", "META")),  # a guarded canary is taken back
        Statement("sqs:SendMessage", ("outcomes",)),
        *READ_STATUS,
    ),
    "api": (
        *ENGINE,
        *READ_STATUS,
        *START_STEPS,
        Statement("dynamodb:UpdateItem", ("table",)),
        Statement("logs:FilterLogEvents GetLogEvents", ("step logs", "step_http log")),
    ),
    "step_http": (
        Statement("ssm:GetParameters", ("parameters",)),
        Statement("sqs:SendMessage", ("outcomes",)),  # its answers, which Lambda sends in its name
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
CONTAINERS: dict[str, Statements] = {  # where there are container steps
    "route": START_CONTAINERS,
    "advance": (
        *START_CONTAINERS,
        Statement("s3:GetObject", ("inputs",)),
        Statement("s3:ListBucket", ("bucket",)),  # without it, S3 says "forbidden" of a report that is not there
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
    """What a Lambda may do, under these settings."""
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
    """What these statements need of the KMS key that encrypts all that is stored; of parameters, only those that may
    be read: Systems Manager gives the parameter's ARN as encryption context.
    https://docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html
    """
    parameters = tuple(f"{{{place}}}" for one in statements if one.actions.startswith("ssm:") for place in one.places)
    these: Condition = {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": tuple(dict.fromkeys(parameters))}}
    return tuple(
        Statement(f"kms:{' '.join(actions)}", ("key",), {**via(on), **(these if on == "ssm" else {})})
        for on, actions in key_actions(name for one in statements for name in one.names).items()
    )


class LambdaRole(iam.Role):
    """A role of one of the engine's Lambdas. `places`: ARNs by the words of the statements."""

    def __init__(self, scope: Construct, id: str, statements: Statements, places: Mapping[str, list[str]]) -> None:
        super().__init__(
            scope,
            id,
            assumed_by=for_this_account("lambda.amazonaws.com"),
            inline_policies={
                "stepwell": iam.PolicyDocument(statements=[_statement(one, places) for one in statements])
            },
        )


def for_this_account(service: str) -> iam.ServicePrincipal:
    """A service of AWS, when it acts for this account; `stepwell.aws.deploy.roles.trust` cites who sends the key."""
    return iam.ServicePrincipal(service, conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}})


def let_log(scope: Construct, role: iam.IRole, log_group: str) -> None:
    """In a policy of its own: the log group is named by the Lambda, which is made after its role."""
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
    """As IAM takes it: one value alone, several as a list."""
    each = [value] if isinstance(value, str) else value
    found = [name for one in each for name in (places[one[1:-1]] if one.startswith("{") else [one])]
    return found[0] if len(found) == 1 else found
