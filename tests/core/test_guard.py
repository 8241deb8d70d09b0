"""Tests the guard of a canary: the statistics against scipy, the rate of errors, and the decisions."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stepwell.core.routing.guard import (
    ALPHA,
    DOUBT,
    ENOUGH,
    FEWEST,
    STEP_MS,
    RunSample,
    Verdict,
    compare,
    fisher_greater,
    judge,
    mann_whitney_greater,
    percentile,
)
from stepwell.core.routing.versions import Canary, Guard, Routing, State
from stepwell.core.run.run import RunStatus

BEGAN = 1_000_000
CANARY = Canary(2, 0.1, "user.id", BEGAN, Guard(BEGAN))
ROUTING = Routing(1, CANARY)
LATER = BEGAN + STEP_MS


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400), st.integers(0, 400))
def test_failures_are_compared_with_fishers_exact_test(
    failed: int, passed: int, other_failed: int, other_passed: int
) -> None:
    assume(failed + passed and other_failed + other_passed)
    from scipy.stats import fisher_exact  # imported here, because it takes seconds and each worker collects this module

    expected = fisher_exact([[failed, passed], [other_failed, other_passed]], alternative="greater").pvalue
    found = fisher_greater(failed, failed + passed, other_failed, other_failed + other_passed)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


TIMES = st.lists(st.integers(0, 40), min_size=10, max_size=60)


@settings(deadline=None, max_examples=200)
@given(TIMES, TIMES)
def test_durations_are_compared_with_the_mann_whitney_test(first: list[int], second: list[int]) -> None:
    assume(len({*first, *second}) > 1)
    from scipy.stats import mannwhitneyu

    expected = mannwhitneyu(first, second, alternative="greater", method="asymptotic").pvalue
    assert mann_whitney_greater(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_equal_durations_are_no_evidence() -> None:
    assert mann_whitney_greater([5] * 20, [5] * 20) == 1.0


def test_percentiles_are_among_the_values() -> None:
    assert [percentile(range(1, 101), part) for part in (0.5, 0.95, 1.0)] == [50, 95, 100]
    assert percentile([7], 0.5) == 7
    assert percentile([], 0.5) is None


def runs(version: int, count: int, failed: int = 0, ms: int = 100, at: int = BEGAN) -> list[RunSample]:
    """Samples of runs. The last ones are the failed ones."""
    statuses = [RunStatus.COMPLETED] * (count - failed) + [RunStatus.FAILED] * failed
    return [RunSample(version, status, at + n, at + n + ms + n % 7) for n, status in enumerate(statuses)]


def verdict(*samples: list[RunSample], routing: Routing = ROUTING, now: int = LATER) -> Verdict:
    return judge(routing, [run for sample in samples for run in sample], now)


def test_a_canary_that_fails_is_rolled_back_with_the_numbers() -> None:
    value = verdict(runs(1, 90), runs(2, 10, failed=8), now=BEGAN + 1000)
    assert value.routing == Routing(1)
    assert value.reason is not None
    assert "8 of 10 runs of the canary failed (80%), and 0 of 90 of the live version (0%); Fisher" in value.reason


def test_a_canary_that_is_slow_is_rolled_back() -> None:
    value = verdict(runs(1, 90), runs(2, 15, ms=900))
    assert value.routing == Routing(1)
    assert value.reason is not None
    assert "Mann-Whitney" in value.reason


def test_a_small_difference_is_no_reason_for_a_rollback() -> None:
    assert verdict(runs(1, 900, ms=100), runs(2, 500, ms=120)).reason is None


def test_a_canary_that_is_as_bad_as_the_live_version_stays() -> None:
    assert verdict(runs(1, 90, failed=45), runs(2, 30, failed=15)).reason is None


def test_a_good_canary_gets_a_larger_weight_step_by_step_and_is_promoted() -> None:
    routing, now, weights = ROUTING, BEGAN, []
    for _ in range(3):
        now += STEP_MS
        assert routing.canary is not None
        at = routing.canary.since
        routing = verdict(runs(1, 50, at=at), runs(2, 40, at=at), routing=routing, now=now).routing
        weights.append(routing.canary.weight if routing.canary else 1)
    assert weights == [0.25, 0.5, 1]
    assert routing == Routing(2, previous=1)


@pytest.mark.parametrize(
    ("samples", "now"),
    [
        (runs(1, 50) + runs(2, 40), BEGAN + STEP_MS - 1),  # too early
        (runs(1, 50) + runs(2, 19), LATER),  # too few runs
        (runs(1, 50) + runs(2, 40, at=BEGAN - 1000), LATER),  # from before it began
        (runs(1, 50) + runs(2, 40, failed=3), LATER),  # in doubt
        (runs(2, 40), LATER),  # nothing to compare with
    ],
)
def test_the_weight_stays_while_there_is_too_little_evidence(samples: list[RunSample], now: int) -> None:
    verdict = judge(ROUTING, samples, now)
    assert verdict.reason is None
    assert verdict.routing.canary is not None
    assert verdict.routing.canary.weight == 0.1


def test_cancelled_and_running_runs_do_not_count() -> None:
    cancelled = [replace(run, status=RunStatus.CANCELLED) for run in runs(2, 40)]
    running = [replace(run, status=RunStatus.RUNNING, ended_at=None) for run in runs(2, 40)]
    assert verdict(runs(1, 50), cancelled, running) == Verdict(ROUTING)


def test_the_guard_looks_again_only_after_new_runs() -> None:
    samples = runs(1, 50) + runs(2, 40)
    once = judge(ROUTING, samples, BEGAN + 1000).routing
    assert once.canary is not None
    assert once.canary.guard is not None
    assert once.canary.guard.looks == 1
    assert judge(once, samples, BEGAN + 2000).routing == once


def test_each_further_look_requires_stronger_evidence() -> None:
    """The k-th look may be wrong with a probability of ALPHA / (k (k + 1)), half of it for failures."""
    samples = runs(1, 50) + runs(2, 40, failed=6)
    assert compare(samples[50:], samples[:50]).p_failures == pytest.approx(0.0062, abs=0.0001)
    reasons = {}
    for looks in range(3):
        routing = replace(ROUTING, canary=replace(CANARY, guard=Guard(BEGAN, looks=looks)))
        reasons[looks] = judge(routing, samples, LATER).reason
    assert [reason is not None for reason in reasons.values()] == [True, False, False]
    assert "p = 0.0062 < 0.013" in str(reasons[0])


@pytest.mark.parametrize("routing", [Routing(1), Routing(None), Routing(1, replace(CANARY, guard=None))])
def test_only_a_guarded_canary_is_judged(routing: Routing) -> None:
    assert verdict(runs(1, 50), runs(2, 50, failed=50), routing=routing) == Verdict(routing)


def test_the_rest_of_the_routing_stays_the_same() -> None:
    routing = replace(ROUTING, state=State.PAUSED, previous=7)
    assert verdict(runs(1, 90), runs(2, 10, failed=9), routing=routing).routing == Routing(1, None, State.PAUSED, 7)


def test_a_canary_that_is_not_worse_is_rarely_rolled_back_even_after_many_looks() -> None:
    chance = random.Random(1)
    wrong = 0
    for _ in range(200):
        routing, samples = ROUTING, []
        for n in range(400):
            version = 2 if chance.random() < 0.2 else 1
            status = RunStatus.FAILED if chance.random() < 0.1 else RunStatus.COMPLETED
            at = BEGAN + n
            samples.append(RunSample(version, status, at, at + int(chance.expovariate(0.01))))
            if n % 20 == 19:
                verdict = judge(routing, samples, at)
                routing = verdict.routing
                if verdict.reason is not None:
                    wrong += 1
                    break
    assert wrong / 200 <= ALPHA


def test_the_weight_is_raised_as_soon_as_there_is_enough_evidence() -> None:
    value = verdict(runs(1, FEWEST), runs(2, ENOUGH))
    assert value.routing.canary is not None
    assert value.routing.canary.weight == 0.25
    assert value.evidence is not None
    assert value.evidence.least_p >= DOUBT


def looks(samples: list[RunSample], guard: Guard) -> int:
    """The number of looks after this look."""
    canary = verdict(samples, routing=Routing(1, replace(CANARY, guard=guard)), now=BEGAN + 1000).routing.canary
    assert canary is not None
    assert canary.guard is not None
    return canary.guard.looks


@pytest.mark.parametrize(
    ("live", "canary", "expected"), [(FEWEST, FEWEST, 1), (FEWEST - 1, 50, 0), (50, FEWEST - 1, 0)]
)
def test_fewer_than_ten_runs_of_either_version_are_not_compared(live: int, canary: int, expected: int) -> None:
    assert looks(runs(1, live) + runs(2, canary), Guard(BEGAN)) == expected


@pytest.mark.parametrize(("count", "new", "expected"), [(10, 4, 1), (10, 5, 2), (100, 9, 1), (100, 10, 2)])
def test_another_look_requires_five_new_runs_or_a_tenth_of_all(count: int, new: int, expected: int) -> None:
    """A run that ended at the same time as the newest run of the last look was part of that look."""
    seen_until = BEGAN + 500
    ends = [seen_until + 1] * new + [seen_until] * (count - new)
    canary = [RunSample(2, RunStatus.COMPLETED, BEGAN, ended_at) for ended_at in ends]
    guard = Guard(BEGAN, looks=1, looked_at=seen_until)
    assert looks(runs(1, 50, ms=500) + canary, guard) == expected
