"""How far a source is behind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a source is behind: records that are not read yet, and the age of the oldest of them. None: unknown."""

    records: int | None = None
    seconds: float | None = None
