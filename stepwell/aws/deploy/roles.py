"""Reads, creates and deletes the IAM role of a Stepwell function's steps.

Stepwell manages one inline policy of the role (`step_policy`). Policies that a team attaches are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.aws.deploy.step_policy import Policy, is_equal
from stepwell.aws.naming import ENV_TAG, FUNCTION_TAG
from stepwell.aws.resources import Resources

POLICY = "stepwell"


def trust(account: str) -> Policy:
    """The trust policy of a step's role: Lambda and ECS may assume it, on behalf of this account only.

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


@dataclass(frozen=True, slots=True)
class RoleState:
    arn: str
    policy: Policy | None
    boundary: str
    trust: Policy
    has_other_policies: bool = False  # than Stepwell's; the environment's own boundary would restrict them

    def matches(self, policy: Policy, resources: Resources) -> bool:
        """Whether the role needs no change."""
        is_bounded = resources.role_boundary in ("", self.boundary) or self.has_other_policies
        return is_bounded and self.trust == trust(resources.account) and is_equal(self.policy, policy)


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
    has_other_policies = is_unbounded and _has_other_policies(iam, name)
    return RoleState(
        role["Arn"], _document(found), boundary, _document(role["AssumeRolePolicyDocument"]), has_other_policies
    )


def _has_other_policies(iam: Any, name: str) -> bool:
    """Whether the role has policies that a team added."""
    inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
    return set(inline) - {POLICY} != set() or iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] != []


def _document(found: Any) -> Any:
    return orjson.loads(found) if isinstance(found, str) else found


def put_role(iam: Any, resources: Resources, name: str, function_id: str, wanted: Policy) -> str:
    """Creates or updates the role; returns the ARN."""
    tags = [{"Key": ENV_TAG, "Value": resources.env}, {"Key": FUNCTION_TAG, "Value": function_id}]
    boundary = {"PermissionsBoundary": resources.role_boundary} if resources.role_boundary else {}
    document = orjson.dumps(trust(resources.account)).decode()
    try:
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document, Tags=tags, **boundary)
        arn: str = made["Role"]["Arn"]
    except iam.exceptions.EntityAlreadyExistsException:
        arn = iam.get_role(RoleName=name)["Role"]["Arn"]
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
        if boundary and (resources.permissions_boundary or not _has_other_policies(iam, name)):
            iam.put_role_permissions_boundary(RoleName=name, **boundary)
    iam.put_role_policy(RoleName=name, PolicyName=POLICY, PolicyDocument=orjson.dumps(wanted).decode())
    return arn


def delete_role(iam: Any, name: str) -> None:
    """Deletes the role. IAM requires that policies are detached and deleted first."""
    for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        iam.detach_role_policy(RoleName=name, PolicyArn=attached["PolicyArn"])
    for inline in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=name, PolicyName=inline)
    iam.delete_role(RoleName=name)
