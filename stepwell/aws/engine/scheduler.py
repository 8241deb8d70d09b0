"""The work of every minute: cron triggers, guarded canaries, far timers, and runs that may be stuck.

The parts are independent: an error in one does not stop the others.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import lru_cache

from stepwell.aws.engine.far_timers import FarTimers
from stepwell.aws.engine.session import EngineSession, engine_session, now_ms
from stepwell.aws.engine.sweeper import Sweeper
from stepwell.aws.functions.schedules import Schedules
from stepwell.aws.functions.shared_state import read_state
from stepwell.aws.queues.messages import entry as queued
from stepwell.aws.queues.messages import limits_message, send_event_message, send_event_name
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.table.items import put_items, read_item
from stepwell.aws.table.keys import STATUS_SHARDS, TIMER_SHARDS
from stepwell.aws.table.limit_keys import LIMITS_STATE
from stepwell.aws.table.permits import Permits
from stepwell.aws.table.samples import read_samples
from stepwell.core.routing.guard import judge, rollback_event
from stepwell.core.routing.versions import Routing

log = logging.getLogger("stepwell.aws")
_GUARDED_BY = 500  # newest runs by which a guard judges a canary
_TIMERS_MS, _SWEEP_MS = 40_000, 50_000  # when sending timers and sweeping stop; `tick` has a timeout of 55 s


class Scheduler:
    """Does the work of `tick`."""

    def __init__(self, session: EngineSession) -> None:
        self._session, resources = session, session.resources
        self._table, self._queue = resources.table, resources.outcomes_queue
        self._schedules = Schedules(resources)
        self._permits = Permits(resources.table)
        self.far_timers = FarTimers(resources)
        self.sweeper = Sweeper(resources, session.registry, session.tokens)

    def tick(self) -> None:
        """Does all work of a minute. Raises the first error after all parts are done.

        The parts: cron triggers that are due soon and guarded canaries, limits whose values have changed, far timers,
        late timers, the sweep.
        """
        now = now_ms()
        minute = now // 60_000
        errors: list[Exception] = []
        for work in (
            lambda: self._ticks_and_guards(now),
            self._look_at_limits,
            lambda: self.far_timers.move(now, now + _TIMERS_MS),
            lambda: self.far_timers.send_late(minute % TIMER_SHARDS, now, now + _TIMERS_MS),
            lambda: self.sweeper.sweep(minute % STATUS_SHARDS, now + _SWEEP_MS),
        ):
            try:
                work()
            except Exception as error:
                log.exception("a part of tick failed")
                errors.append(error)
        if errors:
            raise errors[0]

    def sweep(self, shards: Sequence[int], silence_ms: int | None = None) -> None:
        """Checks all open runs of these shards, for tests. `silence_ms`: see `overdue`."""
        self.sweeper.sweep_all(shards, silence_ms)

    def _look_at_limits(self) -> None:
        """Makes `advance` look at the limits for which starts wait, if a function has changed. A push may not send
        messages, so it cannot do it."""
        if not self._permits.waited_for(most=1)[0]:
            return
        generation = {"N": str(read_state(self._table).generation)}
        if (read_item(self._table, LIMITS_STATE) or {}).get("g") != generation:
            send_messages(self._queue, [queued(limits_message(None))])
            put_items(self._table, [{**LIMITS_STATE, "g": generation}])

    def _ticks_and_guards(self, now: int) -> None:
        for function_id in self._schedules.send(now, self._session.tokens):
            self._guard(function_id, now)

    def _guard(self, function_id: str, now: int) -> None:
        """Judges a guarded canary, and writes the routing if it changes.

        The event about a rollback is sent before the write. If it is sent again, it has the same id.
        """
        routing = self._session.registry.routing(function_id)
        if routing is None:
            return
        verdict = judge(routing, read_samples(self._table, self._session.store.lists, function_id, _GUARDED_BY), now)
        event = rollback_event(function_id, routing, verdict, now)
        if event is not None:
            log.warning("rolled back: function %s, version %s: %s", function_id, event.data["version"], verdict.reason)
            text = event.body.decode()
            message = send_event_message(text, self._session.tokens.of(*send_event_name(event.id, text)))
            send_messages(self._queue, [queued(message)])
        if verdict.routing != routing:

            def change(old: Routing, versions: Collection[int], now: int) -> Routing:
                return verdict.routing if old == routing else old

            self._session.releases.change_routing(function_id, change, now)


@lru_cache(maxsize=1)
def scheduler() -> Scheduler:
    """The process-wide Scheduler."""
    return Scheduler(engine_session())
