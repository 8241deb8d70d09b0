"""Lambdas that Stepwell did not create have no guard: answers that Lambda drops are noticed anyway."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest

from stepwell.aws.deploy.roles import trust
from stepwell.testing.aws import AwsStepwell

HANDLER = "def handler(event, context):\n    return 'x' * 2_000_000\n"


def make_lambda() -> str:
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", HANDLER)
    role = boto3.client("iam").create_role(RoleName="mine", AssumeRolePolicyDocument=json.dumps(trust("123456789012")))[
        "Role"
    ]
    made = boto3.client("lambda").create_function(
        FunctionName="mine",
        Runtime="python3.13",
        Handler="app.handler",
        Role=role["Arn"],
        Code={"ZipFile": code.getvalue()},
    )
    return str(made["FunctionArn"])


def test_a_test_that_does_not_ask_for_answers_that_were_dropped_fails(
    stepwell_aws_account: tuple[Any, ...], tmp_path: Path
) -> None:
    stepwell = AwsStepwell(*stepwell_aws_account[:2])
    step = {"runtime": {"type": "lambda", "arn": make_lambda()}}
    definition = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step}}
    (tmp_path / "stepwell.json").write_text(json.dumps(definition))
    stepwell.deploy(tmp_path)
    run = stepwell.run_of(stepwell.send())
    stepwell.settle()
    assert stepwell.run(run)["status"] == "running"
    stepwell.travel("2h")
    stepwell.sweep()
    stepwell.settle()
    ended = stepwell.run(run)
    assert (ended["status"], ended["error"]["kind"], len(ended["steps"]["a"]["attempts"])) == ("failed", "no_answer", 1)
    with pytest.raises(AssertionError, match="could not deliver the records of steps' outcomes"):
        stepwell.close()
