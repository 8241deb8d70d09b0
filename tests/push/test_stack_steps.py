"""Steps in your own stack: they support grants and connections like any Lambda, and need no account at synthesis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_lambda as lambda_
from aws_cdk.assertions import Template

from stepwell.cdk import Functions, StepOptions
from stepwell.cdk.options import CannotDeploy

Write = Callable[..., Path]
Json = dict[str, Any]
TWO = {"charge": {"path": "file://./a", "secrets": ["KEY"]}, "mail": {"path": "file://./a"}}
IN_VPC = {"charge": {"path": "file://./a", "runtime": {"type": "lambda", "vpc": True}}}
FILES = {"a/main.py": "print(1)\n"}


@pytest.fixture
def stack(tmp_path: Path) -> cdk.Stack:
    return cdk.Stack(cdk.App(outdir=str(tmp_path / "out")), "Mine")


def template(stack: cdk.Stack) -> Any:
    return Template.from_stack(stack).to_json()


def of(stack: cdk.Stack, kind: str) -> dict[str, Json]:
    resources = template(stack)["Resources"].items()
    return {name: item.get("Properties", {}) for name, item in resources if item["Type"] == f"AWS::{kind}"}


def step_lambda(stack: cdk.Stack, step: str) -> Json:
    (fields,) = [
        item for item in of(stack, "Lambda::Function").values() if item.get("Description") == f"Step {step} of order"
    ]
    return fields


def table(stack: cdk.Stack) -> dynamodb.Table:
    key = dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING)
    return dynamodb.Table(stack, "Table", partition_key=key)


def order(stack: cdk.Stack, write: Write, steps: Json = TWO, **more: Any) -> Functions:
    return Functions(stack, "Functions", path=write("order", files=FILES, steps=steps), env="prod", **more)


# --- granting --------------------------------------------------------------------------------------------------------


def test_a_grant_to_a_step_does_not_reach_other_steps(stack: cdk.Stack, write: Write) -> None:
    functions = order(stack, write)
    table(stack).grant_read_write_data(functions.step("order", "charge"))
    charge, mail = (step_lambda(stack, step)["Role"]["Fn::GetAtt"][0] for step in ("charge", "mail"))
    (granted,) = [
        item for item in of(stack, "IAM::Policy").values() if "dynamodb:PutItem" in json.dumps(item["PolicyDocument"])
    ]
    assert granted["Roles"] == [{"Ref": charge}]
    assert charge != mail


def test_a_step_with_a_separate_role_keeps_the_permissions_of_a_step(stack: cdk.Stack, write: Write) -> None:
    functions = order(stack, write)
    functions.step("order", "charge")
    role = step_lambda(stack, "charge")["Role"]["Fn::GetAtt"][0]
    (inline,) = of(stack, "IAM::Role")[role]["Policies"]
    allowed = {item["Sid"] for item in inline["PolicyDocument"]["Statement"] if "Sid" in item}
    assert allowed == {"Outcomes", "Logs"}
    (secret,) = [item for item in of(stack, "IAM::Policy").values() if item["Roles"] == [{"Ref": role}]]
    assert "secrets/KEY" in json.dumps(secret)


def test_a_grant_makes_a_version_with_the_new_role_and_changes_nothing_else(
    stack: cdk.Stack, write: Write, tmp_path: Path
) -> None:
    order(stack, write)
    other = cdk.Stack(cdk.App(outdir=str(tmp_path / "other")), "Mine")
    functions = order(other, write)
    assert functions.step("order", "charge") is functions.step("order", "charge")
    assert of(stack, "Lambda::Function").keys() == of(other, "Lambda::Function").keys()
    before, after = of(stack, "Lambda::Version"), of(other, "Lambda::Version")
    assert len(before) == len(after) == 2
    (kept,) = before.keys() & after.keys()  # of the other step
    assert "mail" in kept


def test_a_version_goes_live_after_the_grants_are_created(stack: cdk.Stack, write: Write) -> None:
    functions = order(stack, write)
    table(stack).grant_read_data(functions.step("order", "charge"))
    resources = template(stack)["Resources"]
    (registered,) = [resource for resource in resources.values() if resource["Type"] == "Custom::StepwellFunction"]
    policies = {name for name, item in resources.items() if item["Type"] == "AWS::IAM::Policy"}
    assert policies <= {*registered["DependsOn"]}


# --- options ---------------------------------------------------------------------------------------------------------


def test_a_step_in_the_stack_s_vpc_supports_connections(stack: cdk.Stack, write: Write) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    database = ec2.SecurityGroup(stack, "Database", vpc=vpc)
    functions = order(stack, write, steps=IN_VPC, options=StepOptions(vpc=vpc))
    step = functions.step("order", "charge")
    step.connections.allow_to(ec2.Connections(security_groups=[database]), ec2.Port.tcp(5432))
    network = step_lambda(stack, "charge")["VpcConfig"]
    private = [stack.resolve(subnet.subnet_id) for subnet in vpc.private_subnets]
    assert network["SubnetIds"] == private
    (ingress,) = of(stack, "EC2::SecurityGroupIngress").values()
    assert (ingress["FromPort"], [ingress["SourceSecurityGroupId"]]) == (5432, network["SecurityGroupIds"])


def test_a_lambda_in_a_vpc_depends_on_the_role_s_network_policy(stack: cdk.Stack, write: Write) -> None:
    order(stack, write, options=StepOptions(vpc=ec2.Vpc(stack, "Vpc")))
    resources = template(stack)["Resources"]
    (network,) = [name for name, item in resources.items() if item.get("Properties", {}).get("PolicyName") == "network"]
    steps = [
        resource
        for resource in resources.values()
        if resource.get("Properties", {}).get("Handler") == "stepwell.program"
    ]
    assert [network in step["DependsOn"] for step in steps] == [True, True]


def test_options_of_one_step_override_general_options_and_the_definition(stack: cdk.Stack, write: Write) -> None:
    fonts = lambda_.LayerVersion.from_layer_version_arn(
        stack, "Fonts", "arn:aws:lambda:eu-central-1:123456789012:layer:fonts:3"
    )
    common = StepOptions(tracing=True, environment={"STAGE": "prod", "LOG": "info"})
    own = StepOptions(
        ephemeral_storage_size=cdk.Size.gibibytes(2), layers=[fonts], environment={"LOG": "debug"}, memory_size=512
    )
    steps = {**TWO, "charge": {"path": "file://./a", "env": {"LOG": "error", "MODE": "x"}}}
    Functions(
        stack,
        "Functions",
        path=write("order", files=FILES, steps=steps),
        env="prod",
        options=common,
        steps={"order/charge": own},
    )
    charge, mail = step_lambda(stack, "charge"), step_lambda(stack, "mail")
    assert (charge["MemorySize"], charge["EphemeralStorage"]) == (512, {"Size": 2048})
    assert charge["TracingConfig"] == mail["TracingConfig"] == {"Mode": "Active"}
    variables = charge["Environment"]["Variables"]
    assert {name: variables[name] for name in ("STAGE", "LOG", "MODE")} == {
        "STAGE": "prod",
        "LOG": "debug",
        "MODE": "x",
    }
    assert mail["Environment"]["Variables"]["LOG"] == "info"
    assert charge["Layers"] == [fonts.layer_version_arn, mail["Layers"][0]]  # the adapter's is last


@pytest.mark.parametrize(
    "options",
    [
        {"memory_size": 512},
        {"ephemeral_storage_size": cdk.Size.gibibytes(1)},
        {"environment": {"STAGE": "prod"}},
        {"tracing": True},
    ],
)
def test_a_changed_option_publishes_another_version(
    stack: cdk.Stack, write: Write, tmp_path: Path, options: Json
) -> None:
    order(stack, write)
    other = cdk.Stack(cdk.App(outdir=str(tmp_path / "other")), "Mine")
    order(other, write, options=StepOptions(**options))
    assert not of(stack, "Lambda::Version").keys() & of(other, "Lambda::Version").keys()


def test_a_variable_with_a_token_does_not_publish_a_version_at_each_synthesis(
    stack: cdk.Stack, write: Write, tmp_path: Path
) -> None:
    other = cdk.Stack(cdk.App(outdir=str(tmp_path / "other")), "Mine")
    for number, of_stack in enumerate((stack, other)):
        for _ in range(number * 5):
            cdk.Fn.ref("AWS::Region")  # so that tokens have other numbers
        order(of_stack, write, options=StepOptions(environment={"TABLE": table(of_stack).table_name}))
    assert of(stack, "Lambda::Version").keys() == of(other, "Lambda::Version").keys()


def test_a_layer_with_new_content_publishes_another_version(stack: cdk.Stack, write: Write, tmp_path: Path) -> None:
    other = cdk.Stack(cdk.App(outdir=str(tmp_path / "other")), "Mine")
    for of_stack, text in ((stack, "one"), (other, "two")):
        folder = tmp_path / text
        folder.mkdir()
        (folder / "font").write_text(text)
        layer = lambda_.LayerVersion(of_stack, "Fonts", code=lambda_.Code.from_asset(str(folder)))
        order(of_stack, write, options=StepOptions(layers=[layer]))
    assert not of(stack, "Lambda::Version").keys() & of(other, "Lambda::Version").keys()


def test_invalid_options_are_refused(stack: cdk.Stack, write: Write) -> None:
    public = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC)
    vpc = ec2.Vpc(stack, "Vpc")
    refused: list[tuple[Json, str]] = [
        (
            {"options": StepOptions(vpc=vpc, vpc_subnets=public)},
            "a Lambda in a public subnet has no public address",
        ),
        ({"options": StepOptions(environment={"STEPWELL_X": "1"})}, "STEPWELL_X is reserved by Lambda or Stepwell"),
        ({"steps": {"order/chrge": StepOptions()}}, "there are options for 'order/chrge'.*did you mean `order/charge`"),
    ]
    for i, (options, message) in enumerate(refused):
        with pytest.raises(CannotDeploy, match=message):
            Functions(stack, f"F{i}", path=write("order", files=FILES, steps=TWO), env="prod", **options)
    functions = order(stack, write)
    with pytest.raises(CannotDeploy, match="did you mean `order/mail`"):
        functions.step("order", "mial")


# --- the environment -------------------------------------------------------------------------------------------------


def test_the_environment_s_values_are_read_when_the_stack_is_deployed(stack: cdk.Stack, write: Write) -> None:
    order(stack, write, steps=IN_VPC)
    found = template(stack)
    parameters = {
        parameter["Default"]: parameter["Type"] for parameter in found["Parameters"].values() if "Default" in parameter
    }
    text = "AWS::SSM::Parameter::Value<String>"
    ids = "AWS::SSM::Parameter::Value<List<String>>"
    names = (
        "outcomes-queue",
        "layer-arm64",
        "kms-key",
        "permissions-boundary",
        "tracing",
        "retention-days",
        "event-age-s",
    )
    assert {name: kind for name, kind in parameters.items() if "bootstrap" not in name} == {
        "/stepwell/prod/registrar": text,
        **{f"/stepwell/prod/steps/{name}": text for name in names},
        **{f"/stepwell/prod/steps/{name}": ids for name in ("subnets", "security-groups")},
    }
    network = step_lambda(stack, "charge")["VpcConfig"]
    assert {name: [*value] for name, value in network.items()} == {"SubnetIds": ["Ref"], "SecurityGroupIds": ["Ref"]}
    assert step_lambda(stack, "charge")["TracingConfig"]["Mode"]["Fn::If"][1:] == ["Active", "PassThrough"]


def test_optional_features_of_an_environment_depend_on_conditions(stack: cdk.Stack, write: Write) -> None:
    order(stack, write)
    (role,) = of(stack, "IAM::Role").values()
    assert [*role["PermissionsBoundary"]] == ["Fn::If"]
    for group in of(stack, "Logs::LogGroup").values():
        assert group["KmsKeyId"]["Fn::If"][2] == {"Ref": "AWS::NoValue"}
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    depending = [statement["Fn::If"][1]["Sid"] for statement in statements if "Fn::If" in statement]
    assert depending == ["Traces", "OutcomesKey"]
    assert len(template(stack)["Conditions"]) == 3


def test_cfn_lint_finds_nothing(stack: cdk.Stack, write: Write) -> None:
    functions = order(stack, write, {**TWO, "fetch": {**TWO["mail"], "runtime": {"type": "lambda", "vpc": True}}})
    table(stack).grant_read_data(functions.step("order", "charge"))
    functions.step("order", "fetch")
    from cfnlint.api import ManualArgs, lint  # a second that only this test needs

    found = lint(json.dumps(template(stack)), config=ManualArgs(ignore_checks=["W3005"], regions=["eu-central-1"]))
    assert found == []  # W3005: a DependsOn that CDK writes though a reference implies it


SYNTH = """
import socket, sys

def refuse(*_):
    raise AssertionError("the synthesis used the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import aws_cdk as cdk
from stepwell.cdk import Functions

app = cdk.App(outdir=sys.argv[2])
Functions(cdk.Stack(app, "Mine"), "Functions", path=sys.argv[1], env="prod")
app.synth()
assert "boto3" not in sys.modules
"""


def test_a_synth_needs_neither_an_account_nor_a_network(write: Write, tmp_path: Path) -> None:
    folder, out = write("order", files=FILES, steps={**TWO, **IN_VPC}), tmp_path / "out"
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    none = str(tmp_path / "none")
    env |= {"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true"}
    subprocess.run([sys.executable, "-c", SYNTH, str(folder), str(out)], env=env, check=True, timeout=300)
    made = json.loads((out / "Mine.template.json").read_text())
    assert any(resource["Type"] == "Custom::StepwellFunction" for resource in made["Resources"].values())
