"""Decides whether a guarded canary is worse than the live version: the weight is raised, or it is rolled back. Pure.

The guard compares the runs that both versions have started since the canary began, if they have ended. Two one-sided
tests check whether the canary is worse:

- failures: Fisher's exact test (the hypergeometric tail). R. A. Fisher, Statistical Methods for Research Workers, 1934.
- durations of completed runs: the Mann-Whitney U test, by the normal approximation with corrections for ties and
  continuity. H. B. Mann, D. R. Whitney, Ann. Math. Statist. 18 (1947). The durations of the live version are multiplied
  by `MARGIN` and increased by `MARGIN_MS`, so that a difference too small to matter is no reason for a rollback.

Frequent tests find differences at random. So the k-th look may use `ALPHA / (k (k + 1))` of the allowed error, half of
it for each test. Over all looks this adds up to `ALPHA`: the maximum probability that a canary which is not worse is
rolled back. The decision depends only on the runs and the routing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, erfc, exp, lgamma, sqrt

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.events import Event, internal_event
from stepwell.core.routing.versions import Routing, promoted
from stepwell.core.run.run import RunStatus

ROLLED_BACK = "stepwell/function.rolled_back"
ALPHA = 0.05
STEPS = (0.1, 0.25, 0.5, 1.0)  # weights; 1 is a promotion
STEP_MS = 600_000  # the minimum time at each weight
ENOUGH = 20  # the minimum number of ended canary runs at each weight
FEWEST = 10  # the minimum number of runs of each version for a comparison
DOUBT = 0.1  # below this p-value, the canary may be worse, and the weight is not raised
MARGIN, MARGIN_MS = 1.25, 50


@dataclass(frozen=True, slots=True)
class RunSample:
    """The parts of a run that the guard compares. Times are ms since the epoch."""

    version: int
    status: RunStatus
    created_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The result of a comparison. Each pair is (canary, live): numbers of runs and failures, and median durations."""

    runs: tuple[int, int]
    failed: tuple[int, int]
    median_ms: tuple[int | None, int | None]
    p_failures: float
    p_durations: float

    @property
    def least_p(self) -> float:
        return min(self.p_failures, self.p_durations)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision of the guard. `routing`: the new routing. `reason`: why the canary was rolled back, or None."""

    routing: Routing
    reason: str | None = None
    evidence: Evidence | None = None


def judge(routing: Routing, samples: Sequence[RunSample], now: int) -> Verdict:
    """The routing after judging the canary. Without a guarded canary, nothing changes.

    A rollback is possible only if there are enough new runs. Only such a comparison counts as a look.
    """
    canary = routing.canary
    if canary is None or canary.guard is None or routing.live is None:
        return Verdict(routing)
    guard = canary.guard
    ended = [sample for sample in samples if sample.created_at >= guard.began_at and sample.ended_at is not None]
    ended = [run_sample for run_sample in ended if run_sample.status is not RunStatus.CANCELLED]
    canary_runs = [run for run in ended if run.version == canary.version]
    live_runs = [run for run in ended if run.version == routing.live]
    if min(len(canary_runs), len(live_runs)) < FEWEST:
        return Verdict(routing)
    evidence = compare(canary_runs, live_runs)
    if sum((run.ended_at or 0) > guard.looked_at for run in canary_runs) >= max(5, len(canary_runs) // 10):
        looks = guard.looks + 1
        allowed = ALPHA / 2 / (looks * (looks + 1))
        if evidence.least_p < allowed:
            return Verdict(replace(routing, canary=None), _reason(evidence, allowed), evidence)
        looked_at = max(run.ended_at or 0 for run in canary_runs)
        canary = replace(canary, guard=replace(guard, looks=looks, looked_at=looked_at))
    routing = replace(routing, canary=canary)
    at_this_weight = sum(run.created_at >= canary.since for run in canary_runs)
    if at_this_weight >= ENOUGH and now - canary.since >= STEP_MS and evidence.least_p >= DOUBT:
        routing = promoted(routing, next((step for step in STEPS if step > canary.weight), 1.0), now)
    return Verdict(routing, evidence=evidence)


def rollback_event(function_id: str, before: Routing, verdict: Verdict, now: int) -> Event | None:
    """The event `stepwell/function.rolled_back`; None if nothing was rolled back."""
    canary, evidence = before.canary, verdict.evidence
    if verdict.reason is None or canary is None or evidence is None:
        return None
    data = {
        "function_id": function_id,
        "version": canary.version,
        "to": verdict.routing.live,
        "reason": verdict.reason,
        "weight": canary.weight,
        "canary": _numbers(evidence, 0),
        "live": _numbers(evidence, 1),
        "p_failures": evidence.p_failures,
        "p_durations": evidence.p_durations,
    }
    began_at = canary.guard.began_at if canary.guard else now
    return internal_event(ROLLED_BACK, data, {}, f"{EngineId.ROLLBACK}{function_id}:{canary.version}:{began_at}", now)


def _numbers(evidence: Evidence, side: int) -> dict[str, int | None]:
    return {"runs": evidence.runs[side], "failed": evidence.failed[side], "median_ms": evidence.median_ms[side]}


def compare(canary_runs: Sequence[RunSample], live_runs: Sequence[RunSample]) -> Evidence:
    """Compares the ended runs of the canary with those of the live version."""
    failed = tuple(sum(run.status is RunStatus.FAILED for run in runs) for runs in (canary_runs, live_runs))
    canary_durations, live_durations = _durations(canary_runs), _durations(live_runs)
    longer = [ms * MARGIN + MARGIN_MS for ms in live_durations]
    enough = min(len(canary_durations), len(live_durations)) >= FEWEST
    return Evidence(
        (len(canary_runs), len(live_runs)),
        (failed[0], failed[1]),
        (percentile(canary_durations, 0.5), percentile(live_durations, 0.5)),
        fisher_greater(failed[0], len(canary_runs), failed[1], len(live_runs)),
        mann_whitney_greater(canary_durations, longer) if enough else 1.0,
    )


def percentile(sorted_values: Sequence[int], part: float) -> int | None:
    """The nearest-rank percentile of sorted values; None if there are no values."""
    return sorted_values[max(0, ceil(part * len(sorted_values)) - 1)] if sorted_values else None


def fisher_greater(failed: int, count: int, other_failed: int, other_count: int) -> float:
    """The probability of at least `failed` failures in the first group, if both groups fail equally often."""
    total, all_failed = count + other_count, failed + other_failed
    most = min(count, all_failed)
    whole = _log_choose(total, count)
    terms = (_log_choose(all_failed, k) + _log_choose(total - all_failed, count - k) for k in range(failed, most + 1))
    return min(1.0, sum(exp(term - whole) for term in terms))


def mann_whitney_greater(first: Sequence[float], second: Sequence[float]) -> float:
    """The probability that the first values are at least this much greater, if both have the same distribution."""
    n, m = len(first), len(second)
    total = n + m
    both = sorted([*first, *second])
    counts = Counter(both)
    ranks = {value: bisect_left(both, value) + (count + 1) / 2 for value, count in counts.items()}
    u = sum(ranks[value] for value in first) - n * (n + 1) / 2
    ties = sum(count**3 - count for count in counts.values())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    return erfc((u - n * m / 2 - 0.5) / sqrt(2 * variance)) / 2


def _durations(runs: Sequence[RunSample]) -> list[int]:
    return sorted(
        run.ended_at - run.created_at for run in runs if run.status is RunStatus.COMPLETED and run.ended_at is not None
    )


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return float("-inf")
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _reason(evidence: Evidence, allowed: float) -> str:
    (runs, other_runs), (failed, other_failed) = evidence.runs, evidence.failed
    if evidence.p_failures < allowed:
        return (
            f"{failed} of {runs} runs of the canary failed ({failed / runs:.0%}), and {other_failed} of {other_runs}"
            f" of the live version ({other_failed / other_runs:.0%});"
            f" Fisher's exact test: p = {evidence.p_failures:.2g} < {allowed:.2g}"
        )
    return (
        f"runs of the canary took {evidence.median_ms[0]} ms (median of {runs - failed}), those of the live version"
        f" {evidence.median_ms[1]} ms (median of {other_runs - other_failed}); Mann-Whitney U test:"
        f" p = {evidence.p_durations:.2g} < {allowed:.2g}"
    )
