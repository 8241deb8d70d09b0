"""Lambda and ECS limit starts: a throttled attempt starts later, by itself, and no other attempt starts twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.engine.session import now_ms
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.resources import Resources
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import run_id as run_id_of
from stepwell.core.run.run import RunStatus
from stepwell.platform import NotWritten
from stepwell.testing.batches import LOST, Batches, Json, handler_step
from tests.aws.test_sweep import failing

AGE_S, TIMEOUT_S, START_S = 3600, 30, 60


def started(batches: Batches) -> Counter[tuple[str, int]]:
    """The number of starts of each attempt of each step."""
    return Counter((payload["ctx"]["step_id"], payload["ctx"]["attempt"]) for payload in batches.invoked)


def statuses(batches: Batches) -> list[str]:
    """The status of the newest run, then of each of the ended attempts."""
    run, attempts = max(batches.runs(), key=lambda pair: pair[0].position)
    return [run.run.status.name.lower(), *(attempt.status for attempt in attempts)]


# --- Lambda ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 40])
def test_one_throttled_start_of_many_is_tried_again_alone(batches: Batches, clock: Any, count: int) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({f"s{number}": handler_step() for number in range(count)})
    batches.send()
    with failing("lambda", "Invoke", "TooManyRequestsException", lambda body: '"step_id":"s2"' in body):
        batches.drain()
        assert sum(started(batches).values()) == count - 1
    clock.shift(1)
    batches.drain()
    assert started(batches) == {(f"s{number}", 1): 1 for number in range(count)}


def test_what_is_throttled_for_longer_than_anything_may_take_is_not_lost(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    tries = 0
    with failing("lambda", "Invoke", "TooManyRequestsException"):
        batches.drain()
        while tries * 30 < AGE_S + TIMEOUT_S + START_S + 600:
            clock.shift(30)
            batches.drain()
            batches.scheduler.sweep(range(8))
            tries += 1
    assert statuses(batches) == ["running"]
    clock.shift(60)
    batches.drain()
    assert (statuses(batches), started(batches)) == (["completed", "completed"], {("a", 1): 1})


@pytest.mark.parametrize("state", ["ResourceConflictException", "ResourceNotReadyException"])
def test_a_step_whose_lambda_gets_its_network_back_starts_later(batches: Batches, clock: Any, state: str) -> None:
    """Lambda refuses to invoke a function in a VPC that was idle for weeks, until it has network interfaces again."""
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    with failing("lambda", "Invoke", state):
        batches.drain()
        clock.shift(AGE_S + 60)
        batches.drain()
    assert statuses(batches) == ["running"]
    clock.shift(60)
    batches.drain()
    assert (statuses(batches), started(batches)) == (["completed", "completed"], {("a", 1): 1})


def test_a_run_that_was_cancelled_meanwhile_starts_nothing(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    with failing("lambda", "Invoke", "TooManyRequestsException"):
        batches.drain()
    batches.control.cancel(batches.runs()[0][0].run.id)
    clock.shift(60)
    batches.drain()
    assert (statuses(batches), batches.invoked) == (["cancelled", "cancelled"], [])


# --- ECS -------------------------------------------------------------------------------------------------------------


class RateLimitedEcs:
    """RunTask as ECS answers it, with a bucket of requests that is refilled at this rate (per second)."""

    def __init__(self, bucket: int, a_second: int) -> None:
        self._full, self._a_second = bucket, a_second
        self._left, self._at = float(bucket), now_ms()
        self.refused, self.started = 0, Counter[str]()
        clients.client("ecs").meta.events.register_first("before-call.ecs.RunTask", self._run_task)

    def _run_task(self, params: Json, **_: Any) -> tuple[Any, Json]:
        now = now_ms()
        self._left = min(self._full, self._left + (now - self._at) / 1000 * self._a_second)
        self._at = now
        if self._left < 1:
            self.refused += 1
            raise clients.client("ecs").exceptions.ClientError(
                {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "RunTask"
            )
        self._left -= 1
        body = json.loads(params["body"])
        self.started[body["clientToken"]] += 1
        return _Ok(), {"tasks": [{"taskArn": "arn:aws:ecs:task/1"}], "failures": []}


class _Ok:
    status_code = 200


def test_fifty_containers_start_as_fast_as_ecs_takes_them_each_asked_for_until_then(
    resources: Resources, clock: Any
) -> None:
    batches = Batches(replace(resources, cluster="stepwell"))
    clients.client("s3").create_bucket(
        Bucket=resources.bucket, CreateBucketConfiguration={"LocationConstraint": resources.region}
    )
    ecs = RateLimitedEcs(bucket=10, a_second=5)
    docker = {"type": "docker", "image": "busybox"}
    steps = {f"s{number}": {"path": "file://.", "runtime": docker} for number in range(50)}
    definition = parse_definition({"id": "f", "triggers": [{"event": "go"}], "steps": steps}).normalised()
    targets = {step: {"ecs": "arn:aws:ecs:task-definition/f:1"} for step in steps}
    batches.session.releases.register(NewVersion(definition, targets, {}, "", "", "stepwell.json"), now_ms())
    batches.send()
    batches.drain()
    assert len(ecs.started) == 10
    for _ in range(60):
        clock.shift(1)
        batches.drain()
    assert len(ecs.started) == 50
    assert set(ecs.started.values()) == {1}  # running tasks are not requested again
    assert ecs.refused < 250


# --- requests that no message causes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["TooManyRequestsException", "ServiceException"])
def test_a_rerun_whose_step_cannot_start_now_starts_it_later(batches: Batches, clock: Any, code: str) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()
    with failing("lambda", "Invoke", code):
        new_id = batches.control.rerun(batches.runs()[0][0].run.id)
    assert (new_id is not None, len(batches.invoked)) == (True, 1)
    clock.shift(1)
    batches.drain()
    assert (statuses(batches), len(batches.invoked)) == (["completed", "completed"], 2)


@pytest.mark.parametrize("code", ["TooManyRequestsException", "ServiceException"])
def test_a_sweeper_that_cannot_start_what_was_lost_burns_one_attempt_and_not_all(
    batches: Batches, clock: Any, code: str
) -> None:
    batches.answer = lambda ctx: LOST if ctx["attempt"] == 1 else {}
    batches.deploy({"a": handler_step(timeout=f"{TIMEOUT_S}s")})
    batches.send()
    batches.drain()
    clock.shift(AGE_S + TIMEOUT_S + START_S)
    with failing("lambda", "Invoke", code):
        for _ in range(4):
            batches.scheduler.sweep(range(8))
            clock.shift(60)
    batches.drain()
    assert statuses(batches) == ["completed", "lost", "completed"]
    assert started(batches) == {("a", 1): 1, ("a", 2): 1}


@contextmanager
def runs_cannot_be_written() -> Iterator[None]:
    with failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException", lambda body: "R#" in body):
        yield


def runs_on_with_a_listener(batches: Batches) -> str:
    """The id of an open run. The end of the run as cancelled would start a function."""
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    batches.deploy({"a": handler_step()}, on="stepwell/run.cancelled", id="listener")
    batches.send()
    batches.drain()
    return batches.runs()[0][0].run.id


def test_a_cancel_that_could_not_be_written_is_no_success(batches: Batches) -> None:
    run_id = runs_on_with_a_listener(batches)
    with runs_cannot_be_written(), pytest.raises(NotWritten, match="could not be cancelled"):
        batches.control.cancel(run_id)
    assert statuses(batches) == ["running"]
    batches.control.cancel(run_id)
    assert {run.function: run.run.status for run, _ in batches.runs()} == {
        "f": RunStatus.CANCELLED,
        "listener": RunStatus.RUNNING,
    }


def test_a_cancel_whose_listeners_could_not_start_starts_them_when_it_is_asked_again(batches: Batches) -> None:
    run_id = runs_on_with_a_listener(batches)
    listener = f"R#{run_id_of('listener', f'run:{run_id}')}"
    with (
        failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException", lambda body: listener in body),
        pytest.raises(NotWritten, match="could not be cancelled"),
    ):
        batches.control.cancel(run_id)
    assert statuses(batches) == ["cancelled", "cancelled"]
    batches.control.cancel(run_id)
    assert statuses(batches) == ["running"]  # the listener


def test_a_rerun_that_could_not_be_written_is_no_success(batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()
    with runs_cannot_be_written(), pytest.raises(NotWritten, match="could not be written"):
        batches.control.rerun(batches.runs()[0][0].run.id)
    assert len(batches.runs()) == 1


def test_a_lambda_that_was_just_made_may_be_found_later(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step()})
    batches.send()
    with failing("lambda", "Invoke", "ResourceNotFoundException"):
        batches.drain()
        assert statuses(batches) == ["running"]
    clock.shift(1)
    batches.drain()
    assert (statuses(batches), started(batches)) == (["completed", "completed"], {("a", 1): 1})


def test_a_lambda_that_is_not_there_for_a_minute_fails_the_step_for_good(batches: Batches, clock: Any) -> None:
    batches.deploy({"a": handler_step(retries={"attempts": 3})})
    batches.send()
    with failing("lambda", "Invoke", "ResourceNotFoundException"):
        for _ in range(3):
            batches.drain()
            assert statuses(batches) == ["running"]
            clock.shift(25)
        for _ in range(4):
            batches.drain()
            clock.shift(25)
    assert (statuses(batches), batches.invoked) == (["failed", "failed"], [])
