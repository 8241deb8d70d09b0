"""Counts what waiting costs on AWS: the work of `tick` for runs that wait for days, beyond that of an idle environment.

The work is counted, not modelled, except that minutes without changes are extrapolated: a round of the sweeper takes
eight minutes, so a day has 180 rounds.
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

ROUND_MIN = 8  # minutes in which every shard is swept once
ROUNDS_A_DAY = 180
_BEGUN_MIN = 48  # after these minutes, the sweeper leaves a run to the timer


@dataclass(frozen=True, slots=True)
class Waiting:
    """The usage of one waiting run.

    `once`: independent of the length of the wait: the sweeper's checks of a young run, and the watch of the run when
    the wait ends. `a_day`: per day of waiting.
    """

    once: Usage
    a_day: Usage

    def of(self, days: float) -> Usage:
        total = Usage()
        total += self.once
        for name in ("write_units", "read_units", "queue_requests"):
            setattr(total, name, getattr(total, name) + days * getattr(self.a_day, name))
        return total


def count_waiting(harness: Harness, runs: int = 24) -> Waiting:
    """Lets runs wait for three days. The harness's account must be empty. Moves its clock."""
    harness.counting = False  # requests are not delayed: only units are counted
    batches = harness.batches
    with time_machine.travel(datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC), tick=False) as clock:
        batches.answer = lambda ctx: {}
        harness.deploy({"a": handler_step(), "b": handler_step({"step": "a", "wait": "3d"})})
        idle = _ticks(harness, clock, ROUND_MIN)  # includes items that are written once in an environment
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
    """The usage when the waits end: watches that are written, and the checks that follow.

    The timer itself is not included: it is billed for waits of any length.
    """
    written = Usage()
    minutes = 0
    while len(harness.batches.invoked) < 2 * runs:
        harness.batches.scheduler.tick()
        clock.shift(60)
        minutes += 1
        assert minutes < 600, "the waits have not ended"
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
    of_runs = sum(call.write_units for call in meter.calls if call.key != "META")  # without the sweeper's own progress
    return Usage(queue_requests=meter.count("sqs"), write_units=of_runs, read_units=meter.read_units)


def _less(usage: Usage, idle: Usage, times: float) -> Usage:
    """The usage beyond that of an environment without waiting runs."""
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
