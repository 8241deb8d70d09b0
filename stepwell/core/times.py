"""Times as people and programs read them."""

from __future__ import annotations

from datetime import UTC, datetime


def time_text(ms: int) -> str:
    """`2026-11-23T10:00:00.000Z`, of milliseconds since the epoch (RFC 3339)."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
