"""Where expressions stand, and which variables they have there."""

from __future__ import annotations

from enum import Enum

from stepwell.core.cel.parse_json import VARIABLES


class Scope(Enum):
    """Where an expression stands. The value holds the names of its variables."""

    TRIGGER = ("event", "user", "data")
    CANCEL = ("event", "user", "data", "async")
    CONDITION = ("event", "user", "data", "steps", "errors", "response")
    MATCH = ("event", "user", "data", "steps", "errors", "response", "async")
    MESSAGE = ("event", "user", "data", "steps", "errors")
    WEBHOOK = ("body", "headers", "query")
    CHALLENGE = ("body", "headers", "query", "signature")

    @property
    def has_parse_json(self) -> bool:
        """Whether its expressions may call `parse_json`, as those about requests do."""
        return self in (Scope.WEBHOOK, Scope.CHALLENGE)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables, and those that stand for calls of `parse_json`."""
        return (*self.value, *(VARIABLES if self.has_parse_json else ()))
