"""Cron triggers: five fields, a time zone, and the ticks they make."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


def check_cron(cron: str, timezone: str = "UTC") -> None:
    """Raises ValueError, in plain words, for an expression or a time zone that cannot be used."""
    if len(cron.split()) != 5:
        raise ValueError(f"{cron!r} has {len(cron.split())} fields; write five: minute hour day month weekday")
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{timezone!r} is no time zone; write one like UTC or Europe/Berlin") from None
    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"{cron!r} is no cron expression: {error}") from None
    except StopIteration:
        raise ValueError(f"{cron!r} never comes") from None


def next_tick(cron: str, timezone: str, after_ms: int) -> int:
    """The first tick after a time; both in milliseconds since the epoch."""
    return _ms(next(CronSim(cron, _local(after_ms, timezone))))


def latest_tick(cron: str, timezone: str, after_ms: int, until_ms: int) -> int | None:
    """The latest tick after `after_ms` and not after `until_ms`, if there is one."""
    # Backwards from the following second, since the search leaves out the time it starts at.
    tick = _ms(next(CronSim(cron, _local(until_ms + 1000, timezone), reverse=True)))
    return tick if after_ms < tick <= until_ms else None


def tick_event(function_id: str, cron: str, at_ms: int) -> dict[str, Any]:
    """The event of a tick, as the contract says."""
    scheduled = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "name": "stepwell/scheduled.timer",
        "id": f"cron:{function_id}:{at_ms // 60_000}",
        "data": {"cron": cron, "scheduled_at": scheduled},
        "ts": at_ms,
    }


def _local(ms: int, timezone: str) -> datetime:
    return datetime.fromtimestamp(ms / 1000, ZoneInfo(timezone))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
