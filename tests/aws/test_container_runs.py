"""Runs with container steps: how failures of ECS tasks appear in the details of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.aws.clients import client
from stepwell.aws.queues.messages import stop_message
from stepwell.testing.ecs.containers import ContainerStepwell
from tests.aws.containers import Images

Deploy = Callable[..., None]


@pytest.fixture
def deploy(aws: ContainerStepwell, images: Images, tmp_path: Path) -> Deploy:
    """Pushes a function with one step that runs this shell script. `fields`: fields of the step."""

    def deploy(script: str, image: str = images.busybox, **fields: Any) -> None:
        entrypoint = ["/bin/busybox", "sh", "-c", script, "step"]
        step = {"path": "file://.", "runtime": {"type": "docker", "image": image, "entrypoint": entrypoint}, **fields}
        definition = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step}}
        definition["cancel"] = [{"event": "stop"}]
        (tmp_path / "stepwell.json").write_text(json.dumps(definition))
        aws.deploy(tmp_path)

    return deploy


def _statuses(run: dict[str, Any]) -> list[str]:
    """The status of the run, then of each attempt."""
    return [run["status"], *(attempt["status"] for attempt in run["steps"]["a"]["attempts"])]


ON_THE_FIRST_ATTEMPT = """case "$1" in *'"attempt":1,'*) {} ;; esac; echo '{{"sent": true}}'"""
SLEEP = "/bin/busybox sleep 600"


def test_a_container_that_fails_runs_again_after_its_pause(aws: ContainerStepwell, deploy: Deploy) -> None:
    deploy(ON_THE_FIRST_ATTEMPT.format("echo no gateway >&2; exit 3"))
    event = aws.send()
    (run,) = aws.runs(event)
    assert _statuses(run) == ["running", "failed"]
    aws.travel("15s")
    (run,) = aws.runs(event)
    assert _statuses(run) == ["completed", "failed", "completed"]
    assert run["output"] == {"a": {"sent": True}}
    failed = run["steps"]["a"]["attempts"][0]
    assert failed["error"]["message"] == "exit code 3: no gateway"
    assert failed["logs"] == "no gateway\n"


def test_a_container_has_its_values(aws: ContainerStepwell, deploy: Deploy, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    aws.secret("C", "secret")
    deploy('echo "[\\"$A\\", \\"$B\\", \\"$C\\", \\"$D\\"]"', env={"B": "definition"}, secrets=["C"])
    (run,) = aws.runs(aws.send())
    assert run["output"] == {"a": ["file", "definition", "secret", "image"]}


def test_a_container_that_spot_takes_away_is_lost_and_runs_again_at_once(
    aws: ContainerStepwell, deploy: Deploy
) -> None:
    deploy(ON_THE_FIRST_ATTEMPT.format(SLEEP), retries={"attempts": 0})
    event = aws.send()
    aws.wait_until_running()
    aws.ecs.interrupt()
    (run,) = aws.runs(event)
    assert _statuses(run) == ["completed", "lost", "completed"]


def test_a_container_that_nothing_is_heard_of_is_stopped_and_another_one_runs(
    aws: ContainerStepwell, deploy: Deploy
) -> None:
    deploy(ON_THE_FIRST_ATTEMPT.format(SLEEP), retries={"attempts": 0})
    event = aws.send()
    aws.wait_until_running()
    aws.sweep(silence_ms=0)
    aws.ecs.wait()
    (run,) = aws.runs(event)
    assert _statuses(run) == ["completed", "lost", "completed"]


def test_cancelling_a_run_stops_its_container(aws: ContainerStepwell, deploy: Deploy) -> None:
    deploy(SLEEP)
    event = aws.send()
    aws.wait_until_running()
    aws.cancel(aws.run_of(event))
    aws.ecs.wait()
    (run,) = aws.runs(event)
    assert _statuses(run) == ["cancelled", "cancelled"]
    assert (aws.ecs.started, aws.ecs.running) == (1, [])


def test_an_event_that_cancels_a_run_stops_its_container(aws: ContainerStepwell, deploy: Deploy) -> None:
    deploy(SLEEP)
    event = aws.send()
    aws.wait_until_running()
    aws.send("stop")
    aws.settle()
    aws.ecs.wait()
    (run,) = aws.runs(event)
    assert _statuses(run) == ["cancelled", "cancelled"]
    assert (aws.ecs.started, aws.ecs.running) == (1, [])


def test_a_container_that_ecs_does_not_show_yet_is_stopped_a_little_later(
    aws: ContainerStepwell, deploy: Deploy
) -> None:
    deploy(SLEEP)
    event = aws.send()
    aws.wait_until_running()
    aws.ecs.hide_tasks()
    aws.cancel(aws.run_of(event))
    assert len(aws.ecs.running) == 1
    aws.emulator.advance(30_000)
    aws.settle()
    assert (aws.ecs.started, aws.ecs.running) == (1, [])


def test_nobody_can_have_the_container_of_a_run_stopped_that_is_not_cancelled(
    aws: ContainerStepwell, deploy: Deploy
) -> None:
    deploy("echo {}")
    event = aws.send()
    forged = stop_message(aws.run_of(event), 0).decode()
    client("sqs").send_message(QueueUrl=aws.resources.outcomes_queue, MessageBody=forged)
    (run,) = aws.runs(event)
    assert _statuses(run) == ["completed", "completed"]


def test_a_container_that_ends_after_its_timeout_has_failed(aws: ContainerStepwell, deploy: Deploy) -> None:
    deploy(SLEEP, timeout="1s", retries={"attempts": 0})
    (run,) = aws.runs(aws.send())
    assert _statuses(run) == ["failed", "failed"]
    assert run["error"]["kind"] == "timeout"
    assert aws.ecs.running == []


def test_a_container_that_ecs_has_no_room_for_is_started_when_it_has(aws: ContainerStepwell, deploy: Deploy) -> None:
    deploy("echo {}")
    aws.ecs.refuse("ThrottlingException", "Rate exceeded")
    aws.ecs.have_no_room()
    event_id = aws.send()
    assert aws.ecs.started == 0
    aws.travel("1m")  # it is tried again, with growing delays
    (run,) = aws.runs(event_id)
    assert _statuses(run) == ["completed", "completed"]
    assert aws.ecs.started == 1


def test_a_run_whose_image_was_deleted_fails_and_says_so(
    aws: ContainerStepwell, deploy: Deploy, images: Images
) -> None:
    manifests = images.registry.manifests
    manifests["deleted", "1"] = manifests["busybox", "1"]
    deploy("echo {}", f"{images.registry.host}/deleted:1")
    del manifests["deleted", "1"]
    (run,) = aws.runs(aws.send())
    assert _statuses(run) == ["failed", "failed"]
    assert run["error"]["kind"] == "start"
    assert "CannotPullContainerError" in run["error"]["message"]
