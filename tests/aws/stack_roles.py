"""The permissions of the engine's roles by name, read from the stack's template."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk.assertions import Template

from infra.settings import Settings
from infra.stack import StepwellStack
from stepwell.aws.resources import Resources, parameter
from tests.aws.permissions import Account, Grant, Json, grants
from tests.aws.recorded import lambda_name


class Stack:
    """A template with the names that resources have in the emulated account."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        stack = StepwellStack(cdk.App(outdir=str(folder)), settings)
        self._all: Json = Template.from_stack(stack).to_json()["Resources"]
        self._names = {"AWS::Partition": "aws"}

    def read_with(self, real: Resources) -> Stack:
        """The resources in the template. `real`: the resources that the emulated Lambdas use."""
        parameters = {item["Name"]: item["Value"] for item in self._of("AWS::SSM::Parameter").values()}
        value = parameters[parameter(real.env)]
        known = Resources.from_json(self._text(value, lambda reference: f"<{reference}>"))
        names = {"AWS::Partition": "aws", "AWS::Region": real.region, "AWS::AccountId": real.account}
        for field in fields(Resources):
            symbol = getattr(known, field.name)
            if isinstance(symbol, str) and re.fullmatch(r"<[^<>]+>", symbol):
                names.setdefault(symbol[1:-1], getattr(real, field.name))
        account = Account(real.region, real.account)
        arns = {
            known.table: account.arn("dynamodb", f"table/{real.table}"),
            known.bus: account.arn("events", f"event-bus/{real.bus}"),
            known.bucket: f"arn:aws:s3:::{real.bucket}",
        }
        names |= {f"{symbol[1:-1]}.Arn": arn for symbol, arn in arns.items()}
        names[known.cluster[1:-1].removesuffix(".Arn")] = real.cluster.rpartition("/")[2]
        for id, field in self._of("AWS::Lambda::Function").items():
            if field["Handler"].startswith("lambdas."):
                names[id] = lambda_name(field["Handler"].split(".")[1])
                names[f"{id}.Arn"] = account.arn("lambda", f"function:{names[id]}")
            else:
                names[id] = id  # a Lambda that only CloudFormation calls; nothing here does
        self._names = names
        for id, field in self._of("AWS::Logs::LogGroup").items():
            if "LogGroupName" in field:
                names[f"{id}.Arn"] = account.arn("logs", f"log-group:{self._resolved(field['LogGroupName'])}:*")
        return self

    def grants(self, name: str) -> set[Grant]:
        """Everything that the role of a Lambda allows, in any of the policies."""
        role = self._lambda(name)["Role"]["Fn::GetAtt"][0]
        value = self._of("AWS::IAM::Role")[role]
        assert "ManagedPolicyArns" not in value
        documents = [policy["PolicyDocument"] for policy in value["Policies"]]
        policies = self._of("AWS::IAM::Policy").values()
        documents += [policy["PolicyDocument"] for policy in policies if {"Ref": role} in policy["Roles"]]
        return grants([self._resolved(statement) for document in documents for statement in document["Statement"]])

    def is_traced(self, name: str) -> bool:
        return self._lambda(name).get("TracingConfig") == {"Mode": "Active"}

    def may_recur(self, name: str) -> bool:
        return self._lambda(name).get("RecursiveLoop") == "Allow"

    def _lambda(self, name: str) -> Json:
        handler = f"lambdas.{name}.handler"
        (value,) = [item for item in self._of("AWS::Lambda::Function").values() if item["Handler"] == handler]
        return value

    def _of(self, kind: str) -> Json:
        return {id: item["Properties"] for id, item in self._all.items() if item["Type"] == kind}

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        if isinstance(value, dict) and not value.keys() & {"Ref", "Fn::GetAtt", "Fn::Join"}:
            return {key: self._resolved(item) for key, item in value.items()}
        return self._text(value, self._names.__getitem__)

    def _text(self, value: Any, name: Any) -> str:
        if isinstance(value, str):
            return value
        ((function, found),) = value.items()
        if function == "Fn::Join":
            return str(found[0]).join(self._text(part, name) for part in found[1])
        if function in ("Ref", "Fn::GetAtt"):
            return str(name(found if function == "Ref" else ".".join(found)))
        return function  # in the addresses of images, which no policy contains
