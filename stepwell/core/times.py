"""Formats times for output."""

from __future__ import annotations

from datetime import UTC, datetime


def time_text(ms: int) -> str:
    """The RFC 3339 form of milliseconds since the epoch, such as `2026-11-23T10:00:00.000Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_text(ms: int) -> str:
    """The RFC 3339 form of milliseconds, or the number if it is outside of the years that have one."""
    try:
        return time_text(ms)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
