"""Converts counts to dollars: per run, per month, for standing resources, and for storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aws_bill import Environment, Traffic, idle, kept_logs, looked_after, metrics, storage, traffic, usage
from aws_prices import MILLION, MONTH_S, QUEUE_REQUEST, Usage, total

Results = dict[str, Any]
Rows = list[list[str]]

RATES = {"10,000 runs": 10_000 / MONTH_S, "100,000 runs": 100_000 / MONTH_S, "1 event per second": 1.0}
RATES |= {"10 events per second": 10.0, "100 events per second": 100.0, "1,000 events per second": 1000.0}
PAYLOADS = {"0.2 KB": "three steps", "1.5 KB": "1.5 KB", "4 KB": "4 KB"}
WAITS = {"an hour": 1 / 24, "three days": 3.0, "thirty days": 30.0}


class Bill:
    """The costs of the counted results, in dollars."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.production, self.dev = (Environment(results["standing"][name]) for name in ("default", "profile=dev"))

    def run(self, name: str, batch: int, env: Environment | None = None) -> Usage:
        return usage(self.results["workloads"][f"{name}, batch {batch}"], batch, env or self.production)

    def at(self, rate: float, window_s: float = 0, *, most: bool = True, env: Environment | None = None) -> Traffic:
        """The traffic of runs of three steps."""
        single, full = (self.results["workloads"][f"three steps, batch {batch}"] for batch in (1, 10))
        return traffic(single, full, rate, env or self.production, window_s, most)

    def stored(self, name: str, batch: int) -> float:
        stored: float = self.results["workloads"][f"{name}, batch {batch}"]["stored_bytes"]
        return stored

    def idle(self, env: Environment) -> dict[str, float]:
        return idle(env, self.results["tick"])

    def looked_after(self, days: float) -> float:
        return looked_after(self.results["watching"], days)

    def month(self, rate: float, env: Environment) -> dict[str, float]:
        """Dollars per month at this many events per second, each of which starts a run of three steps."""
        millions = rate * MONTH_S / MILLION
        now = self.at(rate, env=env)
        empty = self.at(rate, env=env, most=False).empty
        standing = self.idle(env) | {"empty receives": empty / MILLION * QUEUE_REQUEST.dollars}
        kept = storage(self.stored("three steps", 1), env) + kept_logs(now.usage.log_bytes)
        return {
            "runs": total(now.usage) * millions,
            "kept": kept * millions,
            "standing": sum(standing.values()) + metrics(env),
        }


AIMS: tuple[tuple[str, Callable[[Bill], bool]], ...] = (
    (
        "three steps cost at most $12 per million runs in batches of ten",
        lambda b: total(b.run("three steps", 10)) <= 12,
    ),
    ("three steps cost at most $19 per million runs in batches of one", lambda b: total(b.run("three steps", 1)) <= 19),
    ("a million waiting runs cost at most $0.50 per day", lambda b: b.looked_after(1) - b.looked_after(0) <= 0.5),
    ("an environment with profile=dev costs at most $1 per month", lambda b: sum(b.idle(b.dev).values()) <= 1),
    (
        "an event that starts nothing costs at most $4.50 per million in batches of ten",
        lambda b: total(b.run("nothing", 10)) <= 4.5,
    ),
    (
        "at most three sequential requests between an outcome and the next step's start",
        lambda b: bool(b.results["paths"]["to_next_step"] <= 3),
    ),
    (
        "`advance` takes at most 3 ms of CPU for an outcome, without requests to AWS",
        lambda b: bool(b.results["workloads"]["three steps, batch 1"]["handlers"]["advance"]["engine_ms"] <= 3),
    ),
    (
        "1,000 parallel steps join with at most 100 writes of the run",
        lambda b: bool(b.results["growth"]["parallel"]["999"]["writes_of_run"] <= 100),
    ),
)
