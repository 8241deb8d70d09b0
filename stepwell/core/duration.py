"""Durations as people write them: `10s`, `1h30m`, `3d`, `2w`."""

from __future__ import annotations

import re

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as `1h30m`. Raises ValueError, whose message says what is expected."""
    if len(text) > 64 or not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write one like 10s, 1h30m, 3d or 2w")
    return round(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))
