"""Containers that are no longer needed are stopped, and forged messages stop none. ECS is emulated in process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.engine.session import now_ms
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.queues.messages import stop_message
from stepwell.aws.resources import Resources
from stepwell.core.definition.definition import parse_definition
from stepwell.core.run.run import RunStatus
from stepwell.testing.batches import LOST, Batches, Json, handler_step, sqs_event

DOCKER = {"type": "docker", "image": "busybox"}


class _Ok:
    status_code = 200


class Ecs:
    """Tasks that run until they are stopped. ListTasks shows a task only some milliseconds after the start."""

    def __init__(self) -> None:
        self.running: dict[str, Json] = {}
        self.lists_after_ms = 0
        self._started_at: dict[str, int] = {}
        self._events = clients.client("ecs").meta.events
        for operation in ("RunTask", "ListTasks", "DescribeTasks", "StopTask"):
            self._events.register_first(f"before-call.ecs.{operation}", self._answer, unique_id=f"ecs {operation}")

    def close(self) -> None:
        for operation in ("RunTask", "ListTasks", "DescribeTasks", "StopTask"):
            self._events.unregister(f"before-call.ecs.{operation}", unique_id=f"ecs {operation}")

    def _answer(self, params: Json, model: Any, **_: Any) -> tuple[Any, Json]:
        asked = json.loads(params["body"])
        return _Ok(), {**getattr(self, model.name)(asked), "ResponseMetadata": {"HTTPStatusCode": 200}}

    def RunTask(self, asked: Json) -> Json:  # noqa: N802
        arn = f"task/{len(self._started_at)}"
        self.running[arn], self._started_at[arn] = asked, now_ms()
        return {"tasks": [{"taskArn": arn}], "failures": []}

    def ListTasks(self, asked: Json) -> Json:  # noqa: N802
        shown = now_ms() - self.lists_after_ms
        tasks = [arn for arn, task in self.running.items() if task["startedBy"] == asked["startedBy"]]
        return {"taskArns": [arn for arn in tasks if self._started_at[arn] <= shown]}

    def DescribeTasks(self, asked: Json) -> Json:  # noqa: N802
        tasks = [{"taskArn": arn, "overrides": self.running[arn]["overrides"]} for arn in asked["tasks"]]
        return {"tasks": tasks, "failures": []}

    def StopTask(self, asked: Json) -> Json:  # noqa: N802
        del self.running[asked["task"]]
        return {}


@pytest.fixture
def ecs(account: None) -> Iterator[Ecs]:
    ecs = Ecs()
    yield ecs
    ecs.close()


@pytest.fixture
def containers(resources: Resources, clock: Any, ecs: Ecs) -> Batches:
    """A function with two containers, and a run of it that has begun; an event `stop` cancels it."""
    batches = Batches(replace(resources, cluster="stepwell"))
    place: Any = {"LocationConstraint": resources.region}
    clients.client("s3").create_bucket(Bucket=resources.bucket, CreateBucketConfiguration=place)
    step = {"path": "file://.", "runtime": DOCKER, "timeout": "30s"}
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step, "b": step}, "cancel": [{"event": "stop"}]}
    definition = parse_definition(raw).normalised()
    targets = {name: {"ecs": "arn:aws:ecs:task-definition/f:1"} for name in ("a", "b")}
    batches.session.releases.stage(definition)
    batches.session.releases.register(NewVersion(definition, targets, {}, "", "", "stepwell.json"), now_ms())
    batches.start()
    batches.send()
    batches.drain()
    assert len(ecs.running) == 2
    return batches


def run_id(batches: Batches) -> str:
    return batches.runs()[0][0].run.id


def test_who_cancels_a_run_has_its_containers_stopped_at_once(containers: Batches, ecs: Ecs) -> None:
    containers.control.cancel(run_id(containers))
    assert ecs.running == {}


def test_a_container_that_ecs_does_not_list_yet_is_stopped_half_a_minute_later(
    containers: Batches, ecs: Ecs, clock: Any
) -> None:
    ecs.lists_after_ms = 20_000
    containers.send("stop")
    containers.drain()
    assert [stored.run.status for stored, _ in containers.runs()] == [RunStatus.CANCELLED]
    assert len(ecs.running) == 2
    clock.shift(30)
    containers.drain()
    assert ecs.running == {}


def test_an_event_that_cancels_a_run_has_its_containers_stopped_at_once(containers: Batches, ecs: Ecs) -> None:
    containers.send("stop")
    containers.drain()
    assert ecs.running == {}


def test_nobody_has_the_containers_of_a_run_stopped_that_goes_on(containers: Batches, ecs: Ecs) -> None:
    message = json.loads(stop_message(run_id(containers), now_ms()))
    assert containers.consumer.advance(sqs_event([message])) == {"batchItemFailures": []}
    assert len(ecs.running) == 2


def test_a_container_that_counts_as_lost_does_not_run_beside_the_next_attempt(
    containers: Batches, ecs: Ecs, clock: Any
) -> None:
    clock.shift(3600 + 30 + 60)
    before = set(ecs.running)
    containers.scheduler.sweep(range(8))
    containers.drain()
    assert len(ecs.running) == 2
    assert before.isdisjoint(ecs.running)


def test_the_container_of_one_attempt_is_stopped_alone(containers: Batches, ecs: Ecs) -> None:
    own = containers.session.dispatcher.containers
    own.stop("a" * 26)
    own.stop(run_id(containers), "a", 2)
    own.stop(run_id(containers), "c", 1)
    assert len(ecs.running) == 2
    own.stop(run_id(containers), "a", 1)
    (task,) = ecs.running.values()
    assert '"step":"b"' in json.dumps(task).replace("\\", "")
    own.stop(run_id(containers), "b")
    assert ecs.running == {}


def test_a_run_without_containers_asks_ecs_for_nothing(resources: Resources, clock: Any, ecs: Ecs) -> None:
    asked: list[str] = []
    events = clients.client("ecs").meta.events
    events.register_first("before-call.ecs", lambda model, **_: asked.append(model.name), unique_id="asked")
    batches = Batches(replace(resources, cluster="stepwell"))
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()
    batches.control.cancel(run_id(batches))
    batches.drain()
    events.unregister("before-call.ecs", unique_id="asked")
    assert asked == []
