"""Cron triggers: checks a schedule of five fields and a time zone, and computes when it fires (the ticks)."""

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
    """Raises ValueError, with a message for users, if the schedule or the time zone cannot be used."""
    fields = cron.split()
    if len(fields) != 5 or len(cron) > _LONGEST:
        given = f"has {len(fields)} field{'s' * (len(fields) != 1)}" if len(fields) != 5 else "is too long"
        raise ValueError(
            f"{cron[:50]!r} {given}; write five fields: minute hour day month weekday, as in 0 9 * * MON-FRI"
        )
    try:
        _zone(timezone)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{timezone[:50]!r} is not a time zone; write one such as UTC or Europe/Berlin") from None
    problem = _problem(cron)
    # The library reports a wrong day if none of the given months has this day.
    if problem == "day-of-month" and _problem(" ".join([*fields[:3], "*", fields[4]])) is None:
        problem = "never"
    if problem == "never":
        raise ValueError(f"{cron!r} never fires, because no month has this day; change the day or the month")
    if problem is not None:
        hint = _FIELDS.get(problem, "each field is a number, *, 1,2, 1-5 or */5")
        raise ValueError(f"{cron!r} has an error in the field {problem}; {hint}")


def next_tick(cron: str, timezone: str, after_ms: int) -> int:
    """The first tick strictly after a time; both in milliseconds since the epoch.

    This holds also in the hour that is repeated when summer time ends. Raises ValueError if there is none in 50 years.
    """
    from cronsim import CronSim

    for moment in CronSim(cron, datetime.fromtimestamp(after_ms / 1000, _zone(timezone))):
        tick = round(moment.timestamp() * 1000)
        if tick > after_ms:  # in a repeated hour, the library returns the time of the first pass
            return tick
    raise ValueError(f"{cron!r} never fires")


def latest_tick(cron: str, timezone: str, after_ms: int, until_ms: int) -> int | None:
    """The latest tick after `after_ms` and at or before `until_ms`; None if there is none.

    Found by bisection, in about twenty steps for a range of months. The library could search backwards, but then it
    skips repeated hours.
    """
    tick = next_tick(cron, timezone, after_ms)
    if tick > until_ms:
        return None
    high = until_ms
    while high - tick >= 60_000:  # ticks are at least a minute apart, and there is none between high and until_ms
        middle = (tick + high) // 2
        later = next_tick(cron, timezone, middle)
        if later <= until_ms:
            tick = later
        else:
            high = middle
    return tick


def tick_event(function_id: str, cron: str, at_ms: int) -> dict[str, Any]:
    """The event that a tick sends."""
    scheduled = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "name": TICK,
        "id": f"{EngineId.CRON}{function_id}:{at_ms // 60_000}",
        "data": {"cron": cron, "scheduled_at": scheduled},
        "ts": at_ms,
    }


def _problem(cron: str) -> str | None:
    """The name of the field with an error, "never" if the schedule never fires, or None."""
    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except StopIteration:
        return "never"
    except CronSimError as error:
        return str(error).removeprefix("Bad ")
    except (AssertionError, TypeError):  # the library does not handle some errors, such as 5L/2
        return "fields"
    return None


def _zone(timezone: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # imported late, as cronsim: together 8 ms of a start that may need neither

    return UTC if timezone == "UTC" else ZoneInfo(timezone)
