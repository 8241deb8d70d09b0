"""What is counted (`aws_counts`) as what is billed: with the requests that Lambda and EventBridge make, the logs that
they write, and the batches that Lambda hands over at some traffic.

Nothing is measured here, so that the same counts always make the same bill.
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
VCPU_MB = (
    1769  # of a Lambda with one whole vCPU (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html)
)
CALL_MS = 5  # that a request to AWS is assumed to take
LINE_LOG = 26  # bytes that CloudWatch Logs adds to a line
ACCESS_LOG = 220 + LINE_LOG  # of an HTTP API's access log line, as infra/ingest.py has it
_ID = "01234567-89ab-cdef-0123-456789abcdef"
SYSTEM_LINES = (
    f"START RequestId: {_ID} Version: $LATEST\n",
    f"END RequestId: {_ID}\n",
    f"REPORT RequestId: {_ID}\tDuration: 31.41 ms\tBilled Duration: 32 ms\tMemory Size: 1024 MB\t"
    "Max Memory Used: 112 MB\t\n",
)
"""What Lambda logs of each invocation, in the form that its developer guide shows."""
SYSTEM_LOG = sum(len(line) + LINE_LOG for line in SYSTEM_LINES)
COMPRESSED = 0.15  # of a log's bytes that are kept: assumed
QUEUES = {"events": "route", "outcomes": "advance"}
MEMORY_MB = {"ingest": 512, "api": 1024, "route": 1024, "advance": 1024, "tick": 1024}


@dataclass(frozen=True, slots=True)
class Environment:
    """What stands in an account, by `aws_standing`, and the memory of its Lambdas."""

    counted: Counts
    memory_mb: Mapping[str, int] = field(default_factory=lambda: MEMORY_MB)

    def system_log(self, handler: str) -> int:
        """Bytes that Lambda itself logs of an invocation."""
        return SYSTEM_LOG if handler in self.counted["system_logs"] else 0

    @property
    def pollers(self) -> int:
        """Of all queues together, while nothing comes: Lambda goes down to two where there is no maximum."""
        with_maximum: int = self.counted["mappings_with_maximum"]
        mappings: int = self.counted["mappings"]
        return POLLERS * with_maximum + 2 * (mappings - with_maximum)


# --- a run -----------------------------------------------------------------------------------------------------------


def billed_ms(handler: str, counted: Counts, env: Environment) -> float:
    """How long an invocation takes: the CPU time at the share of a processor that its memory buys, and its requests."""
    share = max(1.0, VCPU_MB / env.memory_mb[handler])
    return float(counted["cpu_ms"] * share + CALL_MS * counted["sequential"])


def handler_usage(handler: str, counted: Counts, env: Environment) -> Usage:
    """Of all a handler's invocations for an event, with what Lambda logs of them."""
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
    """What Lambda's pollers ask of a queue for an event: to receive and to delete. `receives`: for each message, where
    it is not one for a batch."""
    each = 1 / batch if receives is None else receives
    size_of_answer = queue["bytes"] / each
    return Usage(queue_requests=queue["messages"] * (each * math.ceil(max(1, size_of_answer) / CHUNK) + 1 / batch))


def besides(counted: Counts) -> Usage:
    """What is billed of an event and no handler asks for: the HTTP API, and messages that AWS services send."""
    requests = counted["handlers"]["ingest"]["invocations"]
    return Usage(
        http_requests=requests,
        queue_requests=counted["sent_by_services"],
        log_bytes=requests * ACCESS_LOG,
        out_bytes=counted["out_bytes"],
    )


def usage(counted: Counts, batch: float, env: Environment) -> Usage:
    """Of an event and its run, as they were counted with messages that came in batches of this size."""
    whole = besides(counted)
    for handler, counts in counted["handlers"].items():
        whole += handler_usage(handler, counts, env)
    for queue in counted["queues"].values():
        whole += polled(queue, batch)
    return whole


# --- traffic ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Traffic:
    """What Lambda hands over at some rate, and what a run costs then. `empty`: receives a month that find nothing."""

    events: Handed
    outcomes: Handed
    usage: Usage
    empty: float


def traffic(single: Counts, full: Counts, rate: float, env: Environment, window_s: float, most: bool) -> Traffic:
    """Of runs counted with batches of one and of ten, when so many events come a second. `most`: with as many pollers
    as the mapping may have, else with as few as keep up."""
    handed = {}
    whole = besides(full) + _in_batches("ingest", single, full, 10, env)
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
    """A handler's usage between what was counted for batches of one and of ten: what a batch costs once is shared."""
    of_ten = handler_usage(handler, full["handlers"][handler], env)
    of_one = handler_usage(handler, single["handlers"][handler], env)
    return of_ten + (of_one - of_ten) * ((1 / batch - 0.1) / 0.9)


# --- what stays ------------------------------------------------------------------------------------------------------


def storage(stored_bytes: float, env: Environment) -> float:
    """Dollars a month for a million of things that leave so much in the table."""
    price = TABLE_GB.dollars + RESTORE_GB.dollars * bool(env.counted["tables_with_recovery"])
    return stored_bytes * MILLION / GIB * price


def kept_logs(log_bytes: float) -> float:
    """Dollars a month for a million of things that log so much, kept for a month."""
    return log_bytes * COMPRESSED * MILLION / GIB * LOG_KEPT_GB.dollars


def idle(env: Environment, tick: Counts) -> dict[str, float]:
    """Dollars a month while nothing happens, by what they are for."""
    minutes = MONTH_S / 60 / MILLION
    of_tick = handler_usage("tick", tick, env)
    return {
        "alarms": env.counted["alarms"] * ALARM.dollars,
        "dashboard": env.counted["dashboards"] * DASHBOARD.dollars,
        "receives that find nothing": env.pollers * MONTH_S / 20 / MILLION * QUEUE_REQUEST.dollars,
        "`tick`, every minute": total(of_tick) * minutes,
    }


def metrics(env: Environment) -> float:
    """Dollars a month for all custom metrics, if something is sent of each in every hour."""
    return float(env.counted["metrics"] * METRIC.dollars)


def looked_after(watching: Counts, days: float) -> float:
    """Dollars for a million runs that wait so long, for looking whether something of them is late. What is written for
    it when the wait is over belongs to the run, and is counted there."""
    once = Usage(**{**watching["once"], "write_units": 0})
    return total(once) + days * total(Usage(**watching["a_day"]))
