"""The service-linked role of ECS exists before the first cluster, whether the stack or somebody else created it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra.service_role import HANDLER
from tests.infra.conftest import Synth
from tests.infra.test_stack import references

ROLE = "AWSServiceRoleForECS"
MOST_INLINE = 4096
"""Characters of inline code: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-lambda-function-code.html"""


class Answers(ModuleType):
    """A stand-in for `cfnresponse`, which Lambda adds to inline code. It records the responses."""

    SUCCESS, FAILED = "SUCCESS", "FAILED"

    def __init__(self) -> None:
        super().__init__("cfnresponse")
        self.sent: list[tuple[str, str, str | None]] = []

    def send(self, event: Any, context: Any, status: str, data: Any, id: str, *, reason: str | None) -> None:
        self.sent.append((status, id, reason))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    found = Answers()
    monkeypatch.setitem(sys.modules, "cfnresponse", found)
    return found


@pytest.fixture
def code(answers: Answers) -> Any:
    spec = importlib.util.spec_from_file_location("index", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PROPAGATION_S = 0
    return module


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield boto3.client("iam")


def roles(iam: Any) -> list[str]:
    """The names of roles. moto includes the service as it is in the request."""
    return [role["RoleName"].replace("Forecs", "ForECS") for role in iam.list_roles()["Roles"]]


def test_the_role_is_made_in_a_new_account(code: Any, iam: Any, answers: Answers) -> None:
    code.handler({"RequestType": "Create"}, None)
    assert roles(iam) == [ROLE]
    assert answers.sent == [("SUCCESS", ROLE, None)]


def test_an_existing_role_is_left_alone(code: Any, iam: Any, answers: Answers) -> None:
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")
    before = iam.get_role(RoleName=ROLE)["Role"]["RoleId"]
    code.handler({"RequestType": "Create"}, None)
    code.handler({"RequestType": "Update"}, None)
    assert iam.get_role(RoleName=ROLE)["Role"]["RoleId"] == before
    assert answers.sent == [("SUCCESS", ROLE, None)] * 2


def test_the_role_stays_when_the_stack_is_deleted(code: Any, iam: Any, answers: Answers) -> None:
    code.handler({"RequestType": "Create"}, None)
    code.handler({"RequestType": "Delete"}, None)
    assert roles(iam) == [ROLE]
    assert answers.sent[-1] == ("SUCCESS", ROLE, None)


class NoSuchEntityError(Exception): ...


class InvalidInputError(Exception): ...


class Iam:
    """An account where another deployment creates the role after the check, or where the creation is denied."""

    exceptions = SimpleNamespace(NoSuchEntityException=NoSuchEntityError, InvalidInputException=InvalidInputError)

    def __init__(self, error: Exception) -> None:
        self.error, self.is_there = error, False

    def get_role(self, **_: str) -> None:
        if not self.is_there:
            raise NoSuchEntityError

    def create_service_linked_role(self, **_: str) -> None:
        self.is_there = isinstance(self.error, InvalidInputError)
        raise self.error


def test_a_role_created_by_another_deployment_meanwhile_is_accepted(code: Any) -> None:
    code.ensure(Iam(InvalidInputError("has been taken in this account")))


def test_a_deployment_without_permission_for_the_role_names_the_command(
    code: Any, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "a boundary"}}, "CreateServiceLinkedRole")
    monkeypatch.setattr(code, "boto3", SimpleNamespace(client=lambda _: Iam(denied)))
    code.handler({"RequestType": "Create"}, None)
    ((status, _, reason),) = answers.sent
    assert status == "FAILED"
    assert "a boundary" in str(reason)
    assert "aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com" in str(reason)


# --- the template -----------------------------------------------------------------------------------------------------


def test_the_cluster_waits_for_the_role(synth: Synth) -> None:
    template = synth.templates["all"].to_json()["Resources"]
    (resource,) = [id for id, item in template.items() if item["Type"] == "Custom::EcsRole"]
    (cluster,) = [item for item in template.values() if item["Type"] == "AWS::ECS::Cluster"]
    assert resource in cluster["DependsOn"]
    assert not synth.resources("all", "AWS::IAM::ServiceLinkedRole"), "it fails where the role exists already"


@pytest.mark.parametrize("env", ["dev", "bare"])
def test_nothing_is_made_for_ecs_without_containers(synth: Synth, env: str) -> None:
    assert "AWSServiceRoleForECS" not in str(synth.templates[env].to_json())


def test_the_lambda_may_create_only_that_role(synth: Synth) -> None:
    (function,) = [
        resource
        for resource in synth.resources("all", "AWS::Lambda::Function").values()
        if "ECS" in resource.get("Description", "")
    ]
    assert len(function["Code"]["ZipFile"]) < MOST_INLINE
    (role,) = references(function["Role"])
    (policy,) = synth.resources("all", "AWS::IAM::Role")[role]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        assert str(statement["Resource"]).count("role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS") == 1
        assert "*" not in str(statement)
        if statement["Action"] == "iam:CreateServiceLinkedRole":
            assert statement["Condition"] == {"StringEquals": {"iam:AWSServiceName": "ecs.amazonaws.com"}}
        else:
            assert statement["Action"] == "iam:GetRole"
