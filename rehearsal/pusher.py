"""The role that runs the commands: it has exactly the policy that `stepwell policy` prints."""

from __future__ import annotations

import json
from collections.abc import Callable

import boto3
from botocore.exceptions import ClientError

from stepwell.aws.resources import Resources

ROLE = "rehearsal-pusher"
COMMANDS = ("push", "secrets", "keys", "functions", "signing-keys")


class Pusher:
    """The role. `variables`: the role's credentials, as environment variables for the commands."""

    def __init__(self, resources: Resources, printed: str) -> None:
        self._resources = resources
        trusts = {"Effect": "Allow", "Principal": {"AWS": resources.account}, "Action": "sts:AssumeRole"}
        iam, trust = boto3.client("iam"), json.dumps({"Version": "2012-10-17", "Statement": [trusts]})
        arn = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        iam.put_role_policy(RoleName=ROLE, PolicyName="push", PolicyDocument=printed)
        keys = boto3.client("sts").assume_role(RoleArn=arn, RoleSessionName="push")["Credentials"]
        self._session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        self.variables = {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }

    def leave(self) -> None:
        iam = boto3.client("iam")
        iam.delete_role_policy(RoleName=ROLE, PolicyName="push")
        iam.delete_role(RoleName=ROLE)

    def check_refusals(self) -> None:
        """Fails if the role may do anything that would extend the role's permissions."""
        resources, iam = self._resources, self._session.client("iam")
        step, db = f"stepwell-{resources.env}-step-order", self._session.client("dynamodb")
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        admin = "arn:aws:iam::aws:policy/AdministratorAccess"
        run = {"pk": {"S": "R#1"}, "sk": {"S": "r"}}
        secret = f"/stepwell/{resources.env}/secrets/GUESTS"
        bound = {"PermissionsBoundary": resources.role_boundary}
        tries: dict[str, Callable[[], object]] = {
            "a role without a boundary": lambda: iam.create_role(RoleName=f"{step}-2", AssumeRolePolicyDocument=trust),
            "a role of another name": lambda: iam.create_role(
                RoleName="other", AssumeRolePolicyDocument=trust, **bound
            ),
            "another boundary": lambda: iam.put_role_permissions_boundary(RoleName=step, PermissionsBoundary=admin),
            "no boundary": lambda: iam.delete_role_permissions_boundary(RoleName=step),
            "a managed policy": lambda: iam.attach_role_policy(RoleName=step, PolicyArn=admin),
            "its own policy": lambda: iam.put_role_policy(RoleName=ROLE, PolicyName="more", PolicyDocument=trust),
            "runs": lambda: db.get_item(TableName=resources.table, Key=run),
            "a secret": lambda: self._session.client("ssm").get_parameters(Names=[secret], WithDecryption=True),
        }
        gained = {what for what, attempt in tries.items() if not _is_refused(attempt)}
        assert not gained, f"the pushing role may do this: {gained}"


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except ClientError as error:
        return "AccessDenied" in error.response["Error"]["Code"]
    return False
