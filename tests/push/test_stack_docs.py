"""The stacks in the guides can be synthesised."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Match, Template

DOCS = Path(__file__).parents[2] / "docs" / "guides"


def snippet(page: str) -> str:
    """The Python code block of a page."""
    (found,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_guide_s_step_may_connect_to_its_database(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"charge/app.py": "def handler(event, context): ...\n"}
    runtime = {"type": "lambda", "handler": "app.handler", "vpc": True}
    folder = write("order", files=files, steps={"charge": {"path": "file://./charge", "runtime": runtime}})
    (tmp_path / "functions").mkdir()
    folder.rename(tmp_path / "functions" / "order")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet("steps-in-a-vpc.md"), names)
    template = Template.from_stack(names["Orders"](cdk.App(outdir=str(tmp_path / "out"))))
    connect = {"Action": "rds-db:connect", "Effect": "Allow"}
    template.has_resource_properties(
        "AWS::IAM::Policy", {"PolicyDocument": {"Statement": Match.array_with([Match.object_like(connect)])}}
    )
    variables = {"Environment": {"Variables": Match.object_like({"DB_HOST": {"Fn::GetAtt": Match.any_value()}})}}
    template.has_resource_properties("AWS::Lambda::Function", variables)
    template.resource_count_is("AWS::EC2::SecurityGroupIngress", 1)
    assert not any("subnets" in parameter.get("Default", "") for parameter in template.to_json()["Parameters"].values())
