"""Durations as people write them: `10s`, `1h30m`, `3d`, `2w`."""

from __future__ import annotations

import re

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
LONGEST_MS = 366 * _UNITS["d"]
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_WRITTEN = re.compile(  # forms that other programs accept, for suggestions in error messages
    r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(?P<unit>milliseconds?|millis|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?"
    r"|hrs?|h|days?|d|weeks?|wks?|w)(?:\s*(?:,|and)?\s*)",
    re.IGNORECASE,
)
_ISO = re.compile(r"P(?:([0-9.]+)W)?(?:([0-9.]+)D)?(?:T(?:([0-9.]+)H)?(?:([0-9.]+)M)?(?:([0-9.]+)S)?)?", re.IGNORECASE)


def parse_duration(text: str) -> int:
    """The milliseconds of a duration such as `1h30m`. Raises ValueError with a message that shows the right form."""
    if len(text) > 64 or not _WHOLE.fullmatch(text):
        meant = meant_duration(text.strip())
        cure = f'write "{meant}"' if meant else "write a number and a unit, such as 10s, 1h30m, 3d or 2w"
        raise ValueError(f"{text!r} is not a duration; {cure}")
    return round(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def duration_text(ms: int) -> str:
    """The text of a whole number of milliseconds above 0, such as `1h30m`."""
    text = ""
    for unit in ("d", "h", "m", "s", "ms"):
        number, ms = divmod(ms, _UNITS[unit])
        text += f"{number}{unit}" if number else ""
    return text


def meant_duration(text: str) -> str | None:
    """The valid form of a duration written in another way, such as `30`, `5 min`, `1h 30m` or `PT1H30M`.

    None if the text is not a duration, or if the duration is not allowed.
    """
    meant = _translated(text) if len(text) <= 64 else ""
    return meant if _WHOLE.fullmatch(meant) and 0 < parse_duration(meant) <= LONGEST_MS else None


def _translated(text: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return f"{text}s"
    parts = list(_WRITTEN.finditer(text))
    if parts and "".join(part[0] for part in parts) == text:
        return "".join(f"{_number(part['number'])}{_unit(part['unit'])}" for part in parts)
    iso = _ISO.fullmatch(text)
    given = zip(iso.groups(), "wdhms", strict=True) if iso is not None else ()
    return "".join(number + unit for number, unit in given if number)


def _number(text: str) -> str:
    return f"0{text}" if text.startswith(".") else text


def _unit(text: str) -> str:
    small = text.lower()
    return "ms" if small.startswith(("ms", "mil")) else small[0]
