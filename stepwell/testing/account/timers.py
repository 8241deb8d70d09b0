"""Computes when something happens next in the emulated account, so that a test can move the clock to that time."""

from __future__ import annotations

from stepwell.aws.engine.timers import AHEAD_MS as TIMERS_AHEAD_MS
from stepwell.aws.functions.schedules import AHEAD_MS as SCHEDULES_AHEAD_MS
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import TIMERS_STATE
from stepwell.aws.table.limit_keys import WAITED_FOR
from stepwell.testing.account.emulator import Emulator


class AccountTimers:
    """All times are in ms since the epoch; None means never."""

    def __init__(self, emulator: Emulator, resources: Resources) -> None:
        self._emulator, self._resources = emulator, resources

    def next_due(self) -> int | None:
        """When a message becomes visible next, or `tick` has to take something from the table."""
        delayed = self._emulator.queues.next_delayed(self._resources.events_queue, self._resources.outcomes_queue)
        return min((due for due in (delayed, self.next_tick()) if due is not None), default=None)

    def next_tick(self) -> int | None:
        """When the next `tick` has something to do. `tick` comes every minute; ticks without work are left out."""
        found, tables = [], self._emulator.tables
        states = list(tables.partition(self._resources.table, TIMERS_STATE["pk"]["S"]))
        sent = max((state["k"]["S"] for state in states if state["sk"] == TIMERS_STATE["sk"]), default="")
        counts = {state["sk"]["S"]: state["g"] for state in states if "g" in state}
        is_waited_for = any(tables.partition(self._resources.table, WAITED_FOR))
        if is_waited_for and counts.get("limits") != counts.get("functions"):
            found.append(self._emulator.now)
        for pk, ahead in [("C", SCHEDULES_AHEAD_MS), *((f"T#{n}", TIMERS_AHEAD_MS) for n in range(8))]:
            for item in tables.partition(self._resources.table, pk):
                if "paused" in item or (pk != "C" and item["sk"]["S"] <= sent):
                    continue
                due = int(item["next"]["N"]) if pk == "C" else int(item["sk"]["S"].partition("#")[0])
                found.append(max(self._emulator.now, due - ahead))
        return min(found, default=None)
