"""The stack, synthesised once: what is asked of it is asked of its template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings

EVERYTHING = Settings(
    env="all",
    ingest="direct",
    domain="events.example.com",
    certificate="arn:aws:acm:us-east-1:123456789012:certificate/1",
    archive_days=7,
    reserved_concurrency=True,
    tracing=True,
    vpc="vpc-0123abcd",
    subnets="subnet-0123abcd,subnet-0123abce",
    spot=True,
    step_subnets="subnet-0123abcd,subnet-0123abce",
    step_security_groups="sg-0123abcd",
    keep_data=False,
    alarm_email="ops@example.com",
    ingest_concurrency=20,
    api_concurrency=10,
    tick_concurrency=1,
    step_concurrency=2,
    batching_window=5,
    warm_throughput="24000/8000",
    permissions_boundary="arn:aws:iam::123456789012:policy/boundary",
    kms_key="arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012",
    step_lambdas="arn:aws:lambda:us-east-1:123456789012:function:mine",
)
NOTHING = Settings.of_profile("dev", env="bare")
FLAGS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "cdk.json").read_text())["context"]


class Synth:
    """Stacks under several settings, and what cdk-nag says of them."""

    def __init__(self, folder: Path) -> None:
        import aws_cdk as cdk  # it needs Node, and who has none can still test the settings
        import cdk_nag
        from aws_cdk.assertions import Template

        from infra.stack import StepwellStack

        self.folder = folder
        app = cdk.App(outdir=str(folder), context=FLAGS)
        stacks = {its.env: StepwellStack(app, its) for its in (Settings(), EVERYTHING, NOTHING)}
        cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app))
        app.synth()
        self.templates = {env: Template.from_stack(stack) for env, stack in stacks.items()}
        self.settings = {"dev": Settings(), "all": EVERYTHING, "bare": NOTHING}
        self.report: Any = json.loads((folder / "validation-report.json").read_text())

    def resources(self, env: str, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = self.templates[env].find_resources(kind)
        return {name: resource.get("Properties", {}) for name, resource in found.items()}


@pytest.fixture(scope="session")
def synth(tmp_path_factory: pytest.TempPathFactory) -> Synth:
    return Synth(tmp_path_factory.mktemp("cdk"))
