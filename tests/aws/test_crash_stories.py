"""Long processes and failures survive a crash of a Lambda at any moment.

`test_crashes.py` crashes before every request. Here a process crashes before each write: for the process that
continues, it makes no difference which read was the last. Writes are numbered anew in each variant, because parallel
requests have no fixed order and the number of reads may differ.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
import time_machine

from stepwell.aws import clients
from stepwell.aws.engine import wait_pages
from stepwell.aws.engine.session import now_ms
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import STATUS_SHARDS
from stepwell.core.definition.definition import parse_definition
from stepwell.testing.account.snapshot import Snapshot
from stepwell.testing.batches import LOST, Batches, Crash, Json, destination, handler_step

NOW = datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC)
WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "SendMessageBatch", "PutEvents", "Invoke"}
WRITES |= {"PutObject", "RunTask"}
READS = {"GetItem", "BatchGetItem", "Query", "GetObject"}
PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "5m"}
DELAYED = handler_step({"step": "a", "wait": "2m", "async": PAID})
TWICE = {"attempts": 1, "backoff": {"initial": "10s", "jitter": 0}}
DEPLOYED: dict[str, Snapshot] = {}  # accounts at NOW, by what was deployed to them
_BACK_S = 1.2  # after this time moto delivers a message again


class Story:
    """One variant of a story, in an empty account, on a clock that the story moves."""

    def __init__(self, resources: Resources, clock: Any) -> None:
        self.batches, self.clock = Batches(resources), clock
        self.batches.answer = lambda ctx: {"status": 400} if ctx["step_id"] == "bad" else {}
        self.sent = 0
        self.deployed = ""
        self.crash_at: int | None = None  # the number of a write
        self.crash_after: int | None = None

    def deploy(self, steps: Json, **fields: Any) -> None:
        """Done in the first variant only; the others begin with a copy of the account. It must come first."""
        assert self.sent == 0
        self.deployed += json.dumps([steps, fields])
        if self.deployed in DEPLOYED:
            DEPLOYED[self.deployed].restore()
            self.batches.start()
        else:
            self.batches.deploy(steps, **fields)
            DEPLOYED[self.deployed] = Snapshot()

    def begins(self) -> None:
        """From here on a process may crash."""
        self.batches.requests.clear()
        self.batches.batches = 0
        self.batches.numbered = WRITES
        self.batches.crash_at, self.batches.crash_after = self.crash_at, self.crash_after

    def send(self, name: str = "go", **data: Any) -> None:
        self.sent += 1
        self.batches.send(name, data, id=f"{self.sent:032x}")  # the same in each variant, as are the ids of runs
        self.drain()

    def drain(self) -> None:
        for _ in range(3):  # once for redelivered messages, and once for the messages that these send
            self.batches.drain()
            self.clock.shift(timedelta(seconds=_BACK_S))

    def minutes(self, count: int, *, tick: bool = False) -> None:
        for _ in range(count):
            self.clock.shift(timedelta(minutes=1))
            if tick:
                self.tick()
            self.drain()

    def tick(self) -> None:
        try:
            self.batches.scheduler.tick()
        except Crash:
            self.batches.start()  # the next minute finds what this one has left

    def left_of_limits(self) -> list[str]:
        """The permits that are taken and the starts that wait."""
        scan = self.batches.outside_db.get_paginator("scan").paginate(TableName=self.batches.resources.table)
        items = [item for page in scan for item in page["Items"] if item["pk"]["S"].startswith("B#")]
        waiters = [item["sk"]["S"] for item in items if item["sk"]["S"].startswith("w#")]
        return [*waiters, *(name for item in items for name in item if "/" in name)]

    def silence(self) -> None:
        """Waits until a silent attempt with a timeout of 30 s counts as lost."""
        self.clock.shift(timedelta(seconds=3600 + 30 + 60))
        for _ in range(2):
            try:
                self.batches.scheduler.sweep(range(STATUS_SHARDS))
            except Crash:
                self.batches.start()
            self.drain()


def try_twice(story: Story, do: Callable[[], None]) -> None:
    try:
        do()
    except Crash:
        story.batches.start()
        do()


def a_run_that_starts_a_function(story: Story) -> None:
    story.deploy({"a": handler_step()})
    story.deploy({"z": handler_step()}, on="stepwell/run.completed", id="g")
    story.begins()
    story.send()


def a_failure_that_starts_a_function(story: Story) -> None:
    story.deploy({"bad": handler_step(), "c": handler_step("bad")})
    story.deploy({"z": handler_step()}, on="stepwell/run.failed", id="g")
    story.begins()
    story.send()


def a_retry_and_a_failure_that_is_handled(story: Story) -> None:
    story.batches.answer = lambda ctx: {"status": 500} if ctx["step_id"] == "bad" else {}
    story.deploy({"bad": handler_step(retries=TWICE), "c": handler_step({"step": "bad", "on": "failure"})})
    story.begins()
    story.send()
    story.minutes(1)


def a_far_timer(story: Story) -> None:
    story.deploy({"c": handler_step({"step": "$trigger", "wait": "16m"})})
    story.begins()
    story.send()
    story.clock.shift(timedelta(minutes=5))
    story.minutes(2, tick=True)
    story.clock.shift(timedelta(minutes=9))
    story.minutes(2)


def a_near_timeout(story: Story) -> None:
    story.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "1h"})}, timeouts={"finish": "2m"})
    story.begins()
    story.send()
    story.minutes(3)


def a_far_timeout(story: Story) -> None:
    story.deploy({"c": handler_step({"step": "$trigger", "wait": "1h"})}, timeouts={"start": "16m"})
    story.begins()
    story.send()
    story.clock.shift(timedelta(minutes=5))
    story.minutes(2, tick=True)
    story.clock.shift(timedelta(minutes=9))
    story.minutes(2)


def a_delay_until_a_time_in_the_past(story: Story) -> None:
    past = {"step": "a", "wait": {"until": "data.at"}}
    story.deploy({"a": handler_step(), "b": handler_step(past), "y": handler_step({**past, "async": PAID})})
    story.begins()
    story.send(order=1, at=0)
    story.send("paid", order=1)


def an_event_during_the_delay(story: Story) -> None:
    story.deploy({"a": handler_step(), "y": DELAYED})
    story.begins()
    story.send(order=1)
    story.send("paid", order=1)
    story.minutes(3)


def a_deadline(story: Story) -> None:
    late = handler_step({"step": "$trigger", "async": {**PAID, "onTimeout": True}})
    story.deploy({"y": handler_step({"step": "$trigger", "async": PAID}), "n": late})
    story.begins()
    story.send(order=1)
    story.clock.shift(timedelta(minutes=5))
    story.drain()


def many_runs_that_wake(story: Story) -> None:
    story.deploy({"y": handler_step({"step": "$trigger", "async": PAID})})
    for _ in range(3):  # pages of two
        story.send(order=1)
    story.begins()
    story.send("paid", order=1)


def an_invocation_that_never_started(story: Story) -> None:
    story.batches.answer = lambda ctx: LOST
    story.deploy({"a": handler_step()})
    story.begins()
    story.send()
    for payload in story.batches.invoked[:1]:
        story.batches.put_outcome(destination(payload, None, "EventAgeExceeded"))
    story.batches.answer = lambda ctx: {}
    story.minutes(2)


def an_attempt_that_is_lost(story: Story) -> None:
    story.batches.answer = lambda ctx: LOST if ctx["attempt"] == 1 else {}
    story.deploy({"a": handler_step(timeout="30s")})
    story.begins()
    story.send()
    story.silence()


def a_cron_trigger(story: Story) -> None:
    story.deploy({"a": handler_step()}, triggers=[{"cron": "*/3 10 * * *"}])
    story.begins()
    story.minutes(3, tick=True)


def an_approval_that_a_function_tells_of(story: Story) -> None:
    """A function that the event starts, with an approval that is never decided."""
    asks = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "5m", "after": [{"step": "a"}]}
    story.deploy({"a": handler_step(), "ask": asks, "late": handler_step({"step": "ask", "on": "failure"})})
    story.deploy({"z": handler_step()}, on="stepwell/approval.requested", id="g")
    story.begins()
    story.send()
    story.minutes(6)


def an_approval_whose_time_is_far(story: Story) -> None:
    asks = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "16m"}
    story.deploy({"ask": asks})
    story.begins()
    story.send()
    story.clock.shift(timedelta(minutes=5))
    story.minutes(2, tick=True)
    story.clock.shift(timedelta(minutes=9))
    story.minutes(2)


def cancel(story: Story) -> None:
    """A client that tries again if there is no answer."""
    ((stored, _),) = story.batches.runs()
    try_twice(story, lambda: story.batches.control.cancel(stored.run.id))
    story.clock.shift(timedelta(seconds=10))
    story.drain()


def a_run_that_is_cancelled(story: Story) -> None:
    story.batches.answer = lambda ctx: LOST if ctx["function_id"] == "f" else {}
    story.deploy({"a": handler_step(), "c": handler_step("a")})
    story.deploy({"z": handler_step()}, on="stepwell/run.cancelled", id="g")
    story.send()
    story.begins()
    cancel(story)


def a_silence_that_ends_a_run(story: Story) -> None:
    foreign_lambda = {"type": "lambda", "arn": "arn:aws:lambda:eu-west-1:123456789012:function:mine"}
    story.batches.answer = lambda ctx: LOST if ctx["function_id"] == "f" else {}
    story.deploy({"a": handler_step(runtime=foreign_lambda, timeout="30s")})
    story.deploy({"z": handler_step()}, on="stepwell/run.failed", id="g")
    story.send()
    story.begins()
    story.silence()


def attempts_that_wait_for_a_limit(story: Story) -> None:
    story.deploy({"a": handler_step(), "b": handler_step("a")}, concurrency={"limit": 1})
    story.begins()
    for _ in range(3):
        story.batches.send("go", {}, id=f"{story.sent:032x}")
        story.sent += 1
    story.drain()
    assert story.left_of_limits() == []


def an_attempt_that_two_limits_allow(story: Story) -> None:
    limits = [{"limit": 1}, {"limit": 1, "key": "event.data.customer"}]
    story.deploy({"a": handler_step()}, concurrency=limits)
    story.begins()
    for customer in (1, 1, 2):
        story.batches.send("go", {"customer": customer}, id=f"{story.sent:032x}")
        story.sent += 1
    story.drain()
    assert story.left_of_limits() == []


def runs_that_wait_for_a_limit(story: Story) -> None:
    story.deploy({"a": handler_step(), "b": handler_step("a")}, concurrency={"limit": 1, "scope": "run"})
    story.begins()
    for _ in range(3):
        story.batches.send("go", {}, id=f"{story.sent:032x}")
        story.sent += 1
    story.drain()
    assert story.left_of_limits() == []


def runs_that_a_throttle_spreads(story: Story) -> None:
    throttle = {"limit": 1, "period": "1m"}
    story.deploy(
        {"a": handler_step(), "b": handler_step("a")}, throttle=throttle, concurrency={"limit": 1, "scope": "run"}
    )
    story.begins()
    for _ in range(3):
        story.batches.send("go", {}, id=f"{story.sent:032x}")
        story.sent += 1
    story.drain()
    story.minutes(8)
    assert story.left_of_limits() == []


def a_cancelled_run_for_whose_permit_another_waits(story: Story) -> None:
    """The Lambda of the cancelled run never reports its end."""
    story.batches.answer = lambda ctx: LOST
    story.deploy({"a": handler_step(timeout="30s")}, concurrency={"limit": 1})
    story.send()
    story.send()
    story.batches.answer = lambda ctx: {}
    story.begins()
    first = min((stored.run for stored, _ in story.batches.runs()), key=lambda run: run.created_at)
    try_twice(story, lambda: story.batches.control.cancel(first.id))
    story.drain()
    story.clock.shift(timedelta(hours=2))
    for _ in range(3):
        story.clock.shift(timedelta(minutes=8))
        try_twice(story, lambda: story.batches.scheduler.sweep(range(STATUS_SHARDS)))
        story.drain()
    assert story.left_of_limits() == []


def two_containers(story: Story) -> None:
    batches = story.batches
    batches.resources = replace(batches.resources, cluster="stepwell")
    ecs = Ecs(batches)
    steps = {name: {"path": "file://.", "runtime": {"type": "docker", "image": "box"}} for name in ("a", "b")}
    steps["b"]["after"] = [{"step": "a"}]
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": steps}
    targets: dict[str, Any] = {step: {"ecs": "arn:aws:ecs:task-definition/f:1"} for step in steps}
    new = NewVersion(parse_definition(raw).normalised(), targets, {}, "", "", "stepwell.json")
    batches.session.releases.register(new, now_ms())
    batches.start()
    story.begins()
    story.send()
    story.minutes(1)
    assert len(ecs.tasks) == 2  # although one may have been requested twice


class Ecs:
    """Every task ends at once and has reported. The same client token means the same task."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self._s3, self.tasks = batches, boto3.client("s3"), set[str]()
        place: Any = {"LocationConstraint": batches.resources.region}
        with suppress(self._s3.exceptions.BucketAlreadyOwnedByYou):  # of the previous account
            self._s3.create_bucket(Bucket=batches.resources.bucket, CreateBucketConfiguration=place)
        for service, name, do in (("ecs", "before-call.ecs.RunTask", self._run), ("s3", "before-call", batches.note)):
            events = clients.client(service).meta.events
            events.unregister(name, unique_id="story")
            events.register(name, do, unique_id="story")

    def _run(self, params: Json, model: Any, **_: Any) -> tuple[Any, Json]:
        self._batches.note(model)
        asked = json.loads(params["body"])
        if asked["clientToken"] not in self.tasks:
            self.tasks.add(asked["clientToken"])
            self._end(asked["overrides"])
        return Taken(), {"tasks": [{"taskArn": "arn:aws:ecs:task/1"}], "failures": []}

    def _end(self, overrides: Json) -> None:
        variables = {item["name"]: item["value"] for item in overrides["containerOverrides"][0]["environment"]}
        report = {"stepwell": 1, "exit": 0, "signal": None, "stdout": base64.b64encode(b"{}").decode(), "size": 2}
        key = json.loads(variables["STEPWELL_ATTEMPT"])["key"]
        bucket = self._batches.resources.bucket
        self._s3.put_object(Bucket=bucket, Key=f"{key}.out.json", Body=json.dumps(report).encode())
        detail = {"lastStatus": "STOPPED", "stopCode": "EssentialContainerExited", "overrides": overrides}
        self._batches.put_outcome({"detail-type": "ECS Task State Change", "detail": detail})


class Taken:
    """The answer of ECS."""

    status_code = 200


STORIES: list[Callable[[Story], None]] = [
    a_run_that_starts_a_function,
    a_failure_that_starts_a_function,
    a_retry_and_a_failure_that_is_handled,
    a_far_timer,
    a_near_timeout,
    a_far_timeout,
    a_delay_until_a_time_in_the_past,
    an_event_during_the_delay,
    a_deadline,
    many_runs_that_wake,
    an_invocation_that_never_started,
    an_attempt_that_is_lost,
    a_cron_trigger,
    an_approval_that_a_function_tells_of,
    an_approval_whose_time_is_far,
    a_run_that_is_cancelled,
    a_silence_that_ends_a_run,
    attempts_that_wait_for_a_limit,
    an_attempt_that_two_limits_allow,
    runs_that_wait_for_a_limit,
    runs_that_a_throttle_spreads,
    a_cancelled_run_for_whose_permit_another_waits,
    two_containers,
]
every_story = pytest.mark.parametrize("story", STORIES, ids=lambda value: str(value.__name__))


@contextmanager
def played(story: Callable[[Story], None], resources: Resources, **crash: int) -> Iterator[Story]:
    with time_machine.travel(NOW, tick=False) as clock:
        value = Story(resources, clock)
        for name, number in crash.items():
            setattr(value, name, number)
        story(value)
        assert value.batches.crash_at is None, f"there was no write number {value.batches.crash_at}: nobody died"
        yield value


def result(story: Story) -> list[Any]:
    """The details of all runs."""
    return sorted(
        (
            stored.function,
            stored.run.status.name,
            [step.status.name for step in stored.run.steps],
            sorted((attempt.step, attempt.attempt, attempt.status) for attempt in attempts),
        )
        for stored, attempts in story.batches.runs()
    )


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_pages, "_PAGE", 2)


@every_story
def test_a_crash_before_any_write_changes_nothing_in_the_end(
    resources: Resources, story: Callable[[Story], None], new_account: Callable[[], Resources]
) -> None:
    with played(story, resources) as whole:
        expected, requests, batches = result(whole), list(whole.batches.requests), whole.batches.batches
    assert expected
    assert not [row for row in expected if row[1] == "RUNNING"]
    assert set(requests) <= WRITES | READS
    wrong: dict[Any, Any] = {}
    for number in range(sum(name in WRITES for name in requests)):
        with played(story, new_account(), crash_at=number) as value:
            if result(value) != expected:
                wrong[number, tuple(value.batches.requests)] = result(value)
    for number in range(batches):  # each batch is processed, and then delivered again
        with played(story, new_account(), crash_after=number) as value:
            if result(value) != expected:
                wrong["twice", number] = result(value)
    assert wrong == {}, expected


def test_the_end_of_a_run_is_told_though_whoever_cancelled_it_died_and_nobody_asks_again(
    resources: Resources, new_account: Callable[[], Resources]
) -> None:
    def ask_once(story: Story) -> None:
        story.batches.answer = lambda ctx: LOST if ctx["function_id"] == "f" else {}
        story.deploy({"a": handler_step()})
        story.deploy({"z": handler_step()}, on="stepwell/run.cancelled", id="g")
        story.send()
        story.begins()
        ((stored, _),) = story.batches.runs()
        with suppress(Crash):
            story.batches.control.cancel(stored.run.id)
        story.batches.start()
        story.clock.shift(timedelta(seconds=10))
        story.drain()

    with played(ask_once, resources) as whole:
        requests = whole.batches.requests
    cancelled = 0
    for number in range(sum(name in WRITES for name in requests)):
        with played(ask_once, new_account(), crash_at=number) as story:
            ends = {run[0]: run[1] for run in result(story)}
            assert ends in ({"f": "RUNNING"}, {"f": "CANCELLED", "g": "COMPLETED"}), number
            cancelled += ends["f"] == "CANCELLED"
    assert cancelled >= 4
