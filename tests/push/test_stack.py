"""Functions in a stack: CloudFormation creates the same Lambdas and roles as a push, and registers the version last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from stepwell.aws.functions.custom_resource import handle
from stepwell.aws.functions.registry import Registry
from stepwell.cdk import Functions
from stepwell.cdk.functions import CannotDeploy
from stepwell.project.load import LoadError
from tests.push.conftest import Aws

Write = Callable[..., Path]


def synthesise(folder: Path, aws: Aws, out: Path) -> Any:
    stack = cdk.Stack(cdk.App(outdir=str(out)), "Mine")
    Functions(stack, "Functions", path=folder, resources=aws.resources)
    return Template.from_stack(stack).to_json()["Resources"]


def secretive(*secrets: str) -> Any:
    return {"a": {"path": "file://./a", "secrets": secrets}}


def of(resources: Any, kind: str) -> dict[str, Any]:
    return {name: item for name, item in resources.items() if item["Type"] == kind}


def test_a_stack_contains_what_a_push_would_create(aws: Aws, write: Write, tmp_path: Path) -> None:
    resources = synthesise(write(), aws, tmp_path / "out")
    ((function, value),) = of(resources, "AWS::Lambda::Function").items()
    properties = value["Properties"]
    assert (properties["Runtime"], properties["RecursiveLoop"]) == ("python3.13", "Allow")
    assert properties["FunctionName"].startswith("stepwell-dev-f-")
    assert properties["Layers"] == [aws.resources.layers["arm64"]]
    ((version, value),) = of(resources, "AWS::Lambda::Version").items()
    assert value["Properties"] == {"FunctionName": {"Ref": function}}
    ((invoke, value),) = of(resources, "AWS::Lambda::EventInvokeConfig").items()
    assert value["Properties"]["Qualifier"] == {"Fn::GetAtt": [version, "Version"]}
    assert value["Properties"]["DestinationConfig"]["OnFailure"] == {"Destination": aws.resources.outcomes_queue_arn}
    (registered,) = of(resources, "Custom::StepwellFunction").values()
    assert json.loads(registered["Properties"]["Definition"])["id"] == "f"
    assert {"Ref": version} in registered["Properties"]["Targets"]["Fn::Join"][1]
    assert invoke in registered["DependsOn"]


def test_resources_of_a_step_are_retained_when_it_leaves_the_stack(aws: Aws, write: Write, tmp_path: Path) -> None:
    resources = synthesise(write(steps=secretive("KEY"), files={"a/main.py": "1"}), aws, tmp_path / "out")
    kept = {
        resource["Type"] for resource in resources.values() if resource.get("DeletionPolicy") == "RetainExceptOnCreate"
    }
    assert kept == {
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::Function",
        "AWS::Lambda::Version",
        "AWS::Logs::LogGroup",
    }
    assert {resource["Type"] for resource in resources.values()} - kept == {"Custom::StepwellFunction"}


def test_a_secret_that_only_older_versions_need_stays_allowed(aws: Aws, write: Write, tmp_path: Path) -> None:
    """The policy is a separate resource, which is retained when it leaves the stack."""
    before = synthesise(write(steps=secretive("KEY", "OLD"), files={"a/main.py": "1"}), aws, tmp_path / "one")
    after = synthesise(write(steps=secretive("KEY"), files={"a/main.py": "1"}), aws, tmp_path / "two")
    (role,) = of(before, "AWS::IAM::Role")
    assert of(after, "AWS::IAM::Role") == of(before, "AWS::IAM::Role")
    (gone,) = of(before, "AWS::IAM::Policy").keys() - of(after, "AWS::IAM::Policy").keys()
    left = before[gone]
    assert left["DeletionPolicy"] == "RetainExceptOnCreate"
    assert left["Properties"]["Roles"] == [{"Ref": role}]
    (statement,) = left["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Resource"] == ["arn:aws:ssm:eu-central-1:123456789012:parameter/stepwell/dev/secrets/OLD"]


def test_a_function_is_live_after_its_types_and_before_its_webhooks(aws: Aws, write: Write, tmp_path: Path) -> None:
    schema, rule = '{"type": "object"}', '{"event": "go", "verify": {"type": "github", "secret": "S"}}'
    files = {"main.py": "1", "schemas/go.1.schema.json": schema, "webhooks/shop.json": rule}
    resources = synthesise(write(files=files), aws, tmp_path / "out")
    (kind,) = of(resources, "Custom::StepwellType")
    ((function, registered),) = of(resources, "Custom::StepwellFunction").items()
    (webhook,) = of(resources, "Custom::StepwellWebhook").values()
    assert kind in registered["DependsOn"]
    assert function in webhook["DependsOn"]
    assert json.loads(webhook["Properties"]["Rule"])["name"] == "shop"


def test_an_invalid_webhook_rule_stops_the_synthesis(aws: Aws, write: Write, tmp_path: Path) -> None:
    folder = write(files={"main.py": "1", "webhooks/shop.json": '{"event": "go", "id": "body."}'})
    with pytest.raises(LoadError, match=r"shop\.json"):
        synthesise(folder, aws, tmp_path / "out")


def test_changed_code_makes_another_version_of_the_same_lambda(aws: Aws, write: Write, tmp_path: Path) -> None:
    steps = {"a": {"path": "file://./a"}}
    before = synthesise(write(steps=steps, files={"a/main.py": "1"}), aws, tmp_path / "one")
    same = synthesise(write(steps=steps, files={"a/main.py": "1"}), aws, tmp_path / "same")
    after = synthesise(write(steps=steps, files={"a/main.py": "2"}), aws, tmp_path / "two")
    assert same == before
    for kind, is_same in (
        ("AWS::Lambda::Function", True),
        ("AWS::Lambda::Version", False),
        ("AWS::Lambda::EventInvokeConfig", False),
    ):
        assert (of(before, kind).keys() == of(after, kind).keys()) is is_same


def test_functions_that_a_stack_does_not_support_are_refused(aws: Aws, write: Write, tmp_path: Path) -> None:
    aws.resources = replace(aws.resources, cluster="containers")
    with pytest.raises(CannotDeploy, match="stepwell push"):
        synthesise(write(steps={"a": {"runtime": {"type": "docker", "image": "busybox"}}}), aws, tmp_path / "out")
    folder = write("g")
    (folder / ".env").write_text("A=1\n")
    with pytest.raises(CannotDeploy, match="secrets"):
        synthesise(folder, aws, tmp_path / "out2")


# --- the registrar ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cloudformation() -> Iterator[tuple[str, list[Any]]]:
    """A server for the responses to CloudFormation: the URL, and the received responses."""
    answers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/answer", answers
    server.shutdown()
    thread.join(10)
    server.server_close()


def request(url: str, kind: str, properties: dict[str, Any], **fields: Any) -> dict[str, Any]:
    values = {"StackId": "s", "RequestId": "r", "LogicalResourceId": "Registered", "ResponseURL": url}
    return {**values, "RequestType": kind, "ResourceProperties": properties, **fields}


def properties_of(folder: Path, aws: Aws, out: Path) -> dict[str, Any]:
    (registered,) = of(synthesise(folder, aws, out), "Custom::StepwellFunction").values()
    fields: dict[str, Any] = registered["Properties"]
    return {**fields, "Targets": json.dumps({"step-1": {"lambda": "arn:x:1"}})}  # as CloudFormation resolves it


def test_the_registrar_makes_a_version_live_and_retires_the_function(
    aws: Aws, write: Write, tmp_path: Path, cloudformation: tuple[str, list[Any]]
) -> None:
    url, answers = cloudformation
    properties = properties_of(write(), aws, tmp_path / "out")
    handle(request(url, "Create", properties), aws.resources, aws.slept.append)
    same = {"StackId": "s", "RequestId": "r", "LogicalResourceId": "Registered", "PhysicalResourceId": "f"}
    assert answers == [{**same, "Status": "SUCCESS", "Data": {"Version": 1}}]
    assert Registry(aws.resources).version("f", 1).targets == {"step-1": {"lambda": "arn:x:1"}}
    handle(request(url, "Delete", properties, PhysicalResourceId="f"), aws.resources)
    assert answers[1]["Status"] == "SUCCESS"
    assert [row.live for row in Registry(aws.resources).functions()] == [None]


def test_a_failed_registration_is_reported_to_cloudformation(
    aws: Aws, write: Write, tmp_path: Path, cloudformation: tuple[str, list[Any]]
) -> None:
    url, answers = cloudformation
    properties = {**properties_of(write(), aws, tmp_path / "out"), "Definition": "{"}
    handle(request(url, "Create", properties), aws.resources)
    assert (answers[0]["Status"], answers[0]["PhysicalResourceId"]) == ("FAILED", "Registered")
    handle(
        request(url, "Delete", properties, PhysicalResourceId="Registered"), aws.resources
    )  # the request that CloudFormation sends next
    assert answers[1]["Status"] == "SUCCESS"
    assert Registry(aws.resources).functions() == []
