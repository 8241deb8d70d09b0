"""Turns counts (`aws_counts`) into billed usage, for some rate of events.

It adds what handlers do not request themselves: requests of Lambda and EventBridge, their logs, and the batches that
Lambda delivers. Nothing is measured here, so the same counts always give the same bill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from aws_pollers import POLLERS, Handed, fewest, hand_over
from aws_prices import (
    ALARM,
    DASHBOARD,
    GIB,
    LOG_KEPT_GB,
    METRIC,
    MILLION,
    MONTH_S,
    QUEUE_REQUEST,
    RESTORE_GB,
    TABLE_GB,
    Usage,
    total,
)

Counts = Mapping[str, Any]
CHUNK = 64 * 1024
VCPU_MB = 1769  # MB for one vCPU (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html)
CALL_MS = 5  # assumed duration of a request to AWS
LINE_LOG = 26  # bytes that CloudWatch Logs adds to a line
ACCESS_LOG = 220 + LINE_LOG  # bytes of a line of the HTTP API's access log; the format is in infra/ingest.py
_ID = "01234567-89ab-cdef-0123-456789abcdef"
SYSTEM_LINES = (
    f"START RequestId: {_ID} Version: $LATEST\n",
    f"END RequestId: {_ID}\n",
    f"REPORT RequestId: {_ID}\tDuration: 31.41 ms\tBilled Duration: 32 ms\tMemory Size: 1024 MB\t"
    "Max Memory Used: 112 MB\t\n",
)
"""What Lambda logs of each invocation, in the form that its developer guide shows."""
SYSTEM_LOG = sum(len(line) + LINE_LOG for line in SYSTEM_LINES)
COMPRESSED = 0.15  # assumed ratio of stored to ingested bytes of a log
QUEUES = {"events": "route", "outcomes": "advance"}
MEMORY_MB = {"ingest": 512, "api": 1024, "route": 1024, "advance": 1024, "tick": 1024}


@dataclass(frozen=True, slots=True)
class Environment:
    """The resources of an account, as `aws_standing` counts them, and the memory of the Lambdas."""

    counted: Counts
    memory_mb: Mapping[str, int] = field(default_factory=lambda: MEMORY_MB)

    def system_log(self, handler: str) -> int:
        """Bytes that Lambda itself logs for an invocation."""
        return SYSTEM_LOG if handler in self.counted["system_logs"] else 0

    @property
    def pollers(self) -> int:
        """The pollers of all queues while no messages come.

        Lambda keeps two for queues without a maximum concurrency.
        """
        with_maximum: int = self.counted["mappings_with_maximum"]
        mappings: int = self.counted["mappings"]
        return POLLERS * with_maximum + 2 * (mappings - with_maximum)


# --- a run -----------------------------------------------------------------------------------------------------------


def billed_ms(handler: str, counted: Counts, env: Environment) -> float:
    """The duration of an invocation: CPU time, scaled by the Lambda's share of a vCPU, plus the time of requests."""
    share = max(1.0, VCPU_MB / env.memory_mb[handler])
    return float(counted["cpu_ms"] * share + CALL_MS * counted["sequential"])


def handler_usage(handler: str, counted: Counts, env: Environment) -> Usage:
    """The usage of all invocations of a handler per event, including what Lambda logs."""
    invocations = counted["invocations"]
    return Usage(
        bus_events=counted["bus_events"],
        queue_requests=counted["queue_requests"],
        lambda_requests=invocations,
        lambda_gb_s=invocations * billed_ms(handler, counted, env) / 1000 * env.memory_mb[handler] / 1024,
        write_units=counted["write_units"],
        read_units=counted["read_units"],
        log_bytes=counted["log_bytes"] + invocations * env.system_log(handler),
    )


def polled(queue: Counts, batch: float, receives: float | None = None) -> Usage:
    """The pollers' requests to a queue per event: receives and deletes.

    `receives`: requests per message; None means one per batch.
    """
    each = 1 / batch if receives is None else receives
    size_of_answer = queue["bytes"] / each
    return Usage(queue_requests=queue["messages"] * (each * math.ceil(max(1, size_of_answer) / CHUNK) + 1 / batch))


def without_handlers(counted: Counts) -> Usage:
    """The usage per event that no handler causes: the HTTP API, and messages that AWS services send."""
    requests = counted["handlers"]["ingest"]["invocations"]
    return Usage(
        http_requests=requests,
        queue_requests=counted["sent_by_services"],
        log_bytes=requests * ACCESS_LOG,
        out_bytes=counted["out_bytes"],
    )


def usage(counted: Counts, batch: float, env: Environment) -> Usage:
    """The usage of an event and its run, counted with messages in batches of this size."""
    whole = without_handlers(counted)
    for handler, counts in counted["handlers"].items():
        whole += handler_usage(handler, counts, env)
    for queue in counted["queues"].values():
        whole += polled(queue, batch)
    return whole


# --- traffic ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Traffic:
    """The batches at some rate of events, and the cost of a run. `empty`: receives per month that return nothing."""

    events: Handed
    outcomes: Handed
    usage: Usage
    empty: float


def traffic(single: Counts, full: Counts, rate: float, env: Environment, window_s: float, most: bool) -> Traffic:
    """The traffic at `rate` events per second, between runs counted in batches of one (`single`) and of ten (`full`).

    `most`: assumes the maximum number of pollers, else the smallest number that keeps up.
    """
    handed = {}
    whole = without_handlers(full) + _in_batches("ingest", single, full, 10, env)
    for queue, handler in QUEUES.items():
        messages = rate * full["queues"][queue]["messages"]
        times = [billed_ms(handler, counts["handlers"][handler], env) for counts in (single, full)]
        handed[queue] = batches = _handed(messages, *times, window_s, _most(handler) if most else 0)
        whole += _in_batches(handler, single, full, batches.batch, env)
        whole += polled(full["queues"][queue], batches.batch, batches.receives)
    return Traffic(**handed, usage=whole, empty=sum(batches.empty_s for batches in handed.values()) * MONTH_S)


def _most(handler: str) -> int:
    return {"route": 20, "advance": 50}[handler]  # infra/settings.py: route_concurrency, advance_concurrency


@cache
def _handed(rate: float, single_ms: float, full_ms: float, window_s: float, pollers: int) -> Handed:
    seconds: Callable[[float], float] = lambda batch: (single_ms + (full_ms - single_ms) * (batch - 1) / 9) / 1000  # noqa: E731
    return hand_over(rate, seconds, pollers or fewest(rate, seconds, 50), window_s)


def _in_batches(handler: str, single: Counts, full: Counts, batch: float, env: Environment) -> Usage:
    """A handler's usage for a batch size between one and ten: the fixed costs of a batch are shared by the messages."""
    of_ten = handler_usage(handler, full["handlers"][handler], env)
    of_one = handler_usage(handler, single["handlers"][handler], env)
    return of_ten + (of_one - of_ten) * ((1 / batch - 0.1) / 0.9)


# --- storage ---------------------------------------------------------------------------------------------------------


def storage(stored_bytes: float, env: Environment) -> float:
    """Dollars per month for a million items that leave this many bytes in the table."""
    price = TABLE_GB.dollars + RESTORE_GB.dollars * bool(env.counted["tables_with_recovery"])
    return stored_bytes * MILLION / GIB * price


def kept_logs(log_bytes: float) -> float:
    """Dollars per month for a million items that log this many bytes, stored for a month."""
    return log_bytes * COMPRESSED * MILLION / GIB * LOG_KEPT_GB.dollars


def idle(env: Environment, tick: Counts) -> dict[str, float]:
    """Dollars per month while no events come, by service."""
    minutes = MONTH_S / 60 / MILLION
    of_tick = handler_usage("tick", tick, env)
    return {
        "alarms": env.counted["alarms"] * ALARM.dollars,
        "dashboard": env.counted["dashboards"] * DASHBOARD.dollars,
        "empty receives": env.pollers * MONTH_S / 20 / MILLION * QUEUE_REQUEST.dollars,
        "`tick`, every minute": total(of_tick) * minutes,
    }


def metrics(env: Environment) -> float:
    """Dollars per month for all custom metrics, if each has a value in every hour."""
    return float(env.counted["metrics"] * METRIC.dollars)


def looked_after(watching: Counts, days: float) -> float:
    """Dollars for the sweeper's checks of a million runs that wait for this many days.

    What is written for these checks when the wait ends is counted as part of the run.
    """
    once = Usage(**{**watching["once"], "write_units": 0})
    return total(once) + days * total(Usage(**watching["a_day"]))
