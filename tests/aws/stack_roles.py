"""The stack's template as the emulated account has it: what the roles of the engine's Lambdas allow, by name."""

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
    """A template, read with the names that things have in the emulated account."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        stack = StepwellStack(cdk.App(outdir=str(folder)), settings)
        self._all: Json = Template.from_stack(stack).to_json()["Resources"]
        self._names = {"AWS::Partition": "aws"}

    def read_with(self, real: Resources) -> Stack:
        """The template tells its Lambdas what everything is called; `real` is what the emulated ones are told."""
        parameters = {its["Name"]: its["Value"] for its in self._of("AWS::SSM::Parameter").values()}
        told = parameters[parameter(real.env)]
        known = Resources.from_json(self._text(told, lambda reference: f"<{reference}>"))
        names = {"AWS::Partition": "aws", "AWS::Region": real.region, "AWS::AccountId": real.account}
        for its in fields(Resources):
            symbol = getattr(known, its.name)
            if isinstance(symbol, str) and re.fullmatch(r"<[^<>]+>", symbol):
                names.setdefault(symbol[1:-1], getattr(real, its.name))
        account = Account(real.region, real.account)
        arns = {
            known.table: account.arn("dynamodb", f"table/{real.table}"),
            known.bus: account.arn("events", f"event-bus/{real.bus}"),
            known.bucket: f"arn:aws:s3:::{real.bucket}",
        }
        names |= {f"{symbol[1:-1]}.Arn": arn for symbol, arn in arns.items()}
        names[known.cluster[1:-1].removesuffix(".Arn")] = real.cluster.rpartition("/")[2]
        for id, its in self._of("AWS::Lambda::Function").items():
            if its["Handler"].startswith("lambdas."):
                names[id] = lambda_name(its["Handler"].split(".")[1])
                names[f"{id}.Arn"] = account.arn("lambda", f"function:{names[id]}")
            else:
                names[id] = id  # one that only CloudFormation calls: nothing here does
        self._names = names
        for id, its in self._of("AWS::Logs::LogGroup").items():
            if "LogGroupName" in its:
                names[f"{id}.Arn"] = account.arn("logs", f"log-group:{self._resolved(its['LogGroupName'])}:*")
        return self

    def grants(self, name: str) -> set[Grant]:
        """All that the role of a Lambda allows, from whatever policy."""
        role = self._lambda(name)["Role"]["Fn::GetAtt"][0]
        its = self._of("AWS::IAM::Role")[role]
        assert "ManagedPolicyArns" not in its
        documents = [policy["PolicyDocument"] for policy in its["Policies"]]
        policies = self._of("AWS::IAM::Policy").values()
        documents += [its["PolicyDocument"] for its in policies if {"Ref": role} in its["Roles"]]
        return grants([self._resolved(statement) for document in documents for statement in document["Statement"]])

    def is_traced(self, name: str) -> bool:
        return self._lambda(name).get("TracingConfig") == {"Mode": "Active"}

    def may_recur(self, name: str) -> bool:
        return self._lambda(name).get("RecursiveLoop") == "Allow"

    def _lambda(self, name: str) -> Json:
        handler = f"lambdas.{name}.handler"
        (its,) = [its for its in self._of("AWS::Lambda::Function").values() if its["Handler"] == handler]
        return its

    def _of(self, kind: str) -> Json:
        return {id: its["Properties"] for id, its in self._all.items() if its["Type"] == kind}

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(its) for its in value]
        if isinstance(value, dict) and not value.keys() & {"Ref", "Fn::GetAtt", "Fn::Join"}:
            return {key: self._resolved(its) for key, its in value.items()}
        return self._text(value, self._names.__getitem__)

    def _text(self, value: Any, name: Any) -> str:
        if isinstance(value, str):
            return value
        ((function, its),) = value.items()
        if function == "Fn::Join":
            return str(its[0]).join(self._text(part, name) for part in its[1])
        if function in ("Ref", "Fn::GetAtt"):
            return str(name(its if function == "Ref" else ".".join(its)))
        return function  # as in the addresses of images, which no policy names
