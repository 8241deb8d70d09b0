"""Where a replay begins: the start of what the broker has, a time, or a position in the broker's own words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stepwell.core.duration import parse_duration


@dataclass(frozen=True, slots=True)
class Place:
    """`time` (ms) or `position`, if one of them is given; otherwise the earliest record."""

    time: int | None = None
    position: str = ""


def parse_place(text: str, now: int) -> Place:
    """The place that a text names: `earliest`, a time (RFC 3339), how long ago (`2h`), or a position.

    Raises ValueError."""
    text = text.strip()
    if text == "earliest":
        return Place()
    if not text or len(text) > 4096:
        raise ValueError("write earliest, a time such as 2026-11-23T10:00:00Z, how long ago such as 2h, or a position")
    try:
        return Place(time=now - parse_duration(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return Place(position=text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone; write a time such as 2026-11-23T10:00:00Z")
    return Place(time=round(moment.timestamp() * 1000))
