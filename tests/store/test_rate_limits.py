"""What the engine requires of every store: `start_checks.RateLimits`."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.core.plan import RateLimit
from tests.store.stores import NOW, InDynamoDb, StoreUnderTest

HOUR = 3_600_000
TWO_AN_HOUR = RateLimit(2, HOUR)


def claim(
    store: StoreUnderTest,
    run_id: str,
    at: int,
    limit: RateLimit = TWO_AN_HOUR,
    *,
    function: str = "f",
    key: bytes = b"k",
    again: bool = False,
) -> int | None:
    """When the next start is possible, in ms after `NOW`; None if the start was counted. `at`: in ms after `NOW`."""
    batch = store.begin(NOW + at)
    possible_at = batch.checks.rate_limits.claim(function, key, limit, run_id, NOW + at, again=again)
    store.end(batch)
    return None if possible_at is None else possible_at - NOW


def release(store: StoreUnderTest, run_id: str, at: int, last: tuple[str, RateLimit] | None = None) -> None:
    """Releases a claim in the batch that has made it."""
    batch = store.begin(NOW + at)
    limits = batch.checks.rate_limits
    assert limits.claim("f", b"k", TWO_AN_HOUR, run_id, NOW + at, again=False) is None
    limits.release("f", b"k", run_id)
    store.end(batch)


def test_starts_beyond_the_limit_are_refused_until_the_period_of_the_oldest_is_over(store: StoreUnderTest) -> None:
    assert claim(store, "r1", 0) is None
    assert claim(store, "r2", 10) is None
    assert claim(store, "r3", 20) == HOUR
    store.reopen()
    assert claim(store, "r4", HOUR - 1) == HOUR
    assert claim(store, "r5", HOUR) is None
    assert claim(store, "r6", HOUR) == HOUR + 10
    assert claim(store, "r7", HOUR + 10) is None


def test_keys_and_functions_have_limits_of_their_own(store: StoreUnderTest) -> None:
    one = RateLimit(1, HOUR)
    assert claim(store, "r1", 0, one) is None
    assert claim(store, "r2", 0, one, key=b"other") is None
    assert claim(store, "r3", 0, one, key=b"") is None
    assert claim(store, "r4", 0, one, function="g") is None
    assert claim(store, "r5", 0, one) == HOUR


def test_a_claim_that_is_released_does_not_count(store: StoreUnderTest) -> None:
    assert claim(store, "r1", 0) is None
    for number in range(50):
        release(store, f"released-{number}", 10)
    assert claim(store, "r2", 20) is None
    assert claim(store, "r3", 30) == HOUR


def test_a_start_that_a_clock_in_the_future_recorded_counts(store: StoreUnderTest) -> None:
    one = RateLimit(1, HOUR)
    assert claim(store, "r1", 5_000, one) is None
    assert claim(store, "r2", 0, one) == HOUR + 5_000


def test_two_starts_of_clocks_that_differ_keep_their_order(store: StoreUnderTest) -> None:
    assert claim(store, "r1", 5_000) is None
    assert claim(store, "r2", 0) is None  # counted as at 5,000
    assert claim(store, "r3", HOUR) == HOUR + 5_000


def test_a_change_of_the_limit_applies_at_once(store: StoreUnderTest) -> None:
    for number in range(30):
        assert claim(store, f"r{number}", number, RateLimit(30, HOUR)) is None
    assert claim(store, "more", 40, RateLimit(30, HOUR)) == HOUR
    assert claim(store, "fewer", 40, RateLimit(5, HOUR)) == HOUR + 25
    assert claim(store, "last", 40, RateLimit(31, HOUR)) is None
    assert claim(store, "more", 41, RateLimit(31, HOUR)) == HOUR
    assert claim(store, "shorter", 41, RateLimit(1, 1)) is None


def test_a_limit_that_was_lowered_and_raised_again_forgets_no_start(store: StoreUnderTest) -> None:
    high, low = RateLimit(30, HOUR), RateLimit(3, HOUR)
    for number in range(28):
        assert claim(store, f"r{number}", number, high) is None
    assert claim(store, "low", 50, low) == HOUR + 25
    assert [claim(store, f"high-{number}", 60, high) for number in range(3)] == [None, None, HOUR]


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 7, 30, 60, 100]),  # ms since the arrival before
        st.sampled_from(["a", "a", "a", "b"]),  # key
        st.sampled_from(["new", "new", "new", "new", "again", "release"]),
    ),
    max_size=150,
)
NAMES = map(str, count())


@pytest.mark.parametrize("limit", [1, 2, 5, 21, 45])
@settings(max_examples=15, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=ARRIVALS)
def test_every_store_decides_as_a_list_of_all_starts(
    store: StoreUnderTest, limit: int, arrivals: list[tuple[int, str, str]]
) -> None:
    """A random sequence of starts, repeated starts and releases: no window ever has more than `limit`, and no start is
    refused that could happen."""
    rate_limit, function, now = RateLimit(limit, 100), next(NAMES), NOW
    is_redelivered = isinstance(store, InDynamoDb)
    starts: dict[str, dict[str, int]] = {"a": {}, "b": {}}
    batch = store.begin(now)
    for number, (pause, key, what) in enumerate(arrivals):
        now += pause
        run, model = f"r{number}", starts[key]
        limits = batch.checks.rate_limits
        if again := what == "again" and is_redelivered and bool(model):
            run = list(model)[-1]  # it was counted, and then the process crashed
            del model[run]
        within = sorted(at for at in model.values() if at > now - 100)
        expected = None if len(within) < limit else within[-limit] + 100
        assert limits.claim(function, key.encode(), rate_limit, run, now, again=again) == expected
        if expected is None and what == "release":
            limits.release(function, key.encode(), run)
        elif expected is None:
            model[run] = now
        largest = max((sum(at - 100 < other <= at for other in model.values()) for at in model.values()), default=0)
        assert largest <= limit
    store.end(batch)
