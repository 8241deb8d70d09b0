"""Selects the stored events of a replay. Filters that the API does not support are applied here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stepwell.cli.remote.client import Client
from stepwell.core.cel.expressions import Bindings, Scope, compile_expression
from stepwell.core.events.engine_ids import EngineId

Json = dict[str, Any]
FIELDS = ("name", "data", "user", "id", "ts", "v")
_TICK = "stepwell/scheduled.timer"
_PAGE = 250  # small pages, because an event may have 256 KiB


@dataclass(frozen=True, slots=True)
class Choice:
    """The options that select events. Times are ms since the epoch; `status` is that of an event's latest run of the
    function."""

    function: str
    event: str | None = None
    user: str | None = None
    since: int | None = None
    until: int | None = None
    where: str | None = None
    status: str | None = None


class Selection:
    """The events of `source` that satisfy a choice, newest first. `triggers` are those of the function."""

    def __init__(self, source: Client, choice: Choice, triggers: list[Json]) -> None:
        self._source, self._choice, self._triggers = source, choice, triggers
        self._statuses = None if choice.status is None else self._latest()
        self.no_value = 0  # the number of events for which --where failed
        self.problem: str | None = None  # the error of the first such event

    def pages(self, after: str | None) -> Iterator[tuple[list[Json], str | None]]:
        """Yields the selected events of each page, and the cursor of the next page."""
        choice = self._choice
        query = {"name": self._name(), "user": choice.user, "since": choice.since, "until": choice.until}
        while True:
            page = self._source.get("/v1/events", limit=_PAGE, after=after, **query)
            after = page["next"]
            yield [event for event in page["data"] if self._is_selected(event)], after
            if after is None:
                return

    def _name(self) -> str | None:
        """The name of all selected events; None if they may have several names, so that one list gives the order."""
        if self._choice.event is not None:
            return self._choice.event
        names = {trigger.get("event") or _TICK for trigger in self._triggers}
        name = names.pop() if len(names) == 1 else "*"
        return None if name.endswith("*") else name

    def _is_selected(self, event: Json) -> bool:
        if self._statuses is not None and self._statuses.get(event["id"]) != self._choice.status:
            return False
        bindings = Bindings({field: event[field] for field in FIELDS})
        if not self._is_triggered(event, bindings):
            return False
        if self._choice.where is None:
            return True
        answer = compile_expression(self._choice.where, Scope.TRIGGER).evaluate(bindings)
        if answer.problem is not None:
            self.no_value += 1
            self.problem = self.problem or answer.problem
        return answer.holds

    def _is_triggered(self, event: Json, bindings: Bindings) -> bool:
        """The event satisfies a trigger of the function. An event named by --event that no trigger names is selected
        too."""
        name, function = event["name"], self._choice.function
        if name == _TICK:
            return str(event["id"]).startswith(f"{EngineId.CRON}{function}:")
        triggers = [trigger for trigger in self._triggers if "event" in trigger and _matches(trigger["event"], name)]
        if not triggers:
            return bool(name == self._choice.event)
        conditions = [trigger.get("expression") for trigger in triggers]
        return any(
            condition is None or compile_expression(condition, Scope.TRIGGER).evaluate(bindings).holds
            for condition in conditions
        )

    def _latest(self) -> dict[str, str]:
        """The status of the function's latest run, by event id."""
        latest: dict[str, str] = {}
        after = None
        while True:
            query = {"function": self._choice.function, "since": self._choice.since, "user": self._choice.user}
            page = self._source.get("/v1/runs", limit=_PAGE, after=after, **query)
            for run in page["data"]:
                latest.setdefault(run["event_id"], run["status"])
            after = page["next"]
            if after is None:
                return latest


def _matches(pattern: str | None, name: str) -> bool:
    if pattern is None:
        return False
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1]) and not name.startswith("stepwell/")
    return name == pattern
