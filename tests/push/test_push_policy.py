"""The policy of a command allows exactly what the command requests, and cannot be used to gain permissions."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
import yaml
from aws_cdk import aws_iam
from aws_cdk.assertions import Template
from botocore.exceptions import ClientError

from stepwell.aws import clients
from stepwell.aws.deploy.prune import GRACE_MS, Prune
from stepwell.aws.deploy.push_policy import COMMANDS, Environment, policy
from stepwell.aws.deploy.step_policy import StepNeeds, boundary
from stepwell.aws.deploy.step_policy import policy as policy_of_steps
from stepwell.aws.resources import parameter
from stepwell.aws.signing.signing_keys import make_keys
from stepwell.aws.table.keys import run_key, status_partition
from stepwell.cdk.push import BadTrust, PushPolicy, PushRole, push_parameter
from tests.push.conftest import Aws, refusal
from tests.push.iam import Access, Account, access, arn, is_allowed, role_arn, single
from tests.push.test_cli import data, ok, run

Write = Callable[..., Path]
Json = dict[str, Any]
BOUNDARY = "arn:aws:iam::123456789012:policy/stepwell-dev-steps-eu-central-1"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/12345678-1234-1234-1234-123456789012"
GIVEN = "arn:aws:lambda:eu-central-1:123456789012:function:crm"
SERVICES = ("dynamodb", "lambda", "iam", "ssm", "logs", "s3", "ecs", "ecr", "cloudformation", "sts")
# Requests of docker or podman to ECR, which are not made by this process:
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html
IMAGES = (
    "BatchCheckLayerAvailability", "BatchGetImage", "CompleteLayerUpload", "GetDownloadUrlForLayer",
    "InitiateLayerUpload", "PutImage", "UploadLayerPart",
)  # fmt: skip


@contextmanager
def recorded(aws: Aws) -> Iterator[set[Access]]:
    """Yields the set of permissions that requests in the block need."""
    clients.reset()  # new clients are recorded
    needed: set[Access] = set()
    account = aws.session.__dict__.setdefault("_iam_account", Account())

    def record(params: Json, model: Any, **_: Any) -> None:
        needed.update(account.needs(model.service_model.service_name, model.name, params))

    aws.session.events.register("before-parameter-build", record, unique_id="iam")
    yield needed
    aws.session.events.unregister("before-parameter-build", unique_id="iam")


def with_containers(aws: Aws) -> None:
    """Adds everything to the environment that a policy can name."""
    uri = aws.session.client("ecr").create_repository(repositoryName="steps")["repository"]["repositoryUri"]
    aws.resources = replace(
        aws.resources,
        cluster="stepwell-dev",
        execution_role="arn:aws:iam::123456789012:role/execution",
        adapter_images={"x86_64": "adapter"},
        repository=uri,
        step_boundary=BOUNDARY,
    )
    aws.session.client("ssm").put_parameter(
        Name=parameter("dev"), Value=aws.resources.to_json(), Type="String", Overwrite=True
    )
    document = json.dumps(boundary(aws.resources))
    aws.session.client("iam").create_policy(PolicyName=BOUNDARY.rpartition("/")[2], PolicyDocument=document)


def everything(write: Write) -> Path:
    """A function with all features."""
    return write(
        id="f",
        triggers=[{"event": "go"}, {"cron": "0 9 * * *"}],
        steps={
            "a": {"path": "file://./a", "secrets": ["KEY"]},
            "old": {"path": "file://./a", "runtime": {"type": "lambda", "architecture": "x86_64"}},
            "web": {"path": "file://./a", "runtime": {"type": "http", "url": "https://example.com"}},
            "given": {"runtime": {"type": "lambda", "arn": GIVEN}},
            "box": {"runtime": {"type": "docker", "image": "127.0.0.1:1/box:1", "entrypoint": ["/bin/true"]}},
        },
        files={
            "a/main.py": "1",
            "a/.env": "A=1\n",
            "schemas/go.1.schema.json": '{"type": "object"}',
            "webhooks/shop.json": '{"event": "go", "verify": {"type": "github", "secret": "KEY"}}',
        },
    )


def given_lambda(aws: Aws) -> None:
    role = aws.session.client("iam").create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    aws.session.client("lambda").create_function(
        FunctionName="crm", Runtime="python3.13", Role=role, Handler="a.b", Code={"ZipFile": b"x"}
    )


def pushes(aws: Aws, write: Write) -> set[Access]:
    """The permissions that all kinds of pushes need."""
    given_lambda(aws)
    ok("secrets", "set", "KEY", "--value", "1", "--env", "dev")
    with recorded(aws) as needed:
        folder = everything(write)
        ok("push", folder, "--env", "dev", "--dry-run")
        ok("push", folder, "--env", "dev")
        (folder / "a" / ".env").write_text("A=2\n")
        file = folder / "stepwell.json"
        definition = json.loads(file.read_text())
        definition["triggers"].pop()  # removes a cron trigger
        definition["triggers"].append({"cron": "0 8 * * *"})
        file.write_text(json.dumps(definition))
        (folder / "webhooks" / "shop.json").write_text('{"event": "to", "verify": {"type": "github", "secret": "KEY"}}')
        ok("push", folder, "--env", "dev", "--canary", "10%", "--guard")
        unbounded_roles(aws, folder)
    for most in (2, 0):
        set_step_concurrency(aws, most)
        with recorded(aws) as more:
            ok("push", folder, "--env", "dev")
        needed |= more
    with recorded(aws) as more:
        breaks_off(aws, folder)
    return needed | more


def unbounded_roles(aws: Aws, folder: Path) -> None:
    """Pushes with a role without boundary, as older versions of Stepwell made it. Push sets the boundary if the team
    has added no policies."""
    iam = aws.session.client("iam")
    iam.delete_role_permissions_boundary(RoleName="stepwell-dev-step-f")
    ok("push", folder, "--env", "dev")


def set_step_concurrency(aws: Aws, most: int) -> None:
    aws.resources = replace(aws.resources, step_concurrency=most)
    value = aws.resources.to_json()
    aws.session.client("ssm").put_parameter(Name=parameter("dev"), Value=value, Type="String", Overwrite=True)


def breaks_off(aws: Aws, folder: Path) -> None:
    """Uploads more than 8 MB, in parts, and lets one fail: then the upload is aborted."""
    (folder / "a" / "data").write_bytes(os.urandom(9 * 1024 * 1024))
    aws.fail_once("UploadPart", refusal("InternalError", "no", "UploadPart"))
    with pytest.raises(ClientError):
        aws.push(folder)


def test_the_push_policy_allows_exactly_what_a_push_requests(aws: Aws, write: Write) -> None:
    with_containers(aws)
    environment = replace(Environment.of(aws.resources), step_lambdas=(GIVEN,))
    document = policy(environment)
    needed = {push for push in pushes(aws, write) if push.action != "iam:DeleteRolePermissionsBoundary"}
    needed |= {access("ecr:GetAuthorizationToken", "*")}
    needed |= {
        access("lambda:DeleteFunction", arn("lambda", "function:stepwell-dev-f-0123456789ab"))
    }  # of a failed creation
    needed |= {access(f"ecr:{action}", arn("ecr", "repository/steps")) for action in IMAGES}
    assert sorted(str(access) for access in needed if not is_allowed(document, access)) == []
    assert surplus(document, needed) == []


def surplus(document: Json, needed: set[Access]) -> list[str]:
    """The permissions in the document that are not needed."""
    allowed = [policy for policy in single(document) if policy["Statement"][0]["Effect"] == "Allow"]
    items = [policy["Statement"][0] for policy in allowed if not any(is_allowed(policy, access) for access in needed)]
    return [f"{item['Action']} {item['Resource']} {item['Condition']}" for item in items]


def test_secrets_can_be_set_and_removed_without_ever_being_read(aws: Aws, write: Write) -> None:
    with_containers(aws)
    environment = Environment.of(aws.resources)
    with recorded(aws) as needed:
        ok("secrets", "set", "KEY", "--value", "1", "--env", "dev")
    aws.push(write(steps={"a": {"path": "file://./a", "secrets": ["KEY"]}}, files={"a/main.py": "1"}))
    with recorded(aws) as more:
        assert data("secrets", "set", "KEY", "--value", "2", "--env", "dev")["renewed"]
        ok("secrets", "list", "--env", "dev")
        ok("secrets", "remove", "KEY", "--env", "dev")
    document = policy(environment, ["secrets"])
    assert [access for access in needed | more if not is_allowed(document, access)] == []
    assert surplus(document, needed | more) == []
    read = [access(f"ssm:{action}", arn("ssm", "parameter/stepwell/dev/secrets/KEY")) for action in
            ("GetParameter", "GetParameters", "GetParameterHistory")]  # fmt: skip
    for commands in (["secrets"], ["push"], list(COMMANDS)):
        assert not any(is_allowed(policy(environment, commands), access) for access in read)


def test_keys_can_be_made_listed_and_revoked(aws: Aws) -> None:
    with_containers(aws)
    with recorded(aws) as needed:
        ok("keys", "create", "--env", "dev")
        (key,) = data("keys", "list", "--env", "dev")
        ok("keys", "revoke", key["id"], "--env", "dev")
    document = policy(Environment.of(aws.resources), ["keys"])
    assert [access for access in needed if not is_allowed(document, access)] == []
    assert surplus(document, needed) == []


def test_signing_keys_can_be_listed_rotated_and_dropped(aws: Aws) -> None:
    with_containers(aws)
    make_keys(aws.session.client("ssm"), aws.resources, 0)
    with recorded(aws) as needed:
        ok("signing-keys", "rotate", "--env", "dev", "--yes")
        old = next(key["id"] for key in data("signing-keys", "list", "--env", "dev") if key["retired_at"])
        ok("signing-keys", "drop", old, "--env", "dev", "--yes")
    document = policy(Environment.of(aws.resources), ["signing-keys"])
    assert sorted(str(access) for access in needed if not is_allowed(document, access)) == []
    assert surplus(document, needed) == []


def test_functions_can_be_retired_and_pruned(aws: Aws, write: Write) -> None:
    with_containers(aws)
    given_lambda(aws)
    ok("secrets", "set", "KEY", "--value", "1", "--env", "dev")
    with recorded(aws):
        of_a_stack(aws)
        aws.fail_once("UpdateItem", refusal("InternalServerError", "no", "UpdateItem"))
        assert run("push", everything(write), "--env", "dev").exit_code == 1  # the next command completes it
    running = {"f": {"S": "f"}, "n": {"N": "7"}, "gk": {"S": status_partition("running", 3)}, "gs": {"N": "1"}}
    aws.session.client("dynamodb").put_item(TableName=aws.resources.table, Item={**run_key("r1"), **running})
    client, tag = aws.session.client("lambda"), {"stepwell:env": "dev"}
    for name in aws.resources.layers:
        new = client.publish_layer_version(LayerName=f"adapter-{name}", Content={"ZipFile": b"new"})["LayerVersionArn"]
        aws.resources = replace(aws.resources, layers={**aws.resources.layers, name: new})
    iam = aws.session.client("iam")
    for role in ("stepwell-dev-step-f", "Mine-role"):
        iam.attach_role_policy(RoleName=role, PolicyArn=BOUNDARY)
    for group in ("/stepwell/dev/tasks/gone", "/aws/lambda/stepwell-dev-gone-0123456789ab"):
        aws.session.client("logs").create_log_group(logGroupName=group, tags=tag)
    image(aws)
    aws.session.events.register("after-call.ecs.DescribeTaskDefinition", registered)
    with recorded(aws) as needed:
        ok("functions", "retire", "f", "--env", "dev")
        pruning = Prune(aws.resources, aws.account(), time.time_ns() // 1_000_000 + 2 * GRACE_MS)
        for what in pruning.plan():
            pruning.apply(what)
        ok("functions", "prune", "--env", "dev", "--dry-run")
    # A retirement reads the version that a concurrent push has made live.
    needed.add(access("dynamodb:GetItem", arn("dynamodb", "table/stepwell-dev"), dynamodb__LeadingKeys="V#f"))
    document = policy(Environment.of(aws.resources), ["functions"])
    assert sorted(str(access) for access in needed if not is_allowed(document, access)) == []
    assert surplus(document, needed) == []


def registered(parsed: Any, **_: Any) -> None:
    """Adds `registeredAt`, which moto lacks."""
    parsed["taskDefinition"].setdefault("registeredAt", datetime(2026, 1, 1, tzinfo=UTC))


def of_a_stack(aws: Aws) -> None:
    """Creates a Lambda and a role that have left their stack."""
    tags = {"stepwell:env": "dev", "stepwell:function": "s"}
    given = [{"Key": key, "Value": value} for key, value in tags.items()]
    iam = aws.session.client("iam")
    role = iam.create_role(RoleName="Mine-role", AssumeRolePolicyDocument="{}", Tags=given)["Role"]["Arn"]
    iam.put_role_policy(RoleName="Mine-role", PolicyName="stepwell", PolicyDocument=json.dumps(boundary(aws.resources)))
    aws.session.client("lambda").create_function(
        FunctionName="stepwell-dev-s-0123456789ab",
        Runtime="python3.13",
        Role=role,
        Handler="a.b",
        Code={"ZipFile": b"x"},
        Tags=tags,
    )


def image(aws: Aws) -> None:
    media = "application/vnd.oci.image"
    layer = {"mediaType": f"{media}.layer.v1.tar", "size": 1, "digest": f"sha256:{'0' * 64}"}
    manifest = {"schemaVersion": 2, "mediaType": f"{media}.manifest.v1+json", "config": layer, "layers": [layer]}
    aws.session.client("ecr").put_image(repositoryName="steps", imageManifest=json.dumps(manifest), imageTag="old")


# --- privilege escalation --------------------------------------------------------------------------------------------

ENVIRONMENT = Environment(
    env="dev",
    partition="aws",
    region="eu-central-1",
    account="123456789012",
    table="stepwell-dev",
    bucket="stepwell-dev-code",
    boundary=BOUNDARY,
    layers=("adapter-arm64", "adapter-x86_64"),
    repository="steps",
    execution_role="arn:aws:iam::123456789012:role/execution",
)
STEP, FOREIGN = role_arn("stepwell-dev-step-f"), role_arn("admin")
OTHERS = "arn:aws:iam::123456789012:policy/AdministratorAccess"
ESCALATIONS = {
    "a role without a boundary": access("iam:CreateRole", STEP),
    "a role with another boundary": access("iam:CreateRole", STEP, iam__PermissionsBoundary=OTHERS),
    "a role of another name": access("iam:CreateRole", FOREIGN, iam__PermissionsBoundary=BOUNDARY),
    "more rights for a role without a boundary": access("iam:PutRolePolicy", STEP),
    "more rights for another role": access("iam:PutRolePolicy", FOREIGN, iam__PermissionsBoundary=BOUNDARY),
    "another boundary": access("iam:PutRolePermissionsBoundary", STEP, iam__PermissionsBoundary=OTHERS),
    "no boundary": access("iam:DeleteRolePermissionsBoundary", STEP, iam__PermissionsBoundary=BOUNDARY),
    "a managed policy": access("iam:AttachRolePolicy", STEP, iam__PermissionsBoundary=BOUNDARY),
    "a change of the boundary": access("iam:CreatePolicyVersion", BOUNDARY),
    "an older boundary": access("iam:SetDefaultPolicyVersion", BOUNDARY),
    "a Lambda with another role": access("iam:PassRole", FOREIGN, iam__PassedToService="lambda.amazonaws.com"),
    "a machine with a step's role": access("iam:PassRole", STEP, iam__PassedToService="ec2.amazonaws.com"),
    "the code of an engine's Lambda": access(
        "lambda:UpdateFunctionCode", arn("lambda", "function:Stepwell-dev-StepwellFunctionsroute-1")
    ),
    "another environment's Lambdas": access("lambda:CreateFunction", arn("lambda", "function:stepwell-prod-f-1")),
    "another environment's values": access("ssm:PutParameter", arn("ssm", "parameter/stepwell/prod/dotenv/f/a")),
    "another environment's code": access("s3:PutObject", "arn:aws:s3:::stepwell-prod-code/code/1.zip"),
    "what containers read": access("s3:GetObject", "arn:aws:s3:::stepwell-dev-code/inputs/1.json"),
    "the names in the environment": access("ssm:PutParameter", arn("ssm", "parameter/stepwell/dev/resources")),
    "a key of the API": access("dynamodb:PutItem", arn("dynamodb", "table/stepwell-dev"), dynamodb__LeadingKeys="KEY"),
    "runs": access("dynamodb:GetItem", arn("dynamodb", "table/stepwell-dev"), dynamodb__LeadingKeys="R#1"),
    "runs, beside functions": access(
        "dynamodb:BatchWriteItem", arn("dynamodb", "table/stepwell-dev"), dynamodb__LeadingKeys=("F", "R#1")
    ),
    "all of the table": access("dynamodb:Scan", arn("dynamodb", "table/stepwell-dev")),
}  # fmt: skip


def test_the_push_policy_cannot_be_used_to_gain_permissions() -> None:
    document = policy(ENVIRONMENT)
    assert {what for what, access in ESCALATIONS.items() if is_allowed(document, access)} == set()


def test_prune_may_remove_only_roles_of_steps() -> None:
    document = policy(ENVIRONMENT, ["functions"])
    engine = {"aws__ResourceTag/stepwell:env": "dev"}
    step = {**engine, "aws__ResourceTag/stepwell:function": "f"}
    assert is_allowed(document, access("iam:DeleteRole", role_arn("Mine-1"), **step))
    assert not is_allowed(document, access("iam:DeleteRole", role_arn("Mine-1"), **engine))
    assert not is_allowed(document, access("iam:DeleteRole", role_arn("Mine-1")))


# --- the boundary ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", KEY])
def test_the_boundary_allows_exactly_what_steps_need(aws: Aws, key: str) -> None:
    resources = replace(aws.resources, kms_key=key)
    resources = replace(resources, step_subnets=("subnet-1",))
    options: Json = {"lambdas": True, "secrets": ["A", "B"], "dotenv": True, "containers": True}
    options |= {"vpc": True, "tracing": True}
    granted = set(asked_of(policy_of_steps(resources, StepNeeds("f", **options))))
    document = boundary(resources)
    assert [access for access in granted if not is_allowed(document, access)] == []
    assert surplus(document, granted) == []
    for item in (access("s3:GetObject", "arn:aws:s3:::theirs/x"), access("iam:CreateUser", "*")):
        assert not is_allowed(document, item)


def asked_of(document: Json) -> Iterator[Access]:
    """One access for each permission in a step's policy."""
    for policy_of_one in single(document):
        (statement,) = policy_of_one["Statement"]
        if statement["Effect"] == "Deny":
            continue
        context = {key: value for tests in statement["Condition"].values() for key, value in tests.items()}
        resource = statement["Resource"].replace("?", "0").replace("*", "x")
        yield Access(statement["Action"], resource, tuple(sorted((key, (item,)) for key, item in context.items())))


def test_a_widened_boundary_excludes_the_engine_and_the_account(aws: Aws) -> None:
    document = boundary(aws.resources, ["dynamodb:*", "s3:*", "ses:SendEmail"])
    table = arn("dynamodb", "table/stepwell-dev")
    for item, allowed in (
        (access("dynamodb:GetItem", arn("dynamodb", "table/orders")), True),
        (access("ses:SendEmail", "*"), True),
        (access("dynamodb:GetItem", table), False),
        (access("dynamodb:Query", f"{table}/index/status"), False),
        (access("s3:PutObject", "arn:aws:s3:::stepwell-dev-code/code/1.zip"), False),
        (access("s3:PutObject", "arn:aws:s3:::stepwell-dev-code/inputs/1.json"), True),
        (access("iam:CreateUser", "*"), False),
    ):
        assert is_allowed(document, item) is allowed, item


def test_a_role_with_policies_of_a_team_keeps_no_boundary(aws: Aws, write: Write) -> None:
    """The stack's boundary would restrict the team's policies. Each push prints a note about it."""
    folder, iam = write(), aws.session.client("iam")
    aws.push(folder)
    with_containers(aws)
    iam.attach_role_policy(RoleName="stepwell-dev-step-f", PolicyArn=BOUNDARY)
    assert aws.push(folder)[0] == []
    (note,) = data("push", folder, "--env", "dev")["notes"]
    assert "stepwell-dev-step-f: this role has other policies than Stepwell's" in note
    assert "step_actions" in note
    iam.detach_role_policy(RoleName="stepwell-dev-step-f", PolicyArn=BOUNDARY)
    assert [action.kind for action in aws.push(folder)[0]] == ["role"]
    bounded = iam.get_role(RoleName="stepwell-dev-step-f")["Role"]["PermissionsBoundary"]
    assert bounded["PermissionsBoundaryArn"] == BOUNDARY


# --- the command, and the constructs ---------------------------------------------------------------------------------


def test_the_printed_policy_fits_into_a_managed_policy(aws: Aws) -> None:
    """IAM's limit is 6,144 characters without white space."""
    with_containers(aws)
    aws.resources = replace(aws.resources, kms_key=KEY)
    environment = Environment.of(aws.resources)
    printed = json.loads(ok("policy", "--env", "dev"))
    assert printed == policy(replace(environment, kms_key=""))
    for command in COMMANDS:
        assert len(json.dumps(policy(environment, [command]), separators=(",", ":"))) < 5800, command


def role_of(folder: Path, **options: Any) -> Any:
    stack = cdk.Stack(cdk.App(outdir=str(folder)), "Ci")
    PushRole(stack, "Deploy", env="prod", **options)
    return Template.from_stack(stack)


def trust_of(template: Any) -> Json:
    (role,) = template.find_resources("AWS::IAM::Role").values()
    (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    fields: Json = statement
    return fields


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        ({"branch": "main"}, "repo:acme/shop:ref:refs/heads/main"),
        ({"environment": "production"}, "repo:acme/shop:environment:production"),
    ],
)
def test_github_may_push_from_one_branch_or_environment_of_one_repository(
    tmp_path: Path, given: Json, subject: str
) -> None:
    statement = trust_of(role_of(tmp_path, github="acme/shop", **given))
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    issuer = "token.actions.githubusercontent.com"
    claims = {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": subject}
    assert statement["Condition"] == {"StringEquals": claims}
    assert f":oidc-provider/{issuer}" in str(statement["Principal"]["Federated"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "who may assume"),
        ({"github": "acme/shop"}, "name the branch"),
        ({"github": "acme/*", "branch": "main"}, "without wildcards"),
        ({"github": "acme/shop", "branch": "*"}, "without wildcards"),
        ({"github": "acme/shop", "branch": "main", "environment": "prod"}, "name the branch"),
        ({"github": "acme/shop", "branch": "main", "assumed_by": aws_iam.AccountRootPrincipal()}, "who may assume"),
    ],
)
def test_a_trust_that_is_too_wide_is_rejected(tmp_path: Path, given: Json, message: str) -> None:
    with pytest.raises(BadTrust, match=message):
        role_of(tmp_path, **given)


def test_the_stack_s_push_policy_equals_the_printed_one(aws: Aws, tmp_path: Path) -> None:
    """CloudFormation reads the environment's names at deployment."""
    stack = cdk.Stack(cdk.App(outdir=str(tmp_path)), "Ci")
    PushPolicy(stack, "Policy", env="dev", containers=True, kms_key=KEY)
    template = Template.from_stack(stack)
    (found,) = template.find_parameters("*", {"Default": push_parameter("dev")})
    with_containers(aws)
    environment = Environment.of(replace(aws.resources, kms_key=KEY))
    names = (environment.table, environment.bucket, BOUNDARY, *environment.layers, "steps", environment.execution_role)

    def resolved(value: Any) -> Any:
        match value:
            case {"Fn::Select": [index, {"Fn::Split": [",", {"Ref": ref}]}]}:
                assert ref == found
                return names[int(index)]
            case {"Fn::Join": [separator, parts]}:
                return separator.join(map(resolved, parts))
            case {"Ref": name}:
                return {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012"}[name]
            case dict():
                return {key: resolved(item) for key, item in value.items()}
            case list():
                return [resolved(item) for item in value]
        return value

    (made,) = template.find_resources("AWS::IAM::ManagedPolicy").values()
    assert _plain(resolved(made["Properties"]["PolicyDocument"])) == _plain(policy(environment))


def _plain(document: Json) -> list[str]:
    """The statement in a normal form: CDK writes a list of one as the element, and may merge statements."""
    return sorted({json.dumps(statement, sort_keys=True) for one in single(document) for statement in one["Statement"]})


# --- the documentation -----------------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent.parent / "docs" / "guides" / "deploy-from-ci.md"


def fences(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_documented_workflow_requests_a_token_and_uses_valid_commands() -> None:
    (text,) = fences("yaml")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"id-token": "write", "contents": "read"}
    steps = workflow["jobs"]["push"]["steps"]
    assert any(step.get("uses", "").startswith("aws-actions/configure-aws-credentials@") for step in steps)
    words = steps[-1]["run"].split()
    assert words[:2] == ["stepwell", "push"]
    options = {option for word in words if word.startswith("--") for option in [word]}
    assert all(option in ok("push", "--help") for option in options)


def test_the_documented_stacks_can_be_synthesised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    github, gitlab = fences("python")
    monkeypatch.setenv("CDK_OUTDIR", str(tmp_path))
    scope: Json = {}
    exec(github.replace("app.synth()", ""), scope)
    statement = trust_of(Template.from_stack(scope["stack"]))
    assert statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"].endswith("heads/main")
    scope["stack"] = cdk.Stack(cdk.App(outdir=str(tmp_path / "gitlab")), "Other")
    exec(gitlab, scope)
    condition = trust_of(Template.from_stack(scope["stack"]))["Condition"]
    assert set(condition["StringEquals"]) == {"gitlab.com:aud", "gitlab.com:sub"}
