"""Whether a canary is worse than the live version, by its runs: a guarded canary's weight is raised, or it is rolled
back. Pure.

Compared are the runs that both versions started since the canary began, and that have ended. Two one-sided tests ask
whether the canary is worse:

- failures: Fisher's exact test (the hypergeometric tail). R. A. Fisher, Statistical Methods for Research Workers, 1934.
- durations of completed runs: the Mann-Whitney U test, by its normal approximation with the correction for ties and
  for continuity. H. B. Mann, D. R. Whitney, Ann. Math. Statist. 18 (1947). The live version's durations are taken
  `MARGIN` times (and `MARGIN_MS`) as long, so that a difference that nobody feels is no reason.

Who looks often finds something by chance. So the k-th look spends `ALPHA / (k (k + 1))` of the error that is allowed,
half of it on each test: over all looks this adds up to `ALPHA`, the probability at the most that a canary which is not
worse is rolled back. One rule: what is decided follows from the runs and the routing alone.
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
STEP_MS = 600_000  # for which a weight is held at least
ENOUGH = 20  # runs of the canary that ended at a weight before it is raised
FEWEST = 10  # runs of each version before anything is said
DOUBT = 0.1  # below this, the canary may be worse, and is not raised
MARGIN, MARGIN_MS = 1.25, 50


@dataclass(frozen=True, slots=True)
class RunSample:
    """What is counted of a run. Times are ms since the epoch."""

    version: int
    status: RunStatus
    created_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a look found: of (canary, live) the runs, the failures and the median duration; and both p-values."""

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
    """`routing` is what becomes of the old one; `reason`: why it was rolled back, in words, if it was."""

    routing: Routing
    reason: str | None = None
    evidence: Evidence | None = None


def judge(routing: Routing, samples: Sequence[RunSample], now: int) -> Verdict:
    """The routing as it is to be now. It is a look, which may roll back, only if there are enough new runs; without a
    guarded canary nothing changes."""
    canary = routing.canary
    if canary is None or canary.guard is None or routing.live is None:
        return Verdict(routing)
    guard = canary.guard
    ended = [sample for sample in samples if sample.created_at >= guard.began_at and sample.ended_at is not None]
    ended = [run_sample for run_sample in ended if run_sample.status is not RunStatus.CANCELLED]
    items = [run for run in ended if run.version == canary.version]
    other = [run for run in ended if run.version == routing.live]
    if min(len(items), len(other)) < FEWEST:
        return Verdict(routing)
    evidence = compare(items, other)
    if sum((run.ended_at or 0) > guard.looked_at for run in items) >= max(5, len(items) // 10):
        looks = guard.looks + 1
        allowed = ALPHA / 2 / (looks * (looks + 1))
        if evidence.least_p < allowed:
            return Verdict(replace(routing, canary=None), _reason(evidence, allowed), evidence)
        looked_at = max(run.ended_at or 0 for run in items)
        canary = replace(canary, guard=replace(guard, looks=looks, looked_at=looked_at))
    routing = replace(routing, canary=canary)
    here = sum(run.created_at >= canary.since for run in items)
    if here >= ENOUGH and now - canary.since >= STEP_MS and evidence.least_p >= DOUBT:
        routing = promoted(routing, next((step for step in STEPS if step > canary.weight), 1.0), now)
    return Verdict(routing, evidence=evidence)


def rollback_event(function_id: str, before: Routing, verdict: Verdict, now: int) -> Event | None:
    """`stepwell/function.rolled_back`, which tells of it; None if nothing was rolled back."""
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


def compare(items: Sequence[RunSample], other: Sequence[RunSample]) -> Evidence:
    """The canary's ended runs with those of the live version."""
    failed = tuple(sum(run.status is RunStatus.FAILED for run in runs) for runs in (items, other))
    durations, others = _durations(items), _durations(other)
    longer = [ms * MARGIN + MARGIN_MS for ms in others]
    enough = min(len(durations), len(others)) >= FEWEST
    return Evidence(
        (len(items), len(other)),
        (failed[0], failed[1]),
        (percentile(durations, 0.5), percentile(others, 0.5)),
        fisher_greater(failed[0], len(items), failed[1], len(other)),
        mann_whitney_greater(durations, longer) if enough else 1.0,
    )


def percentile(sorted_values: Sequence[int], part: float) -> int | None:
    """The nearest-rank percentile of sorted values; None of none."""
    return sorted_values[max(0, ceil(part * len(sorted_values)) - 1)] if sorted_values else None


def fisher_greater(failed: int, count: int, other_failed: int, other_count: int) -> float:
    """How probable so many failures among the first are, or more, if both fail equally often."""
    total, all_failed = count + other_count, failed + other_failed
    most = min(count, all_failed)
    whole = _log_choose(total, count)
    terms = (_log_choose(all_failed, k) + _log_choose(total - all_failed, count - k) for k in range(failed, most + 1))
    return min(1.0, sum(exp(term - whole) for term in terms))


def mann_whitney_greater(first: Sequence[float], second: Sequence[float]) -> float:
    """How probable it is that the first are so much greater, or more, if both are distributed equally."""
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
            f"{failed} of {runs} runs failed ({failed / runs:.0%}), of the live version {other_failed} of {other_runs}"
            f" ({other_failed / other_runs:.0%}); Fisher's exact test: p = {evidence.p_failures:.2g} < {allowed:.2g}"
        )
    return (
        f"runs took {evidence.median_ms[0]} ms (median of {runs - failed}), of the live version"
        f" {evidence.median_ms[1]} ms (of {other_runs - other_failed}); Mann-Whitney U test:"
        f" p = {evidence.p_durations:.2g} < {allowed:.2g}"
    )
