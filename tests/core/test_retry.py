"""Tests the delay before a retry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.plan import Retries
from stepwell.core.run.retry import retry_delay_ms

HOUR = 3_600_000


def retries(initial: int = 10_000, factor: float = 2, most: int = HOUR, jitter: float = 0) -> Retries:
    return Retries(attempts=20, initial_ms=initial, factor=factor, max_ms=most, jitter=jitter)


def test_each_failure_multiplies_the_delay_up_to_the_maximum() -> None:
    delays = [retry_delay_ms(retries(most=60_000), failures, "") for failures in range(1, 6)]
    assert delays == [10_000, 20_000, 40_000, 60_000, 60_000]


def test_the_first_delay_is_not_above_the_maximum() -> None:
    assert retry_delay_ms(retries(initial=2 * HOUR), 1, "") == HOUR


def test_jitter_changes_the_delay_by_at_most_its_fraction() -> None:
    delays = [retry_delay_ms(retries(jitter=0.15), 1, f"run/{i}") for i in range(2000)]
    assert 8_500 <= min(delays) < 8_550
    assert 11_450 < max(delays) <= 11_500
    assert abs(sum(delays) / len(delays) - 10_000) < 100


def test_jitter_changes_the_maximum_delay_too() -> None:
    """Otherwise all attempts that failed in an outage would be retried at the same time."""
    delays = [retry_delay_ms(retries(most=10_000, jitter=0.15), 9, f"run/{i}") for i in range(2000)]
    assert 8_500 <= min(delays) < 8_550
    assert 11_450 < max(delays) <= 11_500


def test_the_same_attempt_always_gets_the_same_delay() -> None:
    assert retry_delay_ms(retries(jitter=0.15), 3, "run/step/3") == retry_delay_ms(
        retries(jitter=0.15), 3, "run/step/3"
    )
    assert retry_delay_ms(retries(jitter=0.15), 3, "run/step/3") != retry_delay_ms(
        retries(jitter=0.15), 3, "run/step/4"
    )


@given(
    st.builds(
        retries,
        st.integers(0, 366 * 24 * HOUR),
        st.floats(1, 1e308),
        st.integers(0, 366 * 24 * HOUR),
        st.floats(0, 1),
    ),
    st.integers(1, 21),
    st.text(max_size=5),
)
def test_no_settings_overflow_or_exceed_the_maximum_plus_jitter(retries: Retries, failures: int, seed: str) -> None:
    assert 0 <= retry_delay_ms(retries, failures, seed) <= retries.max_ms * (1 + retries.jitter) + 1
