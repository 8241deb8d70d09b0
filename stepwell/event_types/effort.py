"""Limits the work of checking events, so that no event can keep a server busy for long.

A validator holds the interpreter's lock, so a thread would not help. The work can be estimated before the check: each
part of a value is visited once for each path through the schema to it (`recursion_limit.work`). Events that need too
much work are refused. For an invalid event, all errors are reported if that is little work, otherwise only the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.event_types.schema import Schema

MOST = 15_000_000  # visits of parts, for one event: 0.1 s at most
MOST_OF_REQUEST = 10 * MOST
ALL_ERRORS = 20_000  # up to this number of visits, all errors of an event are reported
ALL_ERRORS_OF_REQUEST = 10 * ALL_ERRORS
_ALWAYS_ALLOWED = 1000  # a value of this size may be checked against any schema
_BYTES_PER_PART = 4  # of a string, because patterns read all of it


class Effort:
    """The work that is still allowed for one request."""

    def __init__(self) -> None:
        self.checks, self.errors = MOST_OF_REQUEST, ALL_ERRORS_OF_REQUEST


class Cost:
    """Estimates the work of checks against one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._by_levels: list[int] | None = None

    def is_too_much(self, text: bytes, value: Any, effort: Effort) -> bool:
        """Whether a value, with the JSON `text`, needs too much work to check; if not, subtracts the work from
        `effort`."""
        size = _values(text) + len(text) // _BYTES_PER_PART
        if size <= _ALWAYS_ALLOWED:
            return False
        work = size * self._ways(value)
        if work > min(MOST, effort.checks):
            return True
        effort.checks -= work
        return False

    def is_little(self, text: bytes, value: Any, effort: Effort) -> bool:
        """Whether all errors of a value can be reported; if so, subtracts the work from `effort`."""
        work = _values(text) * self._ways(value)
        if work > min(ALL_ERRORS, effort.errors):
            return False
        effort.errors -= work
        return True

    def _ways(self, value: Any) -> int:
        if self._by_levels is None:
            from stepwell.event_types.recursion_limit import work  # imported late: not needed for small values

            self._by_levels = work(self._schema)
        if len(self._by_levels) == 1 or self._by_levels[-1] == self._by_levels[0]:
            return self._by_levels[-1]
        return self._by_levels[min(levels(value), len(self._by_levels) - 1)]


def _values(text: bytes) -> int:
    """An upper bound of the number of values in a JSON text."""
    return 1 + text.count(b",") + text.count(b"{") + text.count(b"[")


def levels(value: Any) -> int:
    """The number of levels of nesting in a value."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        part, level = todo.pop()
        deepest = max(deepest, level)
        children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        todo += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest
