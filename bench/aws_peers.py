"""The price of the same work with other products: their prices, each with the page, and the formulas.

Where a vendor publishes no number, an assumption is used, and listed in `ASSUMED`. The compute of steps is left out for
all products, including Stepwell. `BESIDES` lists the servers that a product needs in addition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aws_prices import BUS_EVENT, GIB, HTTP_REQUEST, LAMBDA_REQUEST, MILLION, PAGE, Price

TRANSITION = Price(25.0, "million state transitions", "https://aws.amazon.com/step-functions/pricing/", PAGE)
EXPRESS_REQUEST = Price(1.0, "million Express requests", "https://aws.amazon.com/step-functions/pricing/")
EXPRESS_GB_S = Price(16.67, "million GB-s of Express, first 1,000 GB-hours", "https://aws.amazon.com/step-functions/pricing/")  # fmt: skip  # noqa: E501
DURABLE_OPERATION = Price(8.0, "million durable operations", "https://aws.amazon.com/lambda/pricing/")
DURABLE_WRITTEN = Price(0.25, "GB written", "https://aws.amazon.com/lambda/pricing/")
DURABLE_KEPT = Price(0.15, "GB and month", "https://aws.amazon.com/lambda/pricing/")
INNGEST_PLAN = Price(99.0, "month (Pro), a million executions included", "https://www.inngest.com/pricing")
INNGEST_EXECUTION = Price(50.0, "million executions", "https://www.inngest.com/pricing")
INNGEST_EVENT = Price(0.50, "million events beyond five", "https://www.inngest.com/pricing")
TEMPORAL_ACTION = Price(50.0, "million actions, the first five", "https://docs.temporal.io/cloud/pricing", PAGE)
TEMPORAL_ACTIVE = Price(0.042, "GB and hour, of open workflows", "https://docs.temporal.io/cloud/pricing", PAGE)
TEMPORAL_KEPT = Price(0.00105, "GB and hour, of ended workflows", "https://docs.temporal.io/cloud/pricing", PAGE)
TEMPORAL_PLAN = Price(500.0, "month (Business), or 10%; 2.5 million actions in it", "https://docs.temporal.io/cloud/pricing", PAGE)  # fmt: skip  # noqa: E501
RESTATE_PLAN = Price(75.0, "month (Starter), five million actions included", "https://restate.dev/pricing")
RESTATE_ACTION = Price(25.0, "million actions", "https://restate.dev/pricing")
TEMPORAL_TIERS = ((5, 50.0), (5, 45.0), (10, 40.0), (30, 35.0), (50, 30.0), (math.inf, 25.0))
RESTATE_TIERS = ((95, 25.0), (math.inf, 10.0))
"""Millions of actions beyond those of the plan, and dollars per million. After the last tier, prices are on request."""

PRICES = {
    "Step Functions Standard": (TRANSITION,),
    "Step Functions Express": (EXPRESS_REQUEST, EXPRESS_GB_S),
    "Lambda durable functions": (DURABLE_OPERATION, DURABLE_WRITTEN, DURABLE_KEPT),
    "Inngest": (INNGEST_PLAN, INNGEST_EXECUTION, INNGEST_EVENT),
    "Temporal Cloud": (TEMPORAL_ACTION, TEMPORAL_ACTIVE, TEMPORAL_KEPT, TEMPORAL_PLAN),
    "Restate Cloud": (RESTATE_PLAN, RESTATE_ACTION),
}
ASSUMED = {
    "Step Functions Standard": "a state for each step and wait, and one transition for the start; an HTTP API"
    " and a bus in front ($2)",
    "Step Functions Express": "runs of one second with 64 MB, without logs; an HTTP API and a bus in front ($2)",
    "Lambda durable functions": "an operation for the start, each step and each wait; outputs are written once and"
    " stored for 14 days; an HTTP API and a bus in front ($2)",
    "Inngest": "an execution for the run, each step and each wait; an event for each run; the price beyond the plan's"
    " quota",
    "Temporal Cloud": "an action for the start, each activity and each timer; 1 KB of history for each, and twice the"
    " payloads; stored for 30 days; the Developer plan adds 10%",
    "Restate Cloud": "two actions for a call, one for each step and wait, per started 64 KB",
}
BESIDES = {
    "Inngest": "your endpoint that runs the steps",
    "Temporal Cloud": "your workers, always on",
    "Restate Cloud": "your endpoint that runs the steps",
}
FREE = {"Inngest": 50_000, "Restate Cloud": 100_000}
"""Executions or actions per month in the free plans."""


@dataclass(frozen=True, slots=True)
class Work:
    """A run. `kb`: the size of the event and of each output."""

    steps: int
    kb: float = 0.2
    wait_days: float = 0

    @property
    def waits(self) -> int:
        return int(self.wait_days > 0)


_INGEST = HTTP_REQUEST.dollars + BUS_EVENT.dollars
_HOURS = 744  # hours in a month, as Temporal counts


def standard(work: Work) -> float:
    """Dollars per million runs, like all functions that follow."""
    return TRANSITION.dollars * (work.steps + work.waits + 1) + _INGEST


def express(work: Work, seconds: float = 1) -> float | None:
    if work.wait_days or work.steps > 100:  # an express workflow ends after five minutes at the latest
        return None
    return EXPRESS_REQUEST.dollars + EXPRESS_GB_S.dollars * seconds * 64 / 1024 + _INGEST


def durable(work: Work) -> float:
    gigabytes = work.kb * 1024 * (1 + work.steps) * MILLION / GIB
    kept_months = (14 + work.wait_days) / 30
    data = gigabytes * (DURABLE_WRITTEN.dollars + DURABLE_KEPT.dollars * kept_months)
    operations = DURABLE_OPERATION.dollars * (1 + work.steps + work.waits)
    return operations + data + LAMBDA_REQUEST.dollars * (1 + work.waits) + _INGEST


def inngest(work: Work) -> float:
    return INNGEST_EXECUTION.dollars * _executions(work) + INNGEST_EVENT.dollars


def _executions(work: Work) -> int:
    return 1 + work.steps + work.waits


def temporal(work: Work) -> float:
    return 1.1 * (TEMPORAL_ACTION.dollars * _executions(work) + _temporal_storage(work))


def _temporal_storage(work: Work) -> float:
    gigabytes = (_executions(work) * 1024 + 2 * work.kb * 1024 * (1 + work.steps)) * MILLION / GIB
    return gigabytes * (TEMPORAL_ACTIVE.dollars * 24 * work.wait_days + TEMPORAL_KEPT.dollars * _HOURS)


def restate(work: Work) -> float:
    return RESTATE_ACTION.dollars * (2 + work.steps + work.waits)


PEERS: dict[str, Callable[[Work], float | None]] = {
    "Step Functions Standard": standard,
    "Step Functions Express": express,
    "Lambda durable functions": durable,
    "Inngest": inngest,
    "Temporal Cloud": temporal,
    "Restate Cloud": restate,
}


def month(peer: str, work: Work, runs: float) -> float | None:
    """Dollars for this many runs per month with the cheapest plan. Only the first tiers are known."""
    millions = runs / MILLION
    if peer == "Inngest":
        executions = millions * _executions(work)
        if executions * MILLION <= FREE[peer]:
            return 0
        more = INNGEST_EXECUTION.dollars * max(0, executions - 1) + INNGEST_EVENT.dollars * max(0, millions - 5)
        return INNGEST_PLAN.dollars + more
    if peer == "Restate Cloud":
        actions = millions * (2 + work.steps + work.waits)
        if actions * MILLION <= FREE[peer]:
            return 0
        return RESTATE_PLAN.dollars + _in_tiers(max(0, actions - 5), RESTATE_TIERS)
    if peer == "Temporal Cloud":
        storage = _temporal_storage(work) * millions
        spent = _in_tiers(max(0, millions * _executions(work) - 2.5), TEMPORAL_TIERS) + storage
        return min(temporal(work) * millions, spent + max(TEMPORAL_PLAN.dollars, 0.1 * spent))
    price = PEERS[peer](work)
    return None if price is None else price * millions


def _in_tiers(millions: float, tiers: Iterable[tuple[float, float]]) -> float:
    cost = 0.0
    for most, price in tiers:
        cost += min(millions, most) * price
        millions = max(0, millions - most)
    return cost
