"""CDK's feature flags: cdk.json sets those that change the templates; users' apps may set any."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from infra.settings import Settings
from infra.stack import StepwellStack
from tests.infra.conftest import EVERYTHING, FLAGS, Synth


def recommended() -> dict[str, Any]:
    """The flags that CDK recommends for new apps, from the CDK package."""
    (package,) = (Path(cdk.__file__).parent / "_jsii").glob("aws-cdk-lib@*.tgz")
    with tarfile.open(package) as files:
        file = files.extractfile("package/recommended-feature-flags.json")
        assert file is not None
        flags: dict[str, Any] = json.load(file)
        return flags


def synthesised(folder: Path, settings: Settings, flags: Mapping[str, Any]) -> Any:
    app = cdk.App(outdir=str(folder), context=dict(flags))
    StepwellStack(app, settings)
    app.synth()
    return json.loads((folder / f"Stepwell-{settings.env}.template.json").read_text())


@pytest.fixture(scope="module")
def with_all(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A template with every recommended flag, as in an app from `cdk init`."""
    return synthesised(tmp_path_factory.mktemp("flags"), EVERYTHING, recommended())


def test_the_flags_of_cdk_json_are_recommended_ones() -> None:
    assert FLAGS.items() <= recommended().items()


def test_flags_that_cdk_json_does_not_set_change_nothing(synth: Synth, with_all: Any) -> None:
    """If this fails after an upgrade of CDK, check what the flag changes, and set it in cdk.json."""
    assert synth.templates["all"].to_json() == with_all


def test_an_app_with_all_flags_has_each_log_group_once(with_all: Any) -> None:
    groups = [
        json.dumps(resource["Properties"].get("LogGroupName"))
        for resource in with_all["Resources"].values()
        if resource["Type"] == "AWS::Logs::LogGroup" and "LogGroupName" in resource["Properties"]
    ]
    assert groups
    assert len(groups) == len(set(groups))
