"""A push has the permissions that it needs and no others; what a push has made keeps working."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.real.account import ROOT, Account, Json
from rehearsal.real.checks import Failed, check
from rehearsal.real.checks_basics import run_of
from stepwell.aws.deploy.push_policy import Environment, policy
from stepwell.aws.deploy.roles import trust
from stepwell.aws.naming import function_prefix, role_prefix

PUSHED = "three"  # a function of the checks


@check("Steps' roles have the boundary, and Lambda assumes them for this account only", seconds=15, emulated=True)
def roles_are_bounded(account: Account) -> str:
    """The run shows that Lambda sends `aws:SourceAccount`: otherwise no step could start."""
    account.use_functions()
    iam, wanted = account.client("iam"), account.resources
    prefix = role_prefix(account.env)
    roles = [role for page in iam.get_paginator("list_roles").paginate() for role in page["Roles"]]
    names = [role["RoleName"] for role in roles if role["RoleName"].startswith(prefix)]
    for name in names:
        role = iam.get_role(RoleName=name)["Role"]
        if role["AssumeRolePolicyDocument"] != trust(wanted.account):
            raise Failed(f"{name} trusts {json.dumps(role['AssumeRolePolicyDocument'])}; push its function again")
        bound = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", "")
        if bound != wanted.role_boundary:
            raise Failed(
                f"{name} has the boundary {bound or 'none'}, not {wanted.role_boundary}; push its function again"
            )
    run_of(account, {"name": "smoke/three"})
    return f"{len(names)} roles, bounded by {wanted.role_boundary}; a step with one of them ran"


def accesses(environment: Environment) -> list[tuple[bool, str, str, Mapping[str, str]]]:
    """Test cases: whether a push is allowed the action, the action, the resource, and the values of condition keys."""
    role = f"arn:{environment.partition}:iam::{environment.account}:role/{role_prefix(environment.env)}check"
    other = f"arn:{environment.partition}:iam::{environment.account}:role/other"
    table, boundary = (
        environment.arn("dynamodb", f"table/{environment.table}"),
        {"iam:PermissionsBoundary": environment.boundary},
    )
    admin = {"iam:PermissionsBoundary": f"arn:{environment.partition}:iam::aws:policy/AdministratorAccess"}
    to_lambda = {"iam:PassedToService": "lambda.amazonaws.com"}
    secret = environment.arn("ssm", f"parameter/stepwell/{environment.env}/secrets/S")
    return [
        (True, "iam:CreateRole", role, boundary),
        (False, "iam:CreateRole", role, {}),
        (False, "iam:CreateRole", role, admin),
        (False, "iam:CreateRole", other, boundary),
        (True, "iam:PutRolePolicy", role, boundary),
        (False, "iam:PutRolePolicy", role, {}),
        (False, "iam:DeleteRolePermissionsBoundary", role, boundary),
        (False, "iam:AttachRolePolicy", role, boundary),
        (False, "iam:CreatePolicyVersion", environment.boundary, {}),
        (True, "iam:PassRole", role, to_lambda),
        (False, "iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}),
        (False, "iam:PassRole", other, to_lambda),
        (
            True,
            "lambda:CreateFunction",
            environment.arn("lambda", f"function:{function_prefix(environment.env)}f-0"),
            {},
        ),
        (False, "lambda:CreateFunction", environment.arn("lambda", "function:other"), {}),
        (True, "dynamodb:PutItem", table, {"dynamodb:LeadingKeys": "F"}),
        (False, "dynamodb:PutItem", table, {"dynamodb:LeadingKeys": "KEY"}),
        (False, "dynamodb:GetItem", table, {"dynamodb:LeadingKeys": "R#1"}),
        (True, "ssm:PutParameter", environment.arn("ssm", f"parameter/stepwell/{environment.env}/dotenv/f/a"), {}),
        (False, "ssm:PutParameter", environment.arn("ssm", f"parameter/stepwell/{environment.env}x/dotenv/f/a"), {}),
        (False, "ssm:GetParameters", secret, {}),
    ]


@check("IAM allows a push what it needs, and denies everything else", seconds=5)
def a_push_is_least_privileged(account: Account) -> str:
    """Simulates the policy: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulateCustomPolicy.html"""
    iam, environment = account.client("iam"), Environment.of(account.resources)
    document = json.dumps(policy(environment))
    wrong = []
    table = accesses(environment)
    for is_allowed, action, resource, context in table:
        entries = [
            {
                "ContextKeyName": key,
                "ContextKeyValues": [value],
                "ContextKeyType": "stringList" if key.startswith("dynamodb:") else "string",
            }
            for key, value in context.items()
        ]
        answer = iam.simulate_custom_policy(
            PolicyInputList=[document], ActionNames=[action], ResourceArns=[resource], ContextEntries=entries
        )
        decision = answer["EvaluationResults"][0]["EvalDecision"]
        if (decision == "allowed") is not is_allowed:
            wrong.append(f"{action} on {resource} with {dict(context)} is {decision}")
    if wrong:
        raise Failed("; ".join(wrong))
    return f"{len(table)} of {len(table)} as they should be, {sum(pair[0] for pair in table)} of them allowed"


def assumed(account: Account, commands: list[str]) -> dict[str, str]:
    """Creates a role with only the policy for these commands, and returns credentials as environment variables. The
    role is removed when the check ends."""
    iam, sts, name = account.client("iam"), account.client("sts"), f"stepwell-check-{secrets.token_hex(4)}"
    root = f"arn:{Environment.of(account.resources).partition}:iam::{account.resources.account}:root"
    trusts = {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trusts]})
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    account.cleanup.callback(iam.delete_role, RoleName=name)
    printed = account.stepwell("policy", *commands)
    iam.put_role_policy(RoleName=name, PolicyName="push", PolicyDocument=printed)
    account.cleanup.callback(iam.delete_role_policy, RoleName=name, PolicyName="push")

    def assume() -> Any:
        try:
            return sts.assume_role(RoleArn=arn, RoleSessionName="check")["Credentials"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":
                raise
            return None  # a new role is known after some seconds

    keys: Json = account.until(f"{name} can be assumed", assume)
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }


@check("A push succeeds with only the printed policy", seconds=40, usd=0.001)
def a_push_succeeds_with_its_policy(account: Account) -> str:
    account.use_functions()
    environment = {name: value for name, value in os.environ.items() if name != "AWS_PROFILE"}
    environment |= {**assumed(account, ["push"]), "AWS_REGION": account.resources.region}
    folder = str(ROOT / "rehearsal" / "real" / "functions" / PUSHED)
    words = [sys.executable, "-m", "stepwell", "push", folder, "--env", account.env]
    text = ""

    def pushed() -> bool:
        nonlocal text
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        text = done.stderr or done.stdout
        if done.returncode and "denies" not in text:
            raise Failed(text.strip()[-2000:])
        return done.returncode == 0

    try:
        account.until("IAM knows the policy", pushed, within_s=30, every_s=5)
    except Failed:
        raise Failed(f"the push is denied: {text.strip()[-2000:]}") from None
    return text.strip().splitlines()[-1] if text.strip() else "pushed"


@check("All layer versions that step Lambdas use exist, including replaced ones", emulated=True)
def layers_in_use_exist(account: Account) -> str:
    account.use_functions()
    client, prefix = account.client("lambda"), function_prefix(account.env)
    pages = client.get_paginator("list_functions").paginate(FunctionVersion="ALL")
    found = [
        function for page in pages for function in page["Functions"] if function["FunctionName"].startswith(prefix)
    ]
    used = {layer["Arn"] for item in found for layer in item.get("Layers") or ()}
    for arn in sorted(used):
        try:
            client.get_layer_version_by_arn(Arn=arn)
        except client.exceptions.ResourceNotFoundException:
            raise Failed(f"{arn} was deleted, but Lambdas use it, so they cannot be updated; push again") from None
    old = used - set(account.resources.layers.values())
    return f"{len(used)} versions in use by {len(found)} Lambdas, {len(old)} of them of earlier deploys"


@check("CloudFormation reports whether a Lambda is part of a stack")
def cloudformation_finds_the_stack_of_a_lambda(account: Account) -> str:
    """`stepwell functions prune` depends on this: it removes only Lambdas that are in no stack."""
    account.use_functions()
    formation, engine = account.client("cloudformation"), account.engine_lambda("route")
    if not formation.describe_stack_resources(PhysicalResourceId=engine)["StackResources"]:
        raise Failed(f"CloudFormation finds no stack for {engine}, which it created")
    pages = account.client("lambda").get_paginator("list_functions").paginate()
    names = [function["FunctionName"] for page in pages for function in page["Functions"]]
    name = next(name for name in names if name.startswith(function_prefix(account.env)))
    try:
        formation.describe_stack_resources(PhysicalResourceId=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise Failed(f"CloudFormation answers for {name}, which a push created: {error}") from error
        return f"{engine} is in a stack, {name} is in none"
    raise Failed(f"{name} was created by a push, but CloudFormation finds it in a stack")
