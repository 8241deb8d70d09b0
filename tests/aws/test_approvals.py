"""Approvals on AWS: concurrent decisions, crashes, and runs with many steps."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import orjson
import pytest
import time_machine

from stepwell.aws.api.approvals import AwsApprovals
from stepwell.aws.api.queries import Queries
from stepwell.aws.clients import client
from stepwell.aws.engine.session import now_ms
from stepwell.aws.resources import Resources
from stepwell.core.run.approvals import Link, decided
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.testing.batches import Batches, Crash, Json, Process, handler_step
from stepwell.testing.platform import START

ASKS: Json = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "10m"}
STEPS = {
    "ask": ASKS,
    "yes": handler_step({"step": "ask", "if": "response.approved"}),
    "no": handler_step({"step": "ask", "if": "!response.approved"}),
    "late": handler_step({"step": "ask", "on": "failure"}),
}


def asking(resources: Resources, **more: Json) -> Batches:
    batches = Batches(resources)
    batches.deploy({**STEPS, **more})
    batches.send()
    batches.drain()
    return batches


def links(batches: Batches) -> tuple[Link, Link]:
    """The links to approve and to decline."""
    api = AwsApprovals(batches.resources, Queries(batches.resources, batches.session.registry), batches.control.decide)
    (detail,) = api.read_asking(before=None, limit=10).items
    approve, decline = (api.links().read(url.rpartition("/")[2]) for url in api.links().of(detail.plan, detail.run, 0))
    assert approve is not None
    assert decline is not None
    return approve, decline


def decide(batches: Batches, link: Link, by: str) -> bool:
    """Decides in a Lambda of its own."""
    return Process(batches.resources).control.decide(link, decided(link.decision, None, by, now_ms()))


def end(batches: Batches) -> tuple[str, Json | None]:
    """The step that ran afterwards, and the decision."""
    batches.drain()
    ((stored, attempts),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED
    output = next((attempt.output for attempt in attempts if attempt.step == 0), None)
    ran = [name for name, step in zip(STEPS, stored.run.steps, strict=False) if step.status is StepStatus.COMPLETED]
    return ran[-1], None if output is None else orjson.loads(output)


@pytest.mark.parametrize("wide", [False, True])
def test_of_two_who_decide_at_the_same_moment_one_does(resources: Resources, clock: Any, wide: bool) -> None:
    never = {f"s{n}": handler_step({"step": "ask", "if": "false"}) for n in range(40 if wide else 0)}
    batches = asking(resources, **never)
    approve, decline = links(batches)
    together = threading.Barrier(2)
    table = client("dynamodb").meta.events
    waited = threading.local()

    def wait(**_: Any) -> None:
        if not getattr(waited, "done", False):
            waited.done = True
            together.wait(5)

    table.register("before-call.dynamodb.PutItem", wait, unique_id="together")
    try:
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda value: decide(batches, *value), [(approve, "Ada"), (decline, "Eve")]))
    finally:
        table.unregister("before-call.dynamodb.PutItem", unique_id="together")
    assert sorted(results) == [False, True]
    ran, output = end(batches)
    assert output is not None
    assert (ran, output["by"]) == (("yes", "Ada") if results[0] else ("no", "Eve"))


def test_a_decision_in_the_last_moment_beats_the_timer_and_one_after_it_does_not(
    resources: Resources, clock: Any
) -> None:
    batches = asking(resources)
    approve, decline = links(batches)
    clock.shift(timedelta(minutes=10) - timedelta(milliseconds=1))
    assert decide(batches, approve, "Ada")
    clock.shift(timedelta(minutes=1))
    assert not decide(batches, decline, "Eve")
    assert end(batches)[0] == "yes"


def test_nobody_decides_after_the_time_also_if_the_timer_is_late(resources: Resources, clock: Any) -> None:
    batches = asking(resources)
    approve, _ = links(batches)
    clock.shift(timedelta(minutes=10))
    assert not decide(batches, approve, "Ada")
    assert end(batches)[0] == "late"


def test_a_lambda_that_dies_while_somebody_decides_leaves_nothing_half_done(
    resources: Resources, new_account: Callable[[], Resources]
) -> None:
    """A person who gets no answer sends the decision again, or looks at the page."""
    writes = []
    for crash_at in range(30):
        with time_machine.travel(START, tick=False) as clock:
            batches = asking(resources if not crash_at else new_account())
            approve, _ = links(batches)
            batches.requests.clear()
            batches.crash_at = crash_at
            try:
                decide(batches, approve, "Ada")
            except Crash:
                writes.append(crash_at)
                batches.crash_at = None
                decide(batches, approve, "Ada")
            is_over = batches.crash_at is not None
            batches.crash_at = None
            clock.shift(timedelta(hours=3))  # after that, attempts that were not started are started again
            batches.start()
            batches.scheduler.sweep(range(8))
            ran, output = end(batches)
            assert output is not None
            assert (ran, output["by"]) == ("yes", "Ada"), crash_at
        if is_over:
            break
    assert len(writes) >= 4


def test_the_end_of_a_run_is_told_once_though_the_lambda_that_decided_it_died(
    resources: Resources, new_account: Callable[[], Resources]
) -> None:
    """A client without an answer tries again.

    The first request may have been written, so the second must change nothing.
    """
    for crash_at in range(30):
        with time_machine.travel(START, tick=False) as clock:
            batches = Batches(resources if not crash_at else new_account())
            batches.deploy({"listen": handler_step()}, on="stepwell/run.completed", id="listener")
            batches.deploy({"ask": STEPS["ask"]})
            batches.send()
            batches.drain()
            approve, _ = links(batches)
            batches.requests.clear()
            batches.crash_at = crash_at
            try:
                decide(batches, approve, "Ada")
            except Crash:
                decide(batches, approve, "Ada")
            is_over, batches.crash_at = batches.crash_at is not None, None
            clock.shift(timedelta(minutes=1))
            batches.drain()
            ended = [run.function for run, _ in batches.runs() if run.run.status is RunStatus.COMPLETED]
            assert sorted(ended) == ["f", "listener"], f"after a crash before request {crash_at} of {batches.requests}"
        if is_over:
            break
    assert crash_at >= 4


def test_a_step_that_ends_while_people_are_asked_does_not_wait_for_them(resources: Resources, clock: Any) -> None:
    """In runs with many steps, outcomes that start nothing stay pending; but they must not wait a year for people."""
    batches = asking(resources, **{f"s{n}": handler_step() for n in range(40)})
    ((stored, attempts),) = batches.runs()
    assert [step.status for step in stored.run.steps].count(StepStatus.COMPLETED) == 40
    assert len(attempts) == 40
    approve, _ = links(batches)
    assert decide(batches, approve, "Ada")
    ((stored, _),) = batches.runs()
    batches.drain()
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED


def test_who_asks_nobody_does_not_load_what_it_takes() -> None:
    modules = "sys, stepwell.aws.engine.queue_consumer, stepwell.aws.engine.control"
    code = f"import {modules}; print([name for name in sys.modules if 'approval' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
