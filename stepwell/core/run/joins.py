"""Joins: decides from the edges of a step whether it starts, is skipped, or has to wait (None)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell.core.run.run import EdgeStatus

_PENDING, _PAUSED, _SATISFIED, _DEAD = EdgeStatus  # looking up an enum member is slow before Python 3.12

Join = Callable[[Sequence[EdgeStatus]], str | None]


def merge(edges: Sequence[EdgeStatus]) -> str | None:
    """BPMN's inclusive join: starts once all edges are settled, if at least one is satisfied."""
    if _PENDING in edges or _PAUSED in edges:
        return None
    return "start" if _SATISFIED in edges else "skip"


def all_(edges: Sequence[EdgeStatus]) -> str | None:
    """Starts if all edges are satisfied; skips at the first dead edge."""
    if _DEAD in edges:
        return "skip"
    return None if _PENDING in edges or _PAUSED in edges else "start"


def first(edges: Sequence[EdgeStatus]) -> str | None:
    """Starts as soon as one edge is satisfied."""
    if _SATISFIED in edges:
        return "start"
    return None if _PENDING in edges or _PAUSED in edges else "skip"


JOINS: dict[str, Join] = {"merge": merge, "all": all_, "first": first}
