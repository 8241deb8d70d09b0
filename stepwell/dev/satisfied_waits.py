"""Collects the waits that events satisfied, until `stepwell dev` prints these events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from stepwell.terminal import shown

_MAX_SHOWN = 20  # runs to list of an event


@dataclass(slots=True)
class Satisfied:
    """The runs that an event resumed, with the steps that waited, and the runs that it cancelled."""

    name: str = ""
    resumed: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.resumed or self.cancelled)

    def text(self) -> str:
        """Lines with markup, each after a line break."""
        lines = [
            f"\n      resumed {shown(item['function'])} [dim]{shown(item['run'])}[/] at step "
            + shown(", ".join(item["steps"]))
            for item in self.resumed
        ]
        lines += [
            f"\n      [yellow]cancelled[/] {shown(item['function'])} [dim]{shown(item['run'])}[/]"
            for item in self.cancelled
        ]
        more = len(lines) - _MAX_SHOWN
        return "".join(lines[:_MAX_SHOWN]) + (f"\n      [dim]... {more:,} more runs[/]" if more > 0 else "")


class SatisfiedWaits:
    """The satisfied waits of events that are not printed yet."""

    def __init__(self) -> None:
        self._by_event: defaultdict[str, Satisfied] = defaultdict(Satisfied)
        self._passed_over: set[str] = set()  # events that the last call of `take_others` left

    def add(self, event: str, name: str, function: str, run: str, steps: list[str], *, cancels: bool) -> None:
        satisfied, fields = self._by_event[event], {"function": function, "run": run}
        satisfied.name = name
        if cancels:
            satisfied.cancelled.append(fields)
        else:
            satisfied.resumed.append({**fields, "steps": steps})

    def take(self, event: str) -> Satisfied:
        """Removes and returns the waits that an event satisfied."""
        return self._by_event.pop(event, Satisfied())

    def take_others(self, printed_now: Collection[str]) -> Iterator[tuple[str, Satisfied]]:
        """Removes and returns the waits that events satisfied which were printed earlier.

        A wait is logged before the batch is committed, so the event may be visible only at the next call.
        """
        others = self._by_event.keys() - set(printed_now)
        for event in [event for event in self._by_event if event in others & self._passed_over]:
            yield event, self._by_event.pop(event)
        self._passed_over = others & self._by_event.keys()
