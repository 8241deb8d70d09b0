"""The places of expressions, and the variables that are available in each."""

from __future__ import annotations

from enum import Enum

from stepwell.core.cel.parse_json import VARIABLES


class Scope(Enum):
    """The place of an expression. The enum value lists the names of the available variables."""

    TRIGGER = ("event", "user", "data")
    CANCEL = ("event", "user", "data", "async")
    CONDITION = ("event", "user", "data", "steps", "errors", "response")
    MATCH = ("event", "user", "data", "steps", "errors", "response", "async")
    MESSAGE = ("event", "user", "data", "steps", "errors")
    ARGUMENTS = ("event", "user", "data", "steps", "errors", "async")
    WEBHOOK = ("body", "headers", "query")
    CHALLENGE = ("body", "headers", "query", "signature")
    RECORD = (
        "body",
        "headers",
        "key",
        "topic",
        "partition",
        "offset",
        "stream",
        "queue",
        "subscription",
        "attributes",
        "timestamp",
    )

    @property
    def has_parse_json(self) -> bool:
        """Whether expressions in this place may call `parse_json`: those of webhooks and sources."""
        return self in (Scope.WEBHOOK, Scope.CHALLENGE, Scope.RECORD)

    @property
    def has_base64(self) -> bool:
        """Whether expressions in this place may call `base64.decode` and `base64.encode`."""
        return self.has_parse_json

    @property
    def names(self) -> tuple[str, ...]:
        """The variables, including those that replace calls of `parse_json`."""
        return (*self.value, *(VARIABLES if self.has_parse_json else ()))
