"""The role that the steps of one Stepwell function have.

One rule: it allows what running a step takes, and nothing else. Ours is one inline policy; what a team attaches beside
it stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.aws.naming import CODE_PREFIX, ENV_TAG, FUNCTION_TAG, dotenv_prefix, functions_pattern, secret_parameter
from stepwell.aws.resources import Resources

POLICY = "stepwell"
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


def trust(account: str) -> Policy:
    """The trust policy of a step's role: Lambda and ECS, on behalf of this account only.

    Both services send `aws:SourceAccount` when they assume a role. ECS documents it:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html. For Lambda, AWS publishes this very
    policy: https://github.com/aws/agent-toolkit-for-aws (`lambda-trust-policy.json`).
    """
    services = ["ecs-tasks.amazonaws.com", "lambda.amazonaws.com"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": services},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def policy(
    resources: Resources,
    function_id: str,
    *,
    lambdas: bool = False,
    secrets: Iterable[str] = (),
    dotenv: bool = False,
    containers: bool = False,
    vpc: bool = False,
    tracing: bool = False,
) -> Policy:
    """What the steps of this function may do. `lambdas`, `containers`: some of them are. `secrets`: the names of those
    that Lambdas get; `dotenv`: some Lambda has a `.env`. To containers, ECS hands both. `vpc`: some Lambda is in one;
    `tracing`: some Lambda is traced."""
    env, region, account = resources.env, resources.region, resources.account
    partition = resources.outcomes_queue_arn.split(":")[1]
    statements: list[Policy] = []
    if lambdas:
        group = f"/aws/lambda/{functions_pattern(env, function_id)}"
        statements += [
            {
                "Sid": "Outcomes",
                "Effect": "Allow",
                "Action": "sqs:SendMessage",
                "Resource": resources.outcomes_queue_arn,
            },
            {
                "Sid": "Logs",
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": f"arn:{partition}:logs:{region}:{account}:log-group:{group}:*",
            },
        ]
    names = [f"{dotenv_prefix(env)}{function_id}/*"] if dotenv else []
    names += [secret_parameter(env, name) for name in sorted(set(secrets))]
    if names:
        statements.append(
            {
                "Sid": "Values",
                "Effect": "Allow",
                "Action": "ssm:GetParameters",
                "Resource": [f"arn:{partition}:ssm:{region}:{account}:parameter{name}" for name in names],
            }
        )
    if containers:  # their inputs have keys that nobody can guess
        statements.append(
            {
                "Sid": "Containers",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject"],
                "Resource": f"arn:{partition}:s3:::{resources.bucket}/inputs/*",
            }
        )
    if vpc:
        pattern = functions_pattern(env, function_id)
        statements += _network(f"arn:{partition}:lambda:{region}:{account}:function:{pattern}")
    if tracing:
        statements.append({"Sid": "Traces", "Effect": "Allow", "Action": _TRACE, "Resource": "*"})
    if resources.kms_key:
        statements += [_key(resources, statement["Sid"]) for statement in statements if statement["Sid"] in _KEY_NEEDS]
    return {"Version": "2012-10-17", "Statement": statements}


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
    fields = policy(
        resources, "*", lambdas=True, secrets=["*"], dotenv=True, containers=True, vpc=network, tracing=True
    )
    more = sorted(actions)
    if not more:
        return fields
    partition = resources.outcomes_queue_arn.split(":")[1]
    table = f"arn:{partition}:dynamodb:{resources.region}:{resources.account}:table/{resources.table}"
    engine = [table, f"{table}/*", f"arn:{partition}:s3:::{resources.bucket}/{CODE_PREFIX}*"]
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


# --- the account -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoleState:
    arn: str
    policy: Policy | None
    boundary: str
    trust: Policy
    has_more: bool = False  # policies besides ours, which the environment's own boundary would cut

    def is_as(self, policy: Policy, resources: Resources) -> bool:
        """Whether a push has nothing to change about it."""
        is_bounded = resources.role_boundary in ("", self.boundary) or self.has_more
        return is_bounded and self.trust == trust(resources.account) and same(self.policy, policy)


def read_role(iam: Any, name: str, resources: Resources) -> RoleState | None:
    try:
        role = iam.get_role(RoleName=name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return None
    try:
        found = iam.get_role_policy(RoleName=name, PolicyName=POLICY)["PolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        found = None
    boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", "")
    is_unbounded = boundary == "" and not resources.permissions_boundary and resources.step_boundary != ""
    has_more = is_unbounded and _has_more(iam, name)
    return RoleState(role["Arn"], _document(found), boundary, _document(role["AssumeRolePolicyDocument"]), has_more)


def _has_more(iam: Any, name: str) -> bool:
    """Whether it has policies that a team added."""
    inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
    return set(inline) - {POLICY} != set() or iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] != []


def _document(found: Any) -> Any:
    return orjson.loads(found) if isinstance(found, str) else found


def put_role(iam: Any, resources: Resources, name: str, function_id: str, wanted: Policy) -> str:
    """Make the role, or make it what is wanted; its ARN."""
    tags = [{"Key": ENV_TAG, "Value": resources.env}, {"Key": FUNCTION_TAG, "Value": function_id}]
    boundary = {"PermissionsBoundary": resources.role_boundary} if resources.role_boundary else {}
    document = orjson.dumps(trust(resources.account)).decode()
    try:
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document, Tags=tags, **boundary)
        arn: str = made["Role"]["Arn"]
    except iam.exceptions.EntityAlreadyExistsException:
        arn = iam.get_role(RoleName=name)["Role"]["Arn"]
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
        if boundary and (resources.permissions_boundary or not _has_more(iam, name)):
            iam.put_role_permissions_boundary(RoleName=name, **boundary)
    iam.put_role_policy(RoleName=name, PolicyName=POLICY, PolicyDocument=orjson.dumps(wanted).decode())
    return arn


def delete_role(iam: Any, name: str) -> None:
    """With everything that is attached to it, which IAM asks for."""
    for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        iam.detach_role_policy(RoleName=name, PolicyArn=attached["PolicyArn"])
    for inline in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=name, PolicyName=inline)
    iam.delete_role(RoleName=name)
