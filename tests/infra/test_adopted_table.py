"""A stack with an existing table, such as one that was restored from a point in time."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from infra.setting_fields import BadSetting
from infra.settings import Settings
from infra.stack import StepwellStack
from stepwell.aws.resources import parameter

NAME = "stepwell-prod-2026-06-01"
KEY = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(env="prod", table=NAME, kms_key=KEY)
    stack = StepwellStack(cdk.App(outdir=str(tmp_path_factory.mktemp("cdk"))), settings)
    found: dict[str, Any] = Template.from_stack(stack).to_json()["Resources"]
    return found


def of(resources: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource["Properties"] for resource in resources.values() if resource["Type"] == kind]


def test_the_stack_makes_no_table(resources: dict[str, Any]) -> None:
    assert of(resources, "AWS::DynamoDB::Table") == []


def test_lambdas_may_use_that_table_and_its_index_and_no_other(resources: dict[str, Any]) -> None:
    statements = [
        statement
        for role in of(resources, "AWS::IAM::Role")
        for policy in role.get("Policies", ())
        for statement in policy["PolicyDocument"]["Statement"]
        if "dynamodb:" in json.dumps(statement["Action"])
    ]
    named = {_ending(statement["Resource"]) for statement in statements}
    assert named == {f":table/{NAME}", f":table/{NAME}/index/status"}


def test_commands_lambdas_alarms_and_the_dashboard_know_that_table(resources: dict[str, Any]) -> None:
    texts = {item["Name"]: json.dumps(item["Value"]) for item in of(resources, "AWS::SSM::Parameter")}
    assert f'\\"table\\":\\"{NAME}\\"' in texts[parameter("prod")].replace("\\\\", "\\")
    variables = [json.dumps(item.get("Environment", {})) for item in of(resources, "AWS::Lambda::Function")]
    assert sum(NAME in variable for variable in variables) == 7
    alarms = of(resources, "AWS::CloudWatch::Alarm")
    dimensions = [dimension for alarm in alarms for dimension in alarm.get("Dimensions", ())]
    assert [dimension["Value"] for dimension in dimensions if dimension["Name"] == "TableName"] == [NAME] * 4
    assert NAME in json.dumps(of(resources, "AWS::CloudWatch::Dashboard"))


def test_a_signing_key_in_a_restored_table_is_deleted(resources: dict[str, Any]) -> None:
    """The custom resource is called again because the property `Table` changes."""
    assert [item["Table"] for item in of(resources, "Custom::StepwellSecretInTable")] == [NAME]


def test_an_invalid_table_name_is_refused() -> None:
    with pytest.raises(BadSetting, match="the name of a DynamoDB table"):
        replace(Settings(), table="arn:aws:dynamodb:us-east-1:123456789012:table/a")


def _ending(resource: Any) -> str:
    """The part after the account in an ARN that a template joins."""
    (parts,) = [resource["Fn::Join"][1]]
    return str(parts[-1])
