"""The result of evaluating a condition."""

from __future__ import annotations

from stepwell.core.plain_data import immutable


@immutable
class Answer:
    """Whether a condition is true. `problem` is set if it is not a boolean: an error, or a value of another type."""

    holds: bool
    problem: str | None = None
