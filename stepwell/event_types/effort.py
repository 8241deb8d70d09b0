"""How much work a check of an event is, and how much of it is done: nobody's event may keep a server busy for long.

A validator holds the interpreter while it works, so a thread would be no help. It looks at each part of a value by as
many ways as lead through the schema to it (`recursion_limit.work`); how much that is in all is known before. Events
for which it is too much are refused. Of a wrong event all errors are told where that is little work, else the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.event_types.schema import Schema

MOST = 15_000_000  # parts looked at, for one event: a tenth of a second at worst
MOST_OF_REQUEST = 10 * MOST
ALL_ERRORS = 20_000  # parts of an event, by the ways to them, of which all errors are told
ALL_ERRORS_OF_REQUEST = 10 * ALL_ERRORS
_ALWAYS_FINE = 1000  # parts that may be checked by any schema
_BYTES_A_PART = 4  # of a text, which patterns go through


class Effort:
    """What is left to be done for one request."""

    def __init__(self) -> None:
        self.checks, self.errors = MOST_OF_REQUEST, ALL_ERRORS_OF_REQUEST


class Cost:
    """What checks by one schema cost."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._by_levels: list[int] | None = None

    def is_too_much(self, text: bytes, value: Any, effort: Effort) -> bool:
        """Whether a value, whose JSON is `text`, is too much to check; if not, it counts."""
        size = _values(text) + len(text) // _BYTES_A_PART
        if size <= _ALWAYS_FINE:
            return False
        work = size * self._ways(value)
        if work > min(MOST, effort.checks):
            return True
        effort.checks -= work
        return False

    def is_little(self, text: bytes, value: Any, effort: Effort) -> bool:
        """Whether all errors of a value can be told; if so, it counts."""
        work = _values(text) * self._ways(value)
        if work > min(ALL_ERRORS, effort.errors):
            return False
        effort.errors -= work
        return True

    def _ways(self, value: Any) -> int:
        if self._by_levels is None:
            from stepwell.event_types.recursion_limit import (
                work,  # who only checks what is small and right does not wait for it
            )

            self._by_levels = work(self._schema)
        if len(self._by_levels) == 1 or self._by_levels[-1] == self._by_levels[0]:
            return self._by_levels[-1]
        return self._by_levels[min(levels(value), len(self._by_levels) - 1)]


def _values(text: bytes) -> int:
    """At least as many as there are values in a JSON text."""
    return 1 + text.count(b",") + text.count(b"{") + text.count(b"[")


def levels(value: Any) -> int:
    """How deep a value nests."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        part, level = todo.pop()
        deepest = max(deepest, level)
        children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        todo += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest
