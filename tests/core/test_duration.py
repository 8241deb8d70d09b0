"""Tests texts of durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.duration import LONGEST_MS, duration_text, parse_duration


@pytest.mark.parametrize(
    ("ms", "text"),
    [(1, "1ms"), (5_400_000, "1h30m"), (86_400_000, "1d"), (1_209_600_000, "14d"), (90_061_001, "1d1h1m1s1ms")],
)
def test_a_duration_is_written_with_the_largest_units(ms: int, text: str) -> None:
    assert duration_text(ms) == text


@given(ms=st.integers(1, LONGEST_MS))
def test_a_text_is_read_as_the_same_duration(ms: int) -> None:
    assert parse_duration(duration_text(ms)) == ms
