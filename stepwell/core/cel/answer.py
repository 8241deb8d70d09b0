"""What evaluating an expression gives."""

from __future__ import annotations

from stepwell.core.plain_data import immutable


@immutable
class Answer:
    """Whether an expression is true. `problem` says why it is neither true nor false: an error, or another type."""

    holds: bool
    problem: str | None = None
