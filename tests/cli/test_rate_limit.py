"""Rate limits, with a simulated clock."""

from __future__ import annotations

import random

import pytest

from stepwell.cli.ui.rate_limit import RateLimit, per_second


@pytest.mark.parametrize(
    ("text", "rate"), [("50/s", 50), ("50", 50), ("600/m", 10), ("1800/h", 0.5), ("0.5/s", 0.5), ("1/h", 1 / 3600)]
)
def test_a_rate_is_read(text: str, rate: float) -> None:
    assert per_second(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "0", "0/s", "-1", "50/d", "fast", "1e3", "5 /s", "٥", "9" * 10, "50/s "])
def test_an_invalid_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write one like 50/s"):
        per_second(text)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.mark.parametrize(("rate", "batch"), [(500.0, 100), (50.0, 10), (3.0, 1), (0.5, 1)])
def test_ten_thousand_items_keep_the_rate_within_ten_percent_for_any_request_duration(rate: float, batch: int) -> None:
    clock, numbers = Clock(), random.Random(7)
    rate_limit, start, sent = RateLimit(rate, clock, clock.sleep), clock.now, []
    while len(sent) < 10_000:
        rate_limit.wait(batch)
        sent += [clock.now] * batch
        clock.now += numbers.uniform(0, 1.5 * batch / rate)  # some take longer than the interval
    assert len(sent) / (sent[-1] - start) == pytest.approx(rate, rel=0.1)
    a_while = int(20 * rate) or 1  # in any twenty seconds too
    for before, after in zip(sent, sent[a_while:], strict=False):
        assert (after - before) * rate == pytest.approx(a_while, rel=0.15, abs=3 * batch)


def test_after_a_long_pause_items_are_not_sent_in_a_burst() -> None:
    clock = Clock()
    rate_limit = RateLimit(100, clock, clock.sleep)
    rate_limit.wait(10)
    clock.now += 600
    start = clock.now
    for _ in range(50):
        rate_limit.wait(10)
    assert clock.now - start >= 3.5
