"""Tests when a window of a rate limit lets the next run start."""

from __future__ import annotations

import pytest

from stepwell.core.flow.windows import next_start

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("earlier", "now", "possible_at"),
    [
        (None, 0, None),
        (0, 0, HOUR),
        (0, HOUR - 1, HOUR),
        (0, HOUR, None),  # starts at `t` and at `t + period` may both happen
        (0, 10 * HOUR, None),
        (5 * HOUR, 0, 6 * HOUR),  # a clock that was ahead
    ],
)
def test_the_start_limit_places_before_decides(earlier: int | None, now: int, possible_at: int | None) -> None:
    assert next_start(earlier, HOUR, now) == possible_at
