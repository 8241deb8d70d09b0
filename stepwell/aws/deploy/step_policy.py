"""What the steps of a Stepwell function may do: the policy of their role, and the boundary of all such roles.

One rule: a policy allows what running a step takes, and nothing else.
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
# As in the managed policies AWSLambdaVPCAccessExecutionRole and AWSXRayDaemonWriteAccess, and no more:
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
    """What the steps of a Stepwell function need of their role. `lambdas`, `containers`: some of them are. `secrets`:
    the names of those that Lambdas get; `dotenv`: some Lambda has a `.env`. To containers, ECS hands both. `vpc`: some
    Lambda is in one; `tracing`: some Lambda is traced."""

    function_id: str
    lambdas: bool = False
    secrets: Iterable[str] = ()
    dotenv: bool = False
    containers: bool = False
    vpc: bool = False
    tracing: bool = False


def policy(resources: Resources, needs: StepNeeds) -> Policy:
    """What the steps of this function may do."""
    pattern = functions_pattern(resources.env, needs.function_id)
    statements: list[Policy] = []
    if needs.lambdas:
        statements += _lambdas(resources, pattern)
    statements += _values(resources, needs)
    if needs.containers:  # their inputs have keys that nobody can guess
        inputs = f"arn:{_partition(resources)}:s3:::{resources.bucket}/inputs/*"
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
    return f"arn:{_partition(resources)}:{service}:{resources.region}:{resources.account}:{rest}"


def _partition(resources: Resources) -> str:
    return resources.outcomes_queue_arn.split(":")[1]


def _network(functions: str) -> list[Policy]:
    """Lambda makes network interfaces with the function's own role; the function's code gets no use of that. Both
    statements are as AWS recommends them: https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html"""
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
    """What the environment's KMS key must allow besides, so that a statement is of use."""
    service, actions = _KEY_NEEDS[sid]
    return {
        "Sid": f"{sid}Key",
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources.kms_key,
        "Condition": {"StringEquals": {"kms:ViaService": f"{service}.{resources.region}.amazonaws.com"}},
    }


def merged(new: Policy, old: Policy | None) -> Policy:
    """`new`, and what `old` allows besides: versions that use it may still run."""
    statements = {statement["Sid"]: statement for statement in new["Statement"]}
    for before in (old or {}).get("Statement", ()):
        value = statements.setdefault(before.get("Sid", ""), before)
        if before.get("Sid") == "Values":
            more = sorted({*before["Resource"]} - {*value["Resource"]})
            statements["Values"] = {**value, "Resource": [*value["Resource"], *more]}
    return {**new, "Statement": list(statements.values())}


def same(one: Policy | None, other: Policy) -> bool:
    """Whether two policies say the same, in whatever order."""
    return one is not None and _sorted(one) == _sorted(other)


def _sorted(policy: Policy) -> Any:
    def plain(statement: Policy) -> Policy:
        return {name: sorted(value) if isinstance(value, list) else value for name, value in statement.items()}

    return {**policy, "Statement": {item.get("Sid", ""): plain(item) for item in policy["Statement"]}}


def boundary(resources: Resources, actions: Iterable[str] = ()) -> Policy:
    """The most that the roles of steps may allow, whatever their policies say: what `policy` gives any function, and
    `actions` on all resources but those of the engine."""
    network = bool(resources.step_subnets)
    everything = StepNeeds("*", lambdas=True, secrets=["*"], dotenv=True, containers=True, vpc=network, tracing=True)
    fields = policy(resources, everything)
    more = sorted(actions)
    if not more:
        return fields
    table = _arn(resources, "dynamodb", f"table/{resources.table}")
    engine = [table, f"{table}/*", f"arn:{_partition(resources)}:s3:::{resources.bucket}/{CODE_PREFIX}*"]
    never = ["account:*", "iam:*", "organizations:*"]
    return {
        **fields,
        "Statement": [
            *fields["Statement"],
            {"Sid": "More", "Effect": "Allow", "Action": more, "Resource": "*"},
            {"Sid": "NotTheEngine", "Effect": "Deny", "Action": ["dynamodb:*", "s3:*"], "Resource": engine},
            {"Sid": "NotTheAccount", "Effect": "Deny", "Action": never, "Resource": "*"},
        ],
    }
