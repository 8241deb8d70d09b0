"""What runs cost on AWS: every request that the real handlers make is counted, and priced with what else is billed.

Nothing is deployed and nobody is charged: docs/cost.md says how the numbers come about, and has the results.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from aws_harness import ACCESS_LOG, LINE_LOG, Harness, Invocation, account, request
from aws_prices import LAMBDA_GB_S, LAMBDA_REQUEST, MILLION, QUEUE_REQUEST, READ_UNIT, Usage, dollars, total
from aws_report import AIMS, Results, in_docs, show
from rich.console import Console

from stepwell.testing.batches import Json, destination, handler_step, sqs_event

DOCS = Path(__file__).resolve().parent.parent / "docs" / "cost.md"
ROUNDS = 7  # of which the median is the CPU time
MONTH_MIN = 43_200
POLLERS = 5  # with which Lambda begins to poll a queue, 20 s at a time

_numbers = itertools.count()


@dataclass(slots=True)
class Story:
    """What a batch of events leads to, until nothing more does. `besides`: what is billed and no handler did."""

    events: int
    invocations: list[tuple[str, Invocation]] = field(default_factory=list)
    besides: Usage = field(default_factory=Usage)

    def usage(self) -> Usage:
        whole = Usage()
        whole += self.besides
        for handler, invocation in self.invocations:
            whole += invocation.usage(handler)
        return whole / self.events

    def of(self, handler: str) -> list[Invocation]:
        return [invocation for name, invocation in self.invocations if name == handler]

    def operations(self) -> Counter[str]:
        return sum((its.meter.operations() for _, its in self.invocations), Counter[str]())


def tell(harness: Harness, events: list[Json], batch: int) -> Story:
    """Send events, one a request, and deliver what follows from them in batches."""
    story = Story(len(events))
    harness.sent.clear()
    harness.batches.invoked.clear()
    for event in events:
        story.invocations.append(("ingest", harness.invoke("ingest", request(harness.key, event))))
        story.besides += Usage(http_requests=1, log_bytes=ACCESS_LOG + LINE_LOG)
    if harness.resources.ingest == "bus":
        story.besides += Usage(queue_requests=len(harness.sent))  # EventBridge sends each to the queue
    deliver(harness, story, "route", harness.sent, batch)
    while harness.batches.invoked:
        ended = [destination(payload, {"ok": payload["ctx"]["step_id"]}) for payload in harness.batches.invoked]
        harness.batches.invoked.clear()
        story.besides += Usage(queue_requests=len(ended))  # Lambda's destinations
        deliver(harness, story, "advance", ended, batch)
    return story


def deliver(harness: Harness, story: Story, handler: str, bodies: list[Json], batch: int) -> None:
    for first in range(0, len(bodies), batch):
        story.invocations.append((handler, harness.invoke(handler, sqs_event(bodies[first : first + batch]))))
        story.besides += Usage(queue_requests=2)  # Lambda's poller receives and deletes


def new_events(count: int, name: str = "go") -> list[Json]:
    """Events of a shop, each of another user."""
    numbers = itertools.islice(_numbers, count)
    return [{"name": name, "data": {"order": n, "amount": 1999}, "user": {"id": f"user-{n}"}} for n in numbers]


def measure(harness: Harness, events: int, batch: int, name: str = "go", rounds: int = ROUNDS) -> Story:
    """One story that is counted in a warm process, with the CPU times of others; with no rounds, of a cold one."""
    harness.counting = False
    cold = tell(harness, new_events(events, name), batch)
    timed = [tell(harness, new_events(events, name), batch) for _ in range(rounds)] or [cold]
    harness.counting = True
    story = tell(harness, new_events(events, name), batch)
    for i, (_, invocation) in enumerate(story.invocations):
        invocation.cpu_ms = statistics.median(one.invocations[i][1].cpu_ms for one in timed)
        invocation.engine_ms = statistics.median(one.invocations[i][1].engine_ms for one in timed)
    return story


def chain(count: int) -> Json:
    return {f"s{n}": handler_step(*([f"s{n - 1}"] if n else [])) for n in range(count)}


def fan(count: int) -> Json:
    parallel = {f"s{n}": handler_step() for n in range(count)}
    return {**parallel, "join": handler_step(*parallel, join="all")}


# --- what is measured ------------------------------------------------------------------------------------------------

WORKLOADS = {  # name: steps, events at a time, how ingest hands them on
    "an event that starts nothing": (0, 10, "bus"),
    "one step": (1, 10, "bus"),
    "one step, unbatched": (1, 1, "bus"),
    "three steps": (3, 10, "bus"),
    "three steps, unbatched": (3, 1, "bus"),
    "three steps, `ingest: direct`": (3, 10, "direct"),
    "three steps, `direct`, unbatched": (3, 1, "direct"),
}


def workloads() -> Results:
    found: Results = {}
    for name, (steps, batch, ingest) in WORKLOADS.items():
        with account():
            harness = Harness(ingest)
            harness.deploy(chain(max(1, steps)))
            story = measure(harness, batch, batch, "go" if steps else "nobody/cares")
        advances = story.of("advance")
        found[name] = {
            "usage": story.usage(),
            "to_first_step": story.of("route")[0].meter.sequential("Invoke"),
            "to_next_step": advances[0].meter.sequential("Invoke") if len(advances) > 1 else 0,
            "advance_engine_ms": max((its.engine_ms for its in advances), default=0),
            "cpu_ms": {handler: statistics.mean(i.cpu_ms for i in story.of(handler)) for handler in _handlers(story)},
            "operations": {op: count / story.events for op, count in sorted(story.operations().items())},
        }
    return found


def _handlers(story: Story) -> list[str]:
    return list(dict.fromkeys(handler for handler, _ in story.invocations))


def growth() -> Results:
    """How a run's cost grows with its steps: in sequence, and in parallel."""
    found: Results = {"sequence": {}, "parallel": {}}
    with account():
        harness = Harness("bus")
        for steps in (1, 2, 3, 5, 10, 20):
            harness.deploy(chain(steps))
            found["sequence"][steps] = measure(harness, 10, 10, rounds=0).usage()
    for steps in (10, 100, 999):
        with account():
            harness = Harness("bus")
            harness.deploy(fan(steps))
            story = measure(harness, 1, 10, rounds=0)
            writes = sum(its.meter.writes_of("R#", "r") for _, its in story.invocations)
            found["parallel"][steps] = {"usage": story.usage(), "writes_of_run": writes}
    return found


def flat() -> dict[str, dict[str, float]]:
    """Requests and capacity for an event, with nothing else there and with very much."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
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
            for name in ("go", "paid"):
                meter = measure(harness, 10, 10, name, rounds=0).usage()
                found[name][title] = total(Usage(write_units=meter.write_units, read_units=meter.read_units))
    return found


def idle() -> dict[str, float]:
    """Dollars a month while nothing happens."""
    with account():
        harness = Harness("bus")
        harness.deploy(chain(1))
        harness.invoke("tick", {})
        harness.counting = False
        cpu_ms = statistics.median(harness.invoke("tick", {}).cpu_ms for _ in range(ROUNDS))
        harness.counting = True
        tick = harness.invoke("tick", {})
        tick.cpu_ms = cpu_ms
        its = tick.usage("tick")
    empty = 2 * POLLERS * 3 * MONTH_MIN / MILLION * QUEUE_REQUEST
    lambdas = (its.lambda_requests * LAMBDA_REQUEST + its.lambda_gb_s * LAMBDA_GB_S) * MONTH_MIN / MILLION
    return {
        "empty receives of two queues": empty,
        "`tick`, Lambda": lambdas,
        "`tick`, reads": its.read_units * READ_UNIT * MONTH_MIN / MILLION,
    }


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    write_docs: Annotated[bool, typer.Option(help="Replace the tables in docs/cost.md.")] = False,
) -> None:
    """Count and price what runs cost on AWS."""
    console = Console(stderr=True)
    with console.status("counting requests"):
        results: Results = {"workloads": workloads(), "growth": growth(), "flat": flat(), "idle": idle()}
    if as_json:
        print(json.dumps(results, default=_plain, indent=2))
    else:
        show(results)
    if write_docs:
        DOCS.write_text(in_docs(DOCS.read_text(), results))
    missed = [text for text, holds in AIMS if not holds(results)]
    for text in missed:
        console.print(f"[red]missed: {text}")
    raise typer.Exit(1 if missed else 0)


def _plain(value: Any) -> Any:
    if isinstance(value, Usage):
        return {"dollars": total(value), "by_service": dollars(value)}
    raise TypeError(value)


if __name__ == "__main__":
    typer.run(main)
