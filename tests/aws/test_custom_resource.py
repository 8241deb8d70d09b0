"""Functions in CloudFormation stacks of users: create, update, delete."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import boto3
import pytest

from stepwell.aws.functions.custom_resource import handle
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources
from stepwell.cdk.environment import registrar_parameter
from stepwell.cdk.functions import Functions
from stepwell.core.definition.definition import parse_definition
from stepwell.testing.account.environment import ENV
from stepwell.testing.account.lambda_events import LambdaContext
from stepwell.testing.aws import AwsStepwell, aws_account
from stepwell.testing.batches import handler_step

Json = dict[str, Any]
CODE = "def say(event, context):\n    return {text!r}\n"


class CloudFormation:
    """Creates the resources of a template that the emulated account supports, in the order of their dependencies."""

    def __init__(self, stepwell: AwsStepwell, folder: Path) -> None:
        self._stepwell, self._folder = stepwell, folder
        self._made: dict[str, str] = {}  # the `Ref` of each resource, by logical id
        self._attributes: dict[str, str] = {}
        self._custom: dict[str, str] = {}  # physical ids of custom resources
        self._deploys = 0
        self.answers: list[Json] = []

    def deploy(self, functions: Path) -> None:
        self._deploys += 1
        before: Json = self._template["Resources"] if self._deploys > 1 else {}
        out = self._folder / f"cdk-{self._deploys}"
        app = cdk.App(outdir=str(out))
        stack = cdk.Stack(app, "Mine")
        Functions(stack, "Functions", functions, env=ENV, resources=self._stepwell.resources)
        app.synth()
        self._template: Json = json.loads((out / "Mine.template.json").read_text())
        for logical_id in self._in_order():
            self._make(logical_id, self._template["Resources"][logical_id], out)
        for logical_id in before.keys() - self._template["Resources"].keys():
            self._remove(logical_id, before[logical_id])

    def delete(self) -> None:
        for logical_id in self._custom:
            self._request("Delete", logical_id, self._template["Resources"][logical_id])

    def _remove(self, logical_id: str, fields: Json) -> None:
        """Deletes resources that are no longer in the template, unless the old template retains them."""
        if fields.get("DeletionPolicy", "Delete") != "Delete":
            return
        if logical_id in self._custom:
            self._request("Delete", logical_id, fields)
        elif fields["Type"] == "AWS::Lambda::Function":
            boto3.client("lambda").delete_function(FunctionName=self._made[logical_id])

    def _in_order(self) -> list[str]:
        resources: Json = self._template["Resources"]
        order: list[str] = []

        def add(logical_id: str) -> None:
            if logical_id in resources and logical_id not in order:
                resource = resources[logical_id]
                needs = resource.get("DependsOn", [])
                for one in [*([needs] if isinstance(needs, str) else needs), *_references(resource["Properties"])]:
                    add(one)
                order.append(logical_id)

        for logical_id in resources:
            add(logical_id)
        return order

    def _make(self, logical_id: str, fields: Json, out: Path) -> None:
        properties = self._resolved(fields["Properties"])
        match fields["Type"]:
            case "AWS::IAM::Role" if logical_id not in self._made:
                document = json.dumps(properties["AssumeRolePolicyDocument"])
                role = boto3.client("iam").create_role(RoleName=logical_id, AssumeRolePolicyDocument=document)["Role"]
                self._made[logical_id], self._attributes[f"{logical_id}.Arn"] = logical_id, role["Arn"]
            case "AWS::Lambda::Function":
                self._lambda(logical_id, properties, (out / f"asset.{properties['Code']['S3Key']}").read_bytes())
            case "AWS::Lambda::Version" if logical_id not in self._made:
                found = boto3.client("lambda").publish_version(FunctionName=properties["FunctionName"])
                self._made[logical_id] = found["FunctionArn"]
                self._attributes[f"{logical_id}.Version"] = found["Version"]
            case "AWS::Lambda::EventInvokeConfig" if logical_id not in self._made:
                boto3.client("lambda").put_function_event_invoke_config(**properties)
                self._made[logical_id] = logical_id
            case "Custom::StepwellFunction" | "Custom::StepwellType" | "Custom::StepwellWebhook":
                self._request("Update" if logical_id in self._custom else "Create", logical_id, fields)

    def _lambda(self, logical_id: str, properties: Json, code: bytes) -> None:
        lambdas, name = boto3.client("lambda"), properties["FunctionName"]
        if logical_id in self._made:
            lambdas.update_function_code(FunctionName=name, ZipFile=code)
            return
        known = ("FunctionName", "Runtime", "Handler", "Role", "MemorySize", "Timeout", "Environment", "Layers")
        lambdas.create_function(Code={"ZipFile": code}, **{field: properties[field] for field in known})
        self._made[logical_id] = name

    def _request(self, kind: str, logical_id: str, fields: Json) -> None:
        """Calls the Lambda of the service token, and waits for the answer at the response URL."""
        properties = self._resolved(fields["Properties"])
        assert properties["ServiceToken"] == "arn of the registrar"
        with _waiting_for_answers(self.answers) as url:
            event = {
                "RequestType": kind,
                "ResponseURL": url,
                "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/Mine/1",
                "RequestId": f"request-{len(self.answers)}",
                "ResourceType": fields["Type"],
                "LogicalResourceId": logical_id,
                "ResourceProperties": properties,
            }
            if kind != "Create":
                event["PhysicalResourceId"] = self._custom[logical_id]
            sys.modules.pop("lambdas.register", None)
            importlib.import_module("lambdas.register").handler(event, LambdaContext("register"))
        answer = self.answers[-1]
        assert {name: answer[name] for name in ("RequestId", "StackId", "LogicalResourceId")}.items() <= event.items()
        self._custom[logical_id] = answer["PhysicalResourceId"]

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "Ref" in value:
            parameter = self._template["Parameters"].get(value["Ref"])
            return self._made[value["Ref"]] if parameter is None else _parameter(parameter["Default"])
        if "Fn::GetAtt" in value:
            return self._attributes[".".join(value["Fn::GetAtt"])]
        if "Fn::Join" in value:
            separator, parts = value["Fn::Join"]
            return separator.join(map(self._resolved, parts))
        return {key: self._resolved(item) for key, item in value.items() if key != "Fn::Sub"}


def _parameter(name: str) -> str:
    """The value of an SSM parameter, which CloudFormation reads during a deployment."""
    value: str = boto3.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    return value


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _references(item)]
    if not isinstance(value, dict):
        return []
    if "Ref" in value:
        return [value["Ref"]]
    if "Fn::GetAtt" in value:
        return [value["Fn::GetAtt"][0]]
    return [name for item in value.values() for name in _references(item)]


class _waiting_for_answers:  # noqa: N801 (it is used as a function)
    """A server that accepts one answer."""

    def __init__(self, answers: list[Json]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                answers.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.handle_request)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/answer"

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._server.server_close()


@pytest.fixture
def stepwell() -> Iterator[AwsStepwell]:
    with aws_account() as (emulator, host):
        stepwell = AwsStepwell(emulator, host)
        boto3.client("ssm").put_parameter(Name=registrar_parameter(ENV), Value="arn of the registrar", Type="String")
        yield stepwell
        stepwell.close()


def write(folder: Path, text: str) -> Path:
    """A function whose second step runs an hour after the first."""
    step = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.say"}}
    later = {**step, "after": [{"step": "now", "wait": "1h"}]}
    definition = {"id": folder.name, "triggers": [{"event": "go"}], "steps": {"now": step, "later": later}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stepwell.json").write_text(json.dumps(definition))
    (folder / "app.py").write_text(CODE.format(text=text))
    return folder


def outputs(run: Json) -> Json:
    return {step: item["output"] for step, item in run["steps"].items()}


def test_a_function_of_a_stack_runs_changes_and_goes_with_the_stack(stepwell: AwsStepwell, tmp_path: Path) -> None:
    cloudformation = CloudFormation(stepwell, tmp_path)
    cloudformation.deploy(write(tmp_path / "f", "one"))
    first = stepwell.send("go")
    (run,) = stepwell.runs(first)
    assert (run["function_version"], outputs(run)) == (1, {"now": "one", "later": None})

    cloudformation.deploy(write(tmp_path / "f", "two"))
    second = stepwell.send("go")
    stepwell.travel("2h")
    (run,) = stepwell.runs(first)
    assert (run["status"], outputs(run)) == ("completed", {"now": "one", "later": "one"})  # with the code it began with
    (run,) = stepwell.runs(second)
    assert (run["function_version"], outputs(run)) == (2, {"now": "two", "later": "two"})

    third = stepwell.send("go")
    cloudformation.delete()
    assert stepwell.runs(stepwell.send("go")) == []
    stepwell.travel("2h")
    (run,) = stepwell.runs(third)
    assert run["status"] == "completed"
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"] * 3
    assert {answer["PhysicalResourceId"] for answer in cloudformation.answers} == {"f"}


def test_open_runs_go_on_when_a_step_or_the_function_leaves_the_stack(stepwell: AwsStepwell, tmp_path: Path) -> None:
    cloudformation, folder = CloudFormation(stepwell, tmp_path), write(tmp_path / "all" / "f", "one")
    cloudformation.deploy(folder.parent)
    events = [stepwell.send("go")]
    file = folder / "stepwell.json"
    definition = json.loads(file.read_text())
    del definition["steps"]["now"]
    definition["steps"]["later"]["after"] = [{"step": "$trigger", "wait": "1h"}]
    file.write_text(json.dumps(definition))
    cloudformation.deploy(folder.parent)
    events.append(stepwell.send("go"))
    write(tmp_path / "all" / "other", "other")
    folder.rename(tmp_path / "gone")
    cloudformation.deploy(tmp_path / "all")
    stepwell.travel("2h")
    runs = [run for event in events for run in stepwell.runs(event) if run["function_version"] in (1, 2)]
    assert [outputs(run) for run in runs if run["function_id"] == "f"] == [
        {"now": "one", "later": "one"},
        {"later": "one"},
    ]


def test_a_stack_that_is_deployed_again_makes_no_new_version(stepwell: AwsStepwell, tmp_path: Path) -> None:
    cloudformation = CloudFormation(stepwell, tmp_path)
    for _ in range(2):
        cloudformation.deploy(write(tmp_path / "f", "one"))
    assert [answer["Data"] for answer in cloudformation.answers] == [{"Version": 1}, {"Version": 1}]


def test_of_functions_that_are_made_at_the_same_time_each_waits_until_routers_know_its_waits(
    resources: Resources,
) -> None:
    """CloudFormation creates resources in parallel: one may find paths staged that another is about to use."""
    slept: list[str] = []
    live_then: list[list[str]] = []

    def make(function_id: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        paid = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}
        steps = {"a": handler_step(), "b": handler_step({"step": "a", "async": paid})}
        raw = {"id": function_id, "triggers": [{"event": "go"}], "steps": steps}
        properties = {"Definition": json.dumps(parse_definition(raw).normalised()), "File": "x"}
        properties |= {"Targets": json.dumps({step: {"lambda": step} for step in steps}), "Code": "{}"}

        def sleep(seconds: float) -> None:
            assert seconds >= resources.cache_s
            slept.append(function_id)
            meanwhile()
            live_then.append([row.id for row in Registry(resources).functions()])

        answers: list[Json] = []
        with _waiting_for_answers(answers) as url:
            names = {name: name for name in ("StackId", "RequestId", "LogicalResourceId")}
            event = {"RequestType": "Create", "ResponseURL": url, **names, "ResourceProperties": properties}
            handle(event, resources, sleep)
        assert answers[0]["Status"] == "SUCCESS", answers

    make("f", meanwhile=lambda: make("g"))
    assert slept == ["f", "g"]
    assert live_then == [[], ["g"]]  # while g slept, and after f had
    slept.clear()
    make("f")  # it waits for nothing new
    assert slept == []


def test_types_and_webhooks_come_with_a_stack(stepwell: AwsStepwell, tmp_path: Path) -> None:
    folder = write(tmp_path / "f", "one")
    rule = {"event": "go", "id": "body.id", "verify": {"type": "hmac", "header": "x-signature", "secret": "S"}}
    for name, content in {
        "webhooks/shop.json": rule,
        "schemas/go.1.schema.json": {"type": "object", "required": ["id"], "x-stepwell-policy": "reject"},
        "schemas/go.2.schema.json": {"type": "object", "required": ["id", "n"]},
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    cloudformation = CloudFormation(stepwell, tmp_path)
    cloudformation.deploy(folder)
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS"] * 4
    value = stepwell.api("GET", "/v1/types/go")
    assert (value["policy"], [one["version"] for one in value["versions"]]) == ("reject", ["1", "2"])
    kept = stepwell.api("GET", "/v1/webhooks/shop")
    assert {field: kept[field] for field in rule} == rule

    (folder / "schemas/go.2.schema.json").write_text(json.dumps({"type": "object", "required": ["id", "other"]}))
    cloudformation.deploy(folder)
    refused = [answer["Reason"] for answer in cloudformation.answers if answer["Status"] == "FAILED"]
    assert len(refused) == 1
    assert "other" in refused[0], "it would break a version that is there"

    cloudformation.delete()
    assert stepwell.api("GET", "/v1/webhooks")["data"] == []
    assert [item["name"] for item in stepwell.api("GET", "/v1/types")["data"]] == ["go"], "others may send such events"
