"""Container steps: real containers by podman or docker, on moto's ECS and S3."""

from __future__ import annotations

import platform
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.aws import adapter, clients
from stepwell.aws.containers import Containers, NotStarted
from stepwell.aws.dispatch import NeverStarts
from stepwell.aws.resources import Resources
from stepwell.aws.stopped_tasks import TaskOutcome
from stepwell.aws.task_definitions import Container, register_task_definition
from stepwell.core.messages import Error, Outcome
from stepwell.testing.ecs_host import EcsHost
from tests.containers import BUSYBOX, engine_or_skip

RUN = "abcdefghijklmnopqrstuvwxyz"
NOW = 1_800_000_000_000
PATIENCE_S = 60
STEP_IMAGE, ADAPTER_IMAGE = "localhost/stepwell-test/step:1", "localhost/stepwell-test/adapter:1"
LOGS = "/stepwell/test/containers"
ARCHITECTURE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine that has the image of a step, which is but busybox, and that of the adapter."""
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        found = engine_or_skip(folder, patch)
        _build(found, folder / "step", STEP_IMAGE, BUSYBOX, "bin/busybox")
        _build(found, folder / "adapter", ADAPTER_IMAGE, adapter.binary(ARCHITECTURE), "bootstrap")
        yield found


def _build(engine: str, folder: Path, tag: str, binary: Path, place: str) -> None:
    folder.mkdir()
    shutil.copy(binary, folder / "binary")
    (folder / "Dockerfile").write_text(f'FROM scratch\nCOPY binary /{place}\nENTRYPOINT ["/{place}"]\n')
    subprocess.run([engine, "build", "-t", tag, str(folder)], check=True, capture_output=True, timeout=60)


class World:
    """An environment with a cluster, and the host that runs its tasks."""

    def __init__(self, engine: str, resources: Resources) -> None:
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.host = EcsHost(engine, self.events.put, resources.region)
        subnet = clients.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        where = {"LocationConstraint": resources.region}
        clients.client("s3").create_bucket(Bucket=resources.bucket, CreateBucketConfiguration=where)
        self.resources = replace(
            resources,
            cluster="stepwell",
            subnets=(subnet,),
            security_groups=("sg-1",),
            execution_role="arn:aws:iam::123456789012:role/execution",
            adapter_image=ADAPTER_IMAGE,
        )
        self.containers = Containers(self.resources)

    def register(self, script: str, **fields: Any) -> dict[str, Any]:
        """The target of a step that is this script of the shell."""
        return self.register_command(("/bin/busybox", "sh", "-c", script, "step"), **fields)

    def register_command(self, command: tuple[str, ...], image: str = STEP_IMAGE, **fields: Any) -> dict[str, Any]:
        role = "arn:aws:iam::123456789012:role/step"
        container = Container(image, command, role, LOGS, **fields)
        ecs, logs = clients.client("ecs"), clients.client("logs")
        return register_task_definition(ecs, logs, self.resources, "stepwell-test-f-s", container)

    def start(self, target: dict[str, Any], input: bytes = b"{}", attempt: int = 1, timeout_ms: int = 60_000) -> str:
        return self.containers.start(
            run_id=RUN, step_id="s", attempt=attempt, input=input, token=f"token {attempt}", target=target,
            timeout_ms=timeout_ms,
        )  # fmt: skip

    def end(self) -> TaskOutcome | None:
        """What the next event of a task that stopped comes to."""
        return self.containers.outcome_of_stopped_task(self.events.get(timeout=PATIENCE_S), NOW)

    def run(self, target: dict[str, Any], input: bytes = b"{}") -> Outcome:
        self.start(target, input)
        return self.outcome()

    def outcome(self) -> Outcome:
        """Of the first attempt, which comes next."""
        end = self.end()
        assert end is not None
        assert (end.run_id, end.step, end.attempt, end.token) == (RUN, "s", 1, "token 1")
        assert end.outcome is not None
        return end.outcome

    def wait_until_running(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.host.running:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)

    def log_of(self, task: str) -> list[str]:
        found = clients.client("logs").get_log_events(logGroupName=LOGS, logStreamName=f"stepwell/step/{task}")
        return [event["message"] for event in found["events"]]


@pytest.fixture
def world(engine: str, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(engine, resources)
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", world.host.url)
    clients.client("ecs").create_cluster(clusterName="stepwell")
    yield world
    world.host.close()


def _error(outcome: Outcome) -> Error:
    assert outcome.error is not None
    return outcome.error


# --- what a program says ---------------------------------------------------------------------------------------------


def test_a_container_gets_the_input_and_what_it_prints_is_the_output(world: World) -> None:
    outcome = world.run(world.register('echo "{\\"argument\\": $1, \\"stdin\\": $(cat)}"'), b'{"event": 1}')
    assert outcome.output == b'{"argument":{"event":1},"stdin":{"event":1}}'


def test_stderr_is_the_log_under_the_tasks_id(world: World) -> None:
    world.start(world.register("echo working >&2; echo {}"))
    end = world.end()
    assert end is not None
    assert "working" in world.log_of(end.task)


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


def test_a_program_that_does_not_end_in_time_is_killed(world: World) -> None:
    world.start(world.register("/bin/busybox sleep 600"), timeout_ms=700)
    assert _error(world.outcome()).kind == "timeout"


def test_a_program_that_is_not_in_the_image_is_a_final_start_error(world: World) -> None:
    outcome = world.run(world.register_command(("/bin/nothing",)))
    assert (_error(outcome).kind, outcome.retryable) == ("start", False)


def test_env_counts_more_than_dotenv_and_secrets_count_most(world: World) -> None:
    ssm = clients.client("ssm")
    ssm.put_parameter(Name="/secret", Value="secret", Type="SecureString")
    ssm.put_parameter(Name="/dotenv", Value='{"A": "dotenv", "B": "dotenv", "C": "dotenv"}', Type="SecureString")
    target = world.register(
        'echo "[\\"$A\\", \\"$B\\", \\"$C\\"]"',
        env={"B": "env", "C": "env"}, secrets={"C": "/secret"}, dotenv="/dotenv",
    )  # fmt: skip
    assert world.run(target).output == b'["dotenv","env","secret"]'


# --- what ECS says ---------------------------------------------------------------------------------------------------


def test_a_container_that_takes_too_much_memory_is_told_so(world: World) -> None:
    world.start(world.register("/bin/busybox sleep 600", memory=700))
    world.wait_until_running()
    world.host.run_out_of_memory()
    error = _error(world.outcome())
    assert error.kind == "crash"
    assert error.message.startswith("out of memory: it needed more than its limit of 1024 MB")


def test_a_task_whose_machine_is_taken_away_is_lost(world: World) -> None:
    world.start(world.register("/bin/busybox sleep 600"))
    world.wait_until_running()
    world.host.interrupt()
    end = world.end()
    assert end is not None
    assert end.outcome is None


def test_an_image_that_cannot_be_pulled_is_a_start_error(world: World) -> None:
    outcome = world.run(world.register_command(("/x",), image="localhost:1/no/such:1"))
    assert _error(outcome).kind == "start"
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
    assert world.start({**target, "capacity": "FARGATE_SPOT"}) == first
    world.host.wait()
    assert world.host.started == 1


@pytest.mark.parametrize(
    "trouble",
    [
        lambda host: host.throttle(),
        lambda host: host.have_no_room(),
        lambda host: host.refuse("ClientException", "You've reached the limit on the number of vCPUs you can run"),
        lambda host: host.refuse("ClientException", "ECS was unable to assume the role 'r'. Please verify it"),
        lambda host: host.refuse("ServerException", "Service Unavailable"),
    ],
)
def test_what_ecs_does_not_start_now_is_asked_for_again(world: World, trouble: Callable[[EcsHost], None]) -> None:
    target = world.register("echo {}")
    for _ in range(4):  # a client asks again by itself
        trouble(world.host)
    with pytest.raises(NotStarted):
        world.start(target)
    world.host.forgive()
    assert world.run(target).output == b"{}"


def test_what_ecs_will_never_start_is_final(world: World) -> None:
    world.host.refuse("ClientException", "TaskDefinition is inactive")
    with pytest.raises(NeverStarts, match="TaskDefinition is inactive"):
        world.start(world.register("echo {}"))


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
    while len(world.host.running) < 2:
        world.wait_until_running()
    world.containers.stop(RUN, "s", 1)
    assert world.end() is None
    assert world.host.running == [other]


def test_a_container_that_somebody_stopped_by_hand_has_failed(world: World) -> None:
    arn = world.start(world.register("trap '' TERM; /bin/busybox sleep 600"))
    world.wait_until_running()
    clients.client("ecs").stop_task(cluster="stepwell", task=arn, reason="too expensive")
    assert _error(world.outcome()).kind in ("stopped", "crash")
