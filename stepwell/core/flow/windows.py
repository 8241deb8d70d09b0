"""Windows of time in which a limited number of runs start.

The window is exact: any `period` contains at most `limit` starts. It is open at its beginning and closed at its end, so
starts at `t` and at `t + period` are in no common window.
"""

from __future__ import annotations

from stepwell.core.duration import duration_text
from stepwell.core.plan import RateLimit
from stepwell.core.times import time_text


def next_start(earlier: int | None, period_ms: int, now: int) -> int | None:
    """None if a run may start now; otherwise when the next start is possible (ms since the epoch).

    `earlier`: when the run started that is `limit` places before this one; None if there is none. A start in the
    future, which a clock that was ahead has recorded, counts as well.
    """
    if earlier is None or earlier + period_ms <= now:
        return None
    return earlier + period_ms


def limit_reached(limit: RateLimit, possible_at: int) -> str:
    """The reason why an event does not start a run."""
    starts = "1 start" if limit.limit == 1 else f"{limit.limit:,} starts"
    return (
        f"`rate_limit` is reached ({starts} in {duration_text(limit.period_ms)});"
        f" the next start is possible at {time_text(possible_at)}"
    )
