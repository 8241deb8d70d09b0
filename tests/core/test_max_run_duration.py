"""Tests the maximum duration of a run."""

from __future__ import annotations

import pytest

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.duration import parse_duration
from stepwell.core.plan import Plan
from stepwell.core.run.max_run_duration import longest_run_ms

HOUR = 3_600_000
ONE = {
    "path": "file://.",
    "runtime": {"type": "lambda", "handler": "app.f"},
    "timeout": "1h",
    "retries": {"attempts": 0},
}


def plan_of(**steps: object) -> Plan:
    return compile_plan(parse_definition({"id": "f", "triggers": [{"event": "go"}], "steps": steps}).normalised(), 1)


def step(*after: object, **fields: object) -> object:
    return {**ONE, "after": list(after), **fields}


OF_A_STEP = longest_run_ms(plan_of(a=step()))


def test_a_step_may_be_lost_four_times_and_wait_each_time() -> None:
    assert OF_A_STEP == 5 * (1 + 7) * HOUR


def test_every_retry_adds_an_attempt_and_its_delay() -> None:
    retries = {"attempts": 2, "backoff": {"initial": "1h", "max": "2h", "jitter": 0.5}}
    assert longest_run_ms(plan_of(a=step(retries=retries))) == OF_A_STEP + 2 * (8 * HOUR + 3 * HOUR)


@pytest.mark.parametrize(
    ("edge", "longer"),
    [
        ({"step": "a"}, "0s"),
        ({"step": "a", "wait": "40d"}, "40d"),
        ({"step": "a", "wait": {"until": "event.ts"}}, "366d"),
        ({"step": "a", "wait": {"until": "event.ts"}, "async": {"event": "e", "ttl": "3d"}}, "369d"),
        ({"step": "a", "async": {"event": "e", "ttl": "3d"}}, "3d"),
        ({"step": "a", "wait": "40d", "async": {"event": "e", "ttl": "3d"}}, "43d"),
    ],
)
def test_steps_in_a_row_add_up_with_what_is_between_them(edge: dict[str, object], longer: str) -> None:
    assert longest_run_ms(plan_of(a=step(), b=step(edge))) == 2 * OF_A_STEP + parse_duration(longer)


@pytest.mark.parametrize(
    ("timeouts", "longest"),
    [
        ({"start": "1h"}, 2 * OF_A_STEP + 40 * 24 * HOUR),
        ({"finish": "300d"}, 2 * OF_A_STEP + 40 * 24 * HOUR),
        ({"finish": "30h"}, (40 * 24 + 7) * HOUR + 30 * HOUR + 7 * HOUR),
        ({"start": "1h", "finish": "30h"}, 1 * HOUR + 30 * HOUR + 7 * HOUR),
    ],
)
def test_timeouts_end_a_run_before_its_steps_do(timeouts: dict[str, str], longest: int) -> None:
    steps = {"a": step({"step": "$trigger", "wait": "40d"}), "b": step({"step": "a"})}
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": steps, "timeouts": timeouts}
    assert longest_run_ms(compile_plan(parse_definition(raw).normalised(), 1)) == longest


def test_the_slowest_branch_counts() -> None:
    plan = plan_of(
        z=step({"step": "b"}, {"step": "c"}),
        a=step(),
        b=step({"step": "a"}),
        c=step({"step": "$trigger", "wait": "90d"}),
    )
    assert longest_run_ms(plan) == 2 * OF_A_STEP + parse_duration("90d")


def test_an_approval_takes_at_most_its_timeout() -> None:
    asks = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "366d"}
    assert longest_run_ms(plan_of(a=asks, b=step({"step": "a"}))) == 366 * 24 * HOUR + OF_A_STEP
