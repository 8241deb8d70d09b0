"""Parses times as people write them: a moment, or how long ago."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from stepwell.cli.ui.output import fail
from stepwell.core.duration import parse_duration

_EXAMPLES = "such as 2h or 3d (ago), or 2026-11-23T10:00"
SinceOption = Annotated[str | None, typer.Option(metavar="TIME", help=f"The earliest time, {_EXAMPLES}.")]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="The time before which results must be.")]


def shown(ms: int) -> str:
    """A time in ms since the epoch, as tables show it (UTC)."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def moment(text: str | None, option: str) -> int | None:
    """Parses a time to ms since the epoch. Without a time zone, it is local time. Ends the command if it is not a time.

    `option` names the option in the error.
    """
    if text is None:
        return None
    try:
        return max(0, time.time_ns() // 1_000_000 - parse_duration(text))
    except ValueError:
        pass
    try:
        return max(0, round(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError):
        fail(f"{option} {text!r} is not a time; write one {_EXAMPLES}", 2)
