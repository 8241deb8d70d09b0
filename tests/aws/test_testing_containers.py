"""The fixture `stepwell_aws` of the pytest plugin runs container steps, used as in users' tests."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stepwell.testing.ecs.containers import Containers, ContainerStepwell
from stepwell.testing.platform import Refused
from tests.aws.containers import Images


def write_function(folder: Path, image: str) -> Path:
    script = """echo '{"from": "a container"}'"""
    runtime = {"type": "docker", "image": image, "entrypoint": ["/bin/busybox", "sh", "-c", script]}
    definition = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": {"path": "file://.", "runtime": runtime}}}
    (folder / "stepwell.json").write_text(json.dumps(definition))
    return folder


@pytest.fixture(scope="module")
def stepwell_aws_account(account_with_ecs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The fixture of the plugin, but with a registry that already contains an image."""
    return account_with_ecs


def test_a_container_step_is_run(stepwell_aws: ContainerStepwell, images: Images, tmp_path: Path) -> None:
    stepwell_aws.deploy(write_function(tmp_path, images.busybox))
    (run,) = stepwell_aws.runs(stepwell_aws.send("go"))
    assert (run["status"], run["output"]) == ("completed", {"a": {"from": "a container"}})


def test_without_an_engine_a_push_of_a_container_says_what_to_install(
    stepwell_aws_account: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    emulator, host, ecs, _ = stepwell_aws_account
    with (
        closing(Containers()) as containers,
        closing(ContainerStepwell(emulator, host, ecs, containers)) as stepwell,
        pytest.raises(Refused, match="tests with container steps need one: install and start docker or podman"),
    ):
        stepwell.deploy(write_function(tmp_path, "busybox"))


ENGINE = """#!/bin/sh
case $1 in
  images)
    echo asked >> {folder}/asked
    [ $(wc -l < {folder}/asked) -gt {failures} ] || {{ echo "Error: 1f2e: image not known" >&2; exit 125; }}
    echo 1f2e ;;
  rmi) echo "$@" > {folder}/removed ;;
esac
"""


def use_engine(folder: Path, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """Makes the container engine fail to list images a number of times."""
    engine = folder / "docker"
    engine.write_text(ENGINE.format(folder=folder, failures=failures))
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_images_are_removed_although_others_remove_images_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine(tmp_path, monkeypatch, failures=2)
    with closing(Containers()) as containers:
        assert containers.engine == str(tmp_path / "docker")
    assert (tmp_path / "removed").read_text() == "rmi -f 1f2e\n"


def test_images_that_cannot_be_removed_are_a_warning_and_fail_no_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine(tmp_path, monkeypatch, failures=100)
    containers = Containers()
    with (
        pytest.warns(UserWarning, match="cannot remove images of .*: Error: 1f2e"),
        closing(containers),
    ):
        assert containers.engine == str(tmp_path / "docker")
