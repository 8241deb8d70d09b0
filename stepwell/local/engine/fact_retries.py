"""Retries facts that could not be folded, for example because of a damaged row, with growing delays.

Facts of timers become timers again, which survive a restart. After a restart the others follow from the store: a
claimed attempt is lost, a run that has not begun begins, and a wait checks for events again at the deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from stepwell.core.run.messages import AttemptStarted, timer_of
from stepwell.local.engine.backlog import Backlog
from stepwell.local.engine.recovery import Recovery
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.store import LocalStore
from stepwell.platform import RunFact

log = logging.getLogger("stepwell.local")

_LONGEST_S = 60.0
_FORGOTTEN_S = 2 * _LONGEST_S  # without another failure, a run counts as healthy after this time


class FactRetries:
    """Submits facts of a run again: first after `first_s` seconds, then after twice as long each time."""

    def __init__(
        self, store: LocalStore, backlog: Backlog, recovery: Recovery, first_s: float, schedule: Callable[[], None]
    ) -> None:
        self._store, self._backlog, self._recovery = store, backlog, recovery
        self._first_s, self._schedule = first_s, schedule
        self._tries: dict[str, tuple[int, float]] = {}  # by run: number of tries, and the event loop's time of the last
        self._waiting: dict[str, list[RunFact]] = {}  # by run
        self._handles: dict[str, asyncio.TimerHandle] = {}  # by run: the newest timer

    def set_timers(self, batch: LocalBatch, facts: Sequence[RunFact]) -> None:
        """Sets timers again for the facts that came from timers, as part of the batch."""
        for fact in facts:
            timer = timer_of(fact.fact)
            if timer is not None:
                batch.set_timer(fact.run_id, timer, batch.now + round(self._delay_s(fact.run_id) * 1000))

    def add(self, facts: Sequence[RunFact]) -> None:
        """Submits these facts again later, except those of timers. Call it after the commit of the batch that could not
        fold them."""
        if not facts:
            return
        now, by_run = asyncio.get_running_loop().time(), dict[str, list[RunFact]]()
        self._tries = {run_id: tries for run_id, tries in self._tries.items() if tries[1] > now - _FORGOTTEN_S}
        for fact in facts:
            by_run.setdefault(fact.run_id, []).append(fact)
        for run_id, some in by_run.items():
            self._store.cache.drop(run_id)  # so that it is read again
            delay_s = self._delay_s(run_id)
            self._tries[run_id] = (self._tries_of(run_id) + 1, now)
            log.warning("facts of run %s could not be folded, trying again in %s s", run_id, delay_s)
            others = [fact for fact in some if timer_of(fact.fact) is None]
            if others:
                self._wait(run_id, others, delay_s)

    def _wait(self, run_id: str, facts: Sequence[RunFact], delay_s: float) -> None:
        if run_id in self._handles:
            self._handles[run_id].cancel()
        self._waiting.setdefault(run_id, []).extend(facts)
        self._handles[run_id] = asyncio.get_running_loop().call_later(delay_s, self._hand_in, run_id)

    def _delay_s(self, run_id: str) -> float:
        return min(_LONGEST_S, self._first_s * 2.0 ** min(self._tries_of(run_id), 16))

    def _tries_of(self, run_id: str) -> int:
        return self._tries[run_id][0] if run_id in self._tries else 0

    def _hand_in(self, run_id: str) -> None:
        facts = self._waiting.pop(run_id)
        del self._handles[run_id]
        if any(isinstance(fact.fact, AttemptStarted) for fact in facts):  # the attempt has no slot any more
            self._recovery.recover([run_id])
        self._backlog.facts.add([fact for fact in facts if not isinstance(fact.fact, AttemptStarted)])
        self._schedule()

    def close(self) -> None:
        for handle in self._handles.values():
            handle.cancel()
