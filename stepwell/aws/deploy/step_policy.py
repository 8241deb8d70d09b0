"""The policy of a step's role, and the permissions boundary of all such roles.

A policy allows only the actions that running a step needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stepwell.aws.naming import CODE_PREFIX, dotenv_prefix, functions_pattern, secret_parameter
from stepwell.aws.resources import Resources

_KEY_NEEDS = {
    "Outcomes": ("sqs", ["kms:Decrypt", "kms:GenerateDataKey"]),
    "Values": ("ssm", ["kms:Decrypt"]),
    "Containers": ("s3", ["kms:Decrypt", "kms:GenerateDataKey"]),
}
# The actions of the managed policies AWSLambdaVPCAccessExecutionRole and AWSXRayDaemonWriteAccess:
# https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSLambdaVPCAccessExecutionRole.html
_INTERFACES = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
]
_TRACE = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
Policy = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StepNeeds:
    """The needs of a Stepwell function's steps that decide the permissions of their role.

    `lambdas`, `containers`: whether some steps are Lambdas or containers. `secrets`: the names of secrets that Lambdas
    read; `dotenv`: whether a Lambda has a `.env`. (Containers receive both from ECS.) `vpc`: whether a Lambda is in a
    VPC; `tracing`: whether a Lambda is traced.
    """

    function_id: str
    lambdas: bool = False
    secrets: Iterable[str] = ()
    dotenv: bool = False
    containers: bool = False
    vpc: bool = False
    tracing: bool = False


def policy(resources: Resources, needs: StepNeeds) -> Policy:
    """The policy of the function's role."""
    pattern = functions_pattern(resources.env, needs.function_id)
    statements: list[Policy] = []
    if needs.lambdas:
        statements += _lambdas(resources, pattern)
    statements += _values(resources, needs)
    if needs.containers:  # each input has a random key in the bucket
        inputs = f"arn:{resources.partition}:s3:::{resources.bucket}/inputs/*"
        statements.append(_allow("Containers", ["s3:GetObject", "s3:PutObject"], inputs))
    if needs.vpc:
        statements += _network(_arn(resources, "lambda", f"function:{pattern}"))
    if needs.tracing:
        statements.append(_allow("Traces", _TRACE, "*"))
    if resources.kms_key:
        statements += [_key(resources, statement["Sid"]) for statement in statements if statement["Sid"] in _KEY_NEEDS]
    return {"Version": "2012-10-17", "Statement": statements}


def _lambdas(resources: Resources, pattern: str) -> list[Policy]:
    logs = _arn(resources, "logs", f"log-group:/aws/lambda/{pattern}:*")
    return [
        _allow("Outcomes", "sqs:SendMessage", resources.outcomes_queue_arn),
        _allow("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], logs),
    ]


def _values(resources: Resources, needs: StepNeeds) -> list[Policy]:
    names = [f"{dotenv_prefix(resources.env)}{needs.function_id}/*"] if needs.dotenv else []
    names += [secret_parameter(resources.env, name) for name in sorted(set(needs.secrets))]
    parameters = [_arn(resources, "ssm", f"parameter{name}") for name in names]
    return [_allow("Values", "ssm:GetParameters", parameters)] if parameters else []


def _allow(sid: str, actions: str | list[str], on: str | list[str]) -> Policy:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": on}


def _arn(resources: Resources, service: str, rest: str) -> str:
    return f"arn:{resources.partition}:{service}:{resources.region}:{resources.account}:{rest}"


def _network(functions: str) -> list[Policy]:
    """Lets Lambda manage network interfaces with the function's role, but not the function's code. AWS recommends both
    statements: https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html"""
    return [
        {"Sid": "Network", "Effect": "Allow", "Action": _INTERFACES, "Resource": "*"},
        {
            "Sid": "NetworkNotByCode",
            "Effect": "Deny",
            "Action": [*_INTERFACES, "ec2:DetachNetworkInterface"],
            "Resource": "*",
            "Condition": {"ArnLike": {"lambda:SourceFunctionArn": functions}},
        },
    ]


def _key(resources: Resources, sid: str) -> Policy:
    """The permissions on the environment's KMS key that the statement `sid` depends on."""
    service, actions = _KEY_NEEDS[sid]
    return {
        "Sid": f"{sid}Key",
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources.kms_key,
        "Condition": {"StringEquals": {"kms:ViaService": f"{service}.{resources.region}.amazonaws.com"}},
    }


def merged(new: Policy, old: Policy | None) -> Policy:
    """`new`, plus the permissions that only `old` has: runs of older versions may still need them."""
    statements = {statement["Sid"]: statement for statement in new["Statement"]}
    for before in (old or {}).get("Statement", ()):
        value = statements.setdefault(before.get("Sid", ""), before)
        if before.get("Sid") == "Values":
            older = sorted({*before["Resource"]} - {*value["Resource"]})
            statements["Values"] = {**value, "Resource": [*value["Resource"], *older]}
    return {**new, "Statement": list(statements.values())}


def is_equal(first: Policy | None, second: Policy) -> bool:
    """Whether two policies are equal, apart from the order of statements and values."""
    return first is not None and _sorted(first) == _sorted(second)


def _sorted(policy: Policy) -> Any:
    def plain(statement: Policy) -> Policy:
        return {name: sorted(value) if isinstance(value, list) else value for name, value in statement.items()}

    return {**policy, "Statement": {item.get("Sid", ""): plain(item) for item in policy["Statement"]}}


def boundary(resources: Resources, actions: Iterable[str] = ()) -> Policy:
    """The permissions boundary of steps' roles: everything that `policy` gives any function, and `actions` on all
    resources except the engine's. No policy of such a role can allow more."""
    network = bool(resources.step_subnets)
    everything = StepNeeds("*", lambdas=True, secrets=["*"], dotenv=True, containers=True, vpc=network, tracing=True)
    fields = policy(resources, everything)
    extra_actions = sorted(actions)
    if not extra_actions:
        return fields
    table = _arn(resources, "dynamodb", f"table/{resources.table}")
    engine = [table, f"{table}/*", f"arn:{resources.partition}:s3:::{resources.bucket}/{CODE_PREFIX}*"]
    never = ["account:*", "iam:*", "organizations:*"]
    return {
        **fields,
        "Statement": [
            *fields["Statement"],
            {"Sid": "More", "Effect": "Allow", "Action": extra_actions, "Resource": "*"},
            {"Sid": "NotTheEngine", "Effect": "Deny", "Action": ["dynamodb:*", "s3:*"], "Resource": engine},
            {"Sid": "NotTheAccount", "Effect": "Deny", "Action": never, "Resource": "*"},
        ],
    }
