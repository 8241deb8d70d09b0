"""Container steps: real containers by podman or docker, on an emulated ECS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stepwell.aws.clients import client
from stepwell.aws.deploy.task_definitions import Container, register_task_definition
from stepwell.aws.steps.containers import Containers, NotStarted
from stepwell.aws.steps.errors import Busy, NeverStarts
from stepwell.aws.steps.stopped_tasks import TaskOutcome
from stepwell.core.run.messages import Error, Outcome
from stepwell.testing.ecs.containers import ARCHITECTURE, PATIENCE_S, ContainerStepwell
from stepwell.testing.ecs.host import EcsHost
from tests.aws.containers import Images

RUN = "abcdefghijklmnopqrstuvwxyz"
NOW = 1_800_000_000_000
LOGS = "/stepwell/test/containers"


class World:
    """Containers without the engine that starts them and reads their outcomes."""

    def __init__(self, aws: ContainerStepwell, images: Images) -> None:
        self.aws, self.host, self.resources, self._images = aws, aws.ecs, aws.resources, images
        self.containers = Containers(self.resources)

    def register(self, script: str, **fields: Any) -> dict[str, Any]:
        """The target of a step that runs this shell script."""
        return self.register_command(("/bin/busybox", "sh", "-c", script, "step"), **fields)

    def register_command(self, command: tuple[str, ...], image: str = "", **fields: Any) -> dict[str, Any]:
        role = f"arn:aws:iam::{self.resources.account}:role/step"
        container = Container(image or self._images.busybox, command, role, LOGS, ARCHITECTURE, **fields)
        return register_task_definition(client("ecs"), client("logs"), self.resources, "stepwell-test-f-s", container)

    def start(self, target: dict[str, Any], input: bytes = b"{}", attempt: int = 1, timeout_ms: int = 60_000) -> str:
        return self.containers.start(
            run_id=RUN, step_id="s", attempt=attempt, input=input, token=f"token {attempt}", target=target,
            timeout_ms=timeout_ms,
        )  # fmt: skip

    def end(self) -> TaskOutcome | None:
        """The outcome in the next event about a stopped task."""
        queue = self.resources.outcomes_queue
        while not (records := self.aws.emulator.queues.receive(queue, 1)["Records"]):
            assert self.host.wait_any(PATIENCE_S)
        self.aws.emulator.queues.delete(queue, records)
        return self.containers.outcome_of_stopped_task(orjson.loads(records[0]["body"]), NOW)

    def run(self, target: dict[str, Any], input: bytes = b"{}") -> Outcome:
        self.start(target, input)
        return self.outcome()

    def outcome(self) -> Outcome:
        """The outcome of the first attempt, which arrives next."""
        end = self.end()
        assert end is not None
        assert (end.run_id, end.step, end.attempt, end.token) == (RUN, "s", 1, "token 1")
        assert end.outcome is not None
        return end.outcome


@pytest.fixture
def world(aws: ContainerStepwell, images: Images) -> World:
    return World(aws, images)


def _error(outcome: Outcome) -> Error:
    assert outcome.error is not None
    return outcome.error


# --- the outcome of a program ----------------------------------------------------------------------------------------


def test_a_container_gets_the_input_and_what_it_prints_is_the_output(world: World) -> None:
    outcome = world.run(world.register('echo "{\\"argument\\": $1, \\"stdin\\": $(cat)}"'), b'{"event": 1}')
    assert outcome.output == b'{"argument":{"event":1},"stdin":{"event":1}}'


def test_an_exit_code_is_a_failure_that_is_worth_a_retry(world: World) -> None:
    outcome = world.run(world.register("echo 'no such order' >&2; exit 3"))
    assert _error(outcome) == Error("exit", "exit code 3: no such order")
    assert outcome.retryable


def test_a_status_in_the_output_is_final(world: World) -> None:
    outcome = world.run(world.register("echo '{\"status\": 404}'"))
    assert (_error(outcome).kind, _error(outcome).status, outcome.retryable) == ("status", 404, False)


def test_an_input_that_is_too_long_for_an_argument_is_in_a_file(world: World) -> None:
    script = 'size=$(/bin/busybox wc -c <"$STEPWELL_INPUT"); echo "{\\"argument\\": \\"${1%%/*}\\", \\"size\\": $size}"'
    text = b'{"text": "%b"}' % (b"x" * 600_000)
    outcome = world.run(world.register(script), text)
    assert outcome.output == orjson.dumps({"argument": "@", "size": len(text)})


def test_a_program_that_is_not_in_the_image_is_a_final_start_error(world: World) -> None:
    outcome = world.run(world.register_command(("/bin/nothing",)))
    assert (_error(outcome).kind, outcome.retryable) == ("start", False)


# --- the outcome according to ECS ------------------------------------------------------------------------------------


def test_a_container_that_takes_too_much_memory_is_told_so(world: World) -> None:
    world.start(world.register("/bin/busybox sleep 600", memory=700))
    world.aws.wait_until_running()
    world.host.run_out_of_memory()
    error = _error(world.outcome())
    assert error.kind == "crash"
    assert error.message.startswith("out of memory: the task exceeded the limit of 1024 MB")


def test_a_task_whose_machine_is_taken_away_is_lost(world: World) -> None:
    world.start(world.register("/bin/busybox sleep 600"))
    world.aws.wait_until_running()
    world.host.interrupt()
    end = world.end()
    assert end is not None
    assert end.outcome is None


def test_an_image_that_is_not_there_is_a_final_start_error(world: World, images: Images) -> None:
    outcome = world.run(world.register_command(("/x",), image=f"{images.registry.host}/no/such:1"))
    assert (_error(outcome).kind, outcome.retryable) == ("start", False)
    assert "CannotPullContainerError" in _error(outcome).message


def test_a_secret_that_is_not_there_is_a_final_start_error(world: World) -> None:
    outcome = world.run(world.register("echo {}", secrets={"KEY": "/stepwell/test/secrets/KEY"}))
    assert (_error(outcome).kind, outcome.retryable) == ("start", False)
    assert "/stepwell/test/secrets/KEY" in _error(outcome).message


# --- starting --------------------------------------------------------------------------------------------------------


def test_an_attempt_that_is_started_again_runs_once(world: World) -> None:
    target = world.register("echo {}")
    assert world.start(target) == world.start(target)
    world.host.wait()
    assert world.host.started == 1


def test_an_attempt_that_was_started_before_the_environment_changed_runs_once(world: World) -> None:
    target = world.register("echo {}")
    first = world.start(target)
    world.containers = Containers(replace(world.resources, capacity="FARGATE_SPOT"))
    assert world.start(target) == first
    world.host.wait()
    assert world.host.started == 1


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (lambda host: host.have_no_room(), Busy),
        (lambda host: host.refuse("ClientException", "You've reached the limit on the number of vCPUs"), Busy),
        (lambda host: host.refuse("ClientException", "ECS was unable to assume the role 'r'. Please"), NotStarted),
        (lambda host: host.refuse("ServerException", "Service Unavailable"), NotStarted),
    ],
)
def test_what_ecs_does_not_start_now_may_start_later(
    world: World, trouble: Callable[[EcsHost], None], says: type[Exception]
) -> None:
    target = world.register("echo {}")
    trouble(world.host)
    with pytest.raises(says):
        world.start(target)
    world.start(target)


def test_what_ecs_will_never_start_is_final(world: World) -> None:
    world.host.refuse("ClientException", "TaskDefinition is inactive")
    with pytest.raises(NeverStarts, match="TaskDefinition is inactive"):
        world.start(world.register("echo {}"))


@pytest.mark.parametrize("capacity", ["FARGATE", "FARGATE_SPOT"])
def test_containers_run_on_the_capacity_that_the_environment_has(world: World, capacity: str) -> None:
    world.containers = Containers(replace(world.resources, capacity=capacity))
    (task,) = client("ecs").describe_tasks(cluster="stepwell", tasks=[world.start(world.register("echo {}"))])["tasks"]
    assert task["capacityProviderName"] == capacity


def test_without_a_cluster_nothing_starts(world: World) -> None:
    world.containers = Containers(replace(world.resources, cluster=""))
    with pytest.raises(NeverStarts, match="no cluster for containers"):
        world.start({"ecs": "x"})


def test_the_longest_names_leave_room_in_the_overrides(world: World) -> None:
    target = world.register("echo {}")
    world.containers.start(
        run_id=RUN,
        step_id="s" * 64,
        attempt=1000,
        input=b"{}",
        token="f" * 64,
        target=target,
        timeout_ms=10**12,
    )
    end = world.end()
    assert end is not None
    assert (end.step, end.attempt) == ("s" * 64, 1000)


# --- stopping --------------------------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_stops_all_its_containers_and_says_nothing(world: World) -> None:
    target = world.register("/bin/busybox sleep 600")
    world.start(target)
    world.start(target, attempt=2)
    world.containers.stop(RUN)
    world.host.wait()
    assert world.host.running == []
    assert [world.end(), world.end()] == [None, None]
    world.containers.stop(RUN)


def test_one_attempt_can_be_stopped_alone(world: World) -> None:
    target = world.register("/bin/busybox sleep 600")
    world.start(target)
    other = world.start(target, attempt=2)
    world.aws.wait_until_running(2)
    world.containers.stop(RUN, "s", 1)
    assert world.end() is None
    assert world.host.running == [other]


def test_a_container_that_somebody_stopped_by_hand_has_failed(world: World) -> None:
    arn = world.start(world.register("trap '' TERM; /bin/busybox sleep 600"))
    world.aws.wait_until_running()
    client("ecs").stop_task(cluster="stepwell", task=arn, reason="too expensive")
    assert _error(world.outcome()).kind in ("stopped", "crash")
