"""Cron triggers: five fields, a time zone, and the ticks they make.

One rule: a tick is strictly after the time it is asked for, also in the hour that the clock goes through twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any

from stepwell.core.events.engine_ids import EngineId

TICK = "stepwell/scheduled.timer"
_LONGEST = 256
_FIELDS = {
    "minute": "a minute is 0-59",
    "hour": "an hour is 0-23",
    "day-of-month": "a day is 1-31, or L for the last",
    "month": "a month is 1-12 or JAN-DEC",
    "day-of-week": "a weekday is 0-7 or SUN-SAT, and both 0 and 7 are Sunday",
}


def check_cron(cron: str, timezone: str = "UTC") -> None:
    """Raises ValueError, in plain words, for an expression or a time zone that cannot be used."""
    fields = cron.split()
    if len(fields) != 5 or len(cron) > _LONGEST:
        given = f"has {len(fields)} field{'s' * (len(fields) != 1)}" if len(fields) != 5 else "is too long"
        raise ValueError(f"{cron[:50]!r} {given}; write five: minute hour day month weekday, as in 0 9 * * MON-FRI")
    try:
        _zone(timezone)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{timezone[:50]!r} is no time zone; write one like UTC or Europe/Berlin") from None
    problem = _problem(cron)
    # The library calls a day wrong that no month of the expression has.
    if problem == "day-of-month" and _problem(" ".join([*fields[:3], "*", fields[4]])) is None:
        problem = "never"
    if problem == "never":
        raise ValueError(f"{cron!r} never comes: there is no such day")
    if problem is not None:
        hint = _FIELDS.get(problem, "each is a number, *, 1,2, 1-5 or */5")
        raise ValueError(f"{cron!r} is wrong in its {problem}; {hint}")


def next_tick(cron: str, timezone: str, after_ms: int) -> int:
    """The first tick after a time; both in milliseconds since the epoch. ValueError if there is none in 50 years."""
    from cronsim import CronSim

    for moment in CronSim(cron, datetime.fromtimestamp(after_ms / 1000, _zone(timezone))):
        tick = round(moment.timestamp() * 1000)
        if tick > after_ms:  # for the second pass through an hour the library answers with the first
            return tick
    raise ValueError(f"{cron!r} never comes")


def latest_tick(cron: str, timezone: str, after_ms: int, until_ms: int) -> int | None:
    """The latest tick after `after_ms` and not after `until_ms`, if there is one.

    By bisection, in some twenty steps for months; searching backwards, the library passes over repeated hours.
    """
    tick = next_tick(cron, timezone, after_ms)
    if tick > until_ms:
        return None
    high = until_ms
    while high - tick >= 60_000:  # ticks are a minute apart, and none lies between high and until_ms
        middle = (tick + high) // 2
        later = next_tick(cron, timezone, middle)
        if later <= until_ms:
            tick = later
        else:
            high = middle
    return tick


def tick_event(function_id: str, cron: str, at_ms: int) -> dict[str, Any]:
    """The event of a tick, as the contract says."""
    scheduled = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "name": TICK,
        "id": f"{EngineId.CRON}{function_id}:{at_ms // 60_000}",
        "data": {"cron": cron, "scheduled_at": scheduled},
        "ts": at_ms,
    }


def _problem(cron: str) -> str | None:
    """The name of the field that is wrong, or "never"."""
    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except StopIteration:
        return "never"
    except CronSimError as error:
        return str(error).removeprefix("Bad ")
    except (AssertionError, TypeError):  # some that it does not foresee, as 5L/2
        return "fields"
    return None


def _zone(timezone: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # with cronsim some 8 ms, which a start without cron triggers need not take

    return UTC if timezone == "UTC" else ZoneInfo(timezone)
