"""What waiting costs on AWS: the minutes of `tick` that runs which wait for days take, beyond those of an environment
in which nothing waits.

One rule: counted, not modelled, but for the minutes in which nothing changes: eight minutes are a round of the sweeper,
and a day has 180 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import time_machine
from aws_harness import Harness
from aws_prices import Usage

from stepwell.testing.account.meter import metered
from stepwell.testing.batches import handler_step

ROUND_MIN = 8  # each shard is swept once
ROUNDS_A_DAY = 180
_BEGUN_MIN = 48  # by then the sweeper has left a run to its timer


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one run uses: `once`, for each long wait, however long it is (the sweeper's looks at a young run, and what
    it takes to watch the run when the wait is over), and `a_day` of waiting."""

    once: Usage
    a_day: Usage

    def of(self, days: float) -> Usage:
        total = Usage()
        total += self.once
        for name in ("write_units", "read_units", "queue_requests"):
            setattr(total, name, getattr(total, name) + days * getattr(self.a_day, name))
        return total


def count_waiting(harness: Harness, runs: int = 24) -> Waiting:
    """Let runs wait for three days. The harness's account must be empty, and its clock is shifted."""
    harness.counting = False  # nothing is held up: only units are counted
    batches = harness.batches
    with time_machine.travel(datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC), tick=False) as clock:
        batches.answer = lambda ctx: {}
        harness.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "3d"})})
        idle = _ticks(harness, clock, ROUND_MIN)  # also what is written once in an environment's life
        idle = _ticks(harness, clock, ROUND_MIN)
        for number in range(runs):
            batches.send(data={"n": number})
        batches.drain()
        assert len(batches.invoked) == runs
        young = _less(_ticks(harness, clock, _BEGUN_MIN), idle, _BEGUN_MIN / ROUND_MIN)
        _ticks(harness, clock, ROUND_MIN)
        quiet = _less(_ticks(harness, clock, ROUND_MIN), idle, 1)
        clock.shift(86_400)
        daily = _less(_ticks(harness, clock, ROUND_MIN), idle, 1)
        clock.shift(2 * 86_400 - 1500 - 120 * 60)
        woken = _wake(harness, clock, runs, idle)
    a_day = Usage()
    for _ in range(ROUNDS_A_DAY - 1):
        a_day += quiet
    a_day += daily
    young += woken
    return Waiting(once=young / runs, a_day=a_day / runs)


def _wake(harness: Harness, clock: Any, runs: int, idle: Usage) -> Usage:
    """The watches that are written when the waits are over, and the looks that they ask for. The timer itself is billed
    however long the wait is."""
    written = Usage()
    minutes = 0
    while len(harness.batches.invoked) < 2 * runs:
        harness.batches.scheduler.tick()
        clock.shift(60)
        minutes += 1
        assert minutes < 600, "the waits are not over"
        with metered() as meter:
            harness.batches.drain()
        watches = [call for call in meter.calls if call.key.startswith("D#")]
        written += Usage(write_units=sum(call.write_units for call in watches))
    clock.shift(2 * 3600)
    written += _less(_ticks(harness, clock, ROUND_MIN), idle, 1)
    return written


def _ticks(harness: Harness, clock: Any, minutes: int) -> Usage:
    with metered() as meter:
        for _ in range(minutes):
            harness.batches.scheduler.tick()
            clock.shift(60)
    of_runs = sum(call.write_units for call in meter.calls if call.key != "META")  # not how far the sweeper has come
    return Usage(queue_requests=meter.count("sqs"), write_units=of_runs, read_units=meter.read_units)


def _less(usage: Usage, idle: Usage, times: float) -> Usage:
    """What is used beyond an environment in which nothing waits."""
    return Usage(
        queue_requests=usage.queue_requests - times * idle.queue_requests,
        write_units=usage.write_units - times * idle.write_units,
        read_units=usage.read_units - times * idle.read_units,
    )


if __name__ == "__main__":
    from aws_harness import account
    from aws_prices import dollars, total

    with account():
        waiting = count_waiting(Harness("bus"))
    for title, usage in (
        ("once", waiting.once),
        ("a day", waiting.a_day),
        *((f"{days} days", waiting.of(days)) for days in (1, 3, 7, 30)),
    ):
        print(f"{title:8} ${total(usage):.3f} a million", {k: round(v, 3) for k, v in dollars(usage).items() if v})
