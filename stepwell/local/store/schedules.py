"""Times of cron ticks, in SQLite. A trigger that stays keeps the next tick. So a tick that was missed while the server
was down or the function was paused is noticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from stepwell.core.events.cron import latest_tick, next_tick, tick_event
from stepwell.core.plan import Trigger


class Schedules:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def set(self, function_id: str, triggers: Iterable[Trigger], paused: bool, now: int) -> None:
        """Schedules exactly these cron triggers of a function. A paused function does not tick."""
        wanted = {(t.cron, t.timezone) for t in triggers if t.cron is not None}
        kept = set(self._execute("SELECT cron, timezone FROM schedules WHERE function = ?", (function_id,)))
        for cron, timezone in kept - wanted:
            sql = "DELETE FROM schedules WHERE function = ? AND cron = ? AND timezone = ?"
            self._execute(sql, (function_id, cron, timezone))
        for cron, timezone in wanted - kept:
            row = (function_id, cron, timezone, next_tick(str(cron), timezone, now))
            self._execute("INSERT INTO schedules (function, cron, timezone, next_at) VALUES (?, ?, ?, ?)", row)
        self._execute("UPDATE schedules SET paused = ? WHERE function = ?", (paused, function_id))

    def cap_next_ticks(self, now: int) -> None:
        """Moves each next tick to the first one after `now` if it is later: the clock was set back."""
        rows = self._execute("SELECT function, cron, timezone FROM schedules").fetchall()
        for function_id, cron, timezone in rows:
            sql = "UPDATE schedules SET next_at = min(next_at, ?) WHERE function = ? AND cron = ? AND timezone = ?"
            self._execute(sql, (next_tick(cron, timezone, now), function_id, cron, timezone))

    def take_ticks(self, now: int) -> list[tuple[str, dict[str, Any]]]:
        """Due ticks as (function id, event). After a downtime only the latest missed tick of a trigger is included."""
        sql = "SELECT function, cron, timezone, next_at FROM schedules WHERE next_at <= ? AND paused = 0"
        ticks = []
        for function_id, cron, timezone, due in self._execute(sql, (now,)).fetchall():
            at = latest_tick(cron, timezone, due - 1, now) or due
            ticks.append((function_id, tick_event(function_id, cron, at)))
            sql = "UPDATE schedules SET next_at = ? WHERE function = ? AND cron = ? AND timezone = ?"
            self._execute(sql, (next_tick(cron, timezone, now), function_id, cron, timezone))
        return ticks
