"""Fixtures: stacks with several settings, synthesised once. Tests read their templates."""

from __future__ import annotations

import fcntl
import json
import os
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


SETTINGS = {settings.env: settings for settings in (Settings(), EVERYTHING, NOTHING)}


def synthesise(folder: Path) -> None:
    """Synthesises the stacks with several settings, and writes the templates and cdk-nag's findings."""
    import aws_cdk as cdk  # it needs Node; the tests of settings do not
    import cdk_nag

    from infra.stack import StepwellStack

    app = cdk.App(outdir=str(folder), context=FLAGS)
    for setting in SETTINGS.values():
        StepwellStack(app, setting)
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app))
    app.synth()


class Synth:
    """The stacks that `synthesise` wrote."""

    def __init__(self, folder: Path) -> None:
        from aws_cdk.assertions import Template

        self.folder, self.settings = folder, SETTINGS
        self.templates = {
            env: Template.from_json(json.loads((folder / f"Stepwell-{env}.template.json").read_text()))
            for env in SETTINGS
        }
        self.report: Any = json.loads((folder / "validation-report.json").read_text())

    def resources(self, env: str, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = self.templates[env].find_resources(kind)
        return {name: resource.get("Properties", {}) for name, resource in found.items()}


@pytest.fixture(scope="session")
def synth(tmp_path_factory: pytest.TempPathFactory) -> Synth:
    """Synthesised once, by the first pytest process that needs it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cdk"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "validation-report.json").exists():
            synthesise(folder)
    return Synth(folder)
