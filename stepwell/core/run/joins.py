"""Joins: what a step's edges, as they stand, mean for it: start, skip, or nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell.core.run.run import EdgeStatus

_PENDING, _PAUSED, _SATISFIED, _DEAD = EdgeStatus  # an enum is slow to look one up until Python 3.11

Join = Callable[[Sequence[EdgeStatus]], str | None]


def merge(edges: Sequence[EdgeStatus]) -> str | None:
    """BPMN's inclusive join: once all edges are settled, if at least one is satisfied."""
    if _PENDING in edges or _PAUSED in edges:
        return None
    return "start" if _SATISFIED in edges else "skip"


def all_(edges: Sequence[EdgeStatus]) -> str | None:
    """Only if all are satisfied; skipped at the first dead one."""
    if _DEAD in edges:
        return "skip"
    return None if _PENDING in edges or _PAUSED in edges else "start"


def first(edges: Sequence[EdgeStatus]) -> str | None:
    """As soon as one is satisfied."""
    if _SATISFIED in edges:
        return "start"
    return None if _PENDING in edges or _PAUSED in edges else "skip"


JOINS: dict[str, Join] = {"merge": merge, "all": all_, "first": first}
