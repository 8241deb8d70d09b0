"""The parts that are counted on AWS: runs of several sizes, waiting runs, full tables, and an idle account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import time_machine
from aws_harness import Harness, account
from aws_stories import ROUNDS, Counts, Story, Teller, chain, deployed, fan, measure
from aws_waiting import count_waiting

from stepwell.testing.batches import Json, handler_step

PAYLOADS = {"0.2 KB": 0, "1.5 KB": 1350, "4 KB": 3900}  # bytes added to the small event and to each output
WAITS = {"an hour": "1h", "three days": "3d", "thirty days": "30d"}


def workloads() -> Counts:
    """Counts each workload with batches of ten and of one event, and what a run leaves in the table."""
    found: Counts = {}
    for name, steps, extra, ingest in (
        ("nothing", 1, 0, "bus"),
        ("one step", 1, 0, "bus"),
        *((size if extra else "three steps", 3, extra, "bus") for size, extra in PAYLOADS.items()),
        ("direct", 3, 0, "direct"),
        ("ten steps", 10, 0, "bus"),
    ):
        for batch in (10, 1):
            with deployed(chain(steps), ingest) as harness:
                before = harness.stored()
                story = measure(harness, batch, "nobody/cares" if name == "nothing" else "go", ROUNDS, extra)
                events = batch * (ROUNDS + 2)
                stored = (harness.stored() - before) / events
            found[f"{name}, batch {batch}"] = {**story.counts(), "stored_bytes": round(stored)}
    return found


def paths() -> Counts:
    """Counts sequential requests: from an event to the first step, and from an outcome to the next step."""
    with deployed(chain(3)) as harness:
        story = measure(harness, 1)
    return {
        "to_first_step": story.of("route")[0].meter.sequential("Invoke"),
        "to_next_step": story.of("advance")[0].meter.sequential("Invoke"),
    }


def growth() -> Counts:
    """Counts how a run's cost grows with the number of steps, in sequence and in parallel."""
    found: Counts = {"sequence": {}, "parallel": {}}
    with account():
        harness = Harness("bus")
        for steps in (1, 2, 3, 5, 10, 20):
            harness.deploy(chain(steps))
            found["sequence"][str(steps)] = measure(harness, 10).counts()
    for steps in (10, 100, 999):
        with deployed(fan(steps)) as harness:
            teller = Teller(harness, 10)
            teller.tell(teller.new_events()[:1])
            story = teller.tell(teller.new_events()[:1])
            writes = sum(invocation.meter.writes_of("R#", "r") for _, invocation in story.invocations)
        found["parallel"][str(steps)] = {**story.counts(), "writes_of_run": writes}
    return found


def flat() -> Counts:
    """Counts read and write units of an event in an empty account and in a full one."""
    found: Counts = {}
    awaited = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1d"}
    with account():
        harness = Harness("bus")
        harness.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": awaited})}, "order", "waits")
        harness.deploy(chain(1))
        for title in ("nothing else", "1,000 functions", "1,000 functions and 10,000 open waits"):
            if title == "1,000 functions":
                harness.fill_functions(998)
            elif title != "nothing else":
                harness.fill_waits("paid", 10_000)
            found[title] = {name: measure(harness, 10, name).counts() for name in ("go", "paid")}
    return found


def waiting() -> Counts:
    """Counts runs of two steps with a wait between them: for a duration, or for an event."""
    found: Counts = {}
    for title, wait in WAITS.items():
        with deployed(_two_steps({"wait": wait})) as harness, _clock() as clock:
            teller = Teller(harness, 10)
            _after_a_wait(harness, teller, clock, wait)
            found[title] = _after_a_wait(harness, teller, clock, wait).counts()
    awaited = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "3d"}
    with deployed(_two_steps({"async": awaited})) as harness:
        teller = Teller(harness, 10)
        _with_answers(teller)
        found["an event"] = _with_answers(teller).counts()
    return found


def _two_steps(edge: Json) -> Json:
    return {"a": handler_step(), "b": handler_step({"step": "a", **edge})}


def _after_a_wait(harness: Harness, teller: Teller, clock: Any, wait: str) -> Story:
    """`tick` takes timers some minutes before they are due. Its work without timers is not counted."""
    length = timedelta(**{{"h": "hours", "d": "days"}[wait[-1]]: int(wait[:-1])})
    story = teller.tell(teller.new_events())
    clock.shift(length - timedelta(minutes=9))
    tick = harness.invoke("tick", {})
    idle = harness.invoke("tick", {})
    tick.meter.calls = [call for call in tick.meter.calls if call.operation != "Query"]
    tick.log_bytes -= idle.log_bytes
    story.invocations.append(("tick", tick))
    clock.shift(timedelta(minutes=9, seconds=5))
    messages = list(harness.timers)
    assert len(messages) == story.events, "each run has one timer"
    teller.deliver(story, "advance", messages)
    teller.finish_steps(story)
    return story


def _with_answers(teller: Teller) -> Story:
    """Counts runs and the events that they wait for."""
    events = teller.new_events()
    story = teller.tell(events)
    paid = [{**event, "name": "paid"} for event in events]
    answers = teller.tell(paid)
    story.invocations += answers.invocations
    story.by_service += answers.by_service
    story.steps += answers.steps
    for name, sizes in answers.queues.items():
        story.queues[name] += sizes
    return story


def watching() -> Counts:
    """Counts the sweeper's checks of waiting runs: per run, and per day of waiting."""
    with account():
        waiting = count_waiting(Harness("bus"))
    return {"once": asdict(waiting.once), "a_day": asdict(waiting.a_day)}


@contextmanager
def _clock() -> Iterator[Any]:
    with time_machine.travel(datetime(2026, 6, 1, 10, tzinfo=UTC), tick=True) as clock:
        yield clock


def idle_tick() -> Counts:
    with deployed(chain(1)) as harness:
        harness.invoke("tick", {})
        harness.counting = False
        cpu_ms = min(harness.invoke("tick", {}).cpu_ms for _ in range(ROUNDS))
        harness.counting = True
        story = Story(1)
        story.invocations.append(("tick", harness.invoke("tick", {})))
        story.invocations[0][1].cpu_ms = cpu_ms
    return story.counts()["handlers"]["tick"]  # type: ignore[no-any-return]


ALL: dict[str, Callable[[], Counts]] = {
    "workloads": workloads,
    "paths": paths,
    "growth": growth,
    "flat": flat,
    "waiting": waiting,
    "watching": watching,
    "tick": idle_tick,
}
