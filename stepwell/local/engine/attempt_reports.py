"""Reports of attempts: logs while they run, and the outcome at the end. Implements `executor.Listener`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stepwell.core.run.messages import AttemptEnded, Outcome
from stepwell.local.database.log_files import LogFiles
from stepwell.local.engine.attempt_logs import AttemptLogs
from stepwell.local.engine.backlog import Backlog
from stepwell.local.engine.clock import Clock
from stepwell.local.store.store import LocalStore
from stepwell.platform import AttemptId, RunFact

_LOG_DELAY_S = 0.05  # how long a piece of a log may wait to be written with a batch


class AttemptReports:
    """Passes reports on to logs and backlog. `schedule` requests a batch."""

    def __init__(
        self, store: LocalStore, files: LogFiles, backlog: Backlog, clock: Clock, schedule: Callable[[], None]
    ) -> None:
        self._store, self._backlog, self._clock, self._schedule = store, backlog, clock, schedule
        self._logs = AttemptLogs(store, files)
        self._loop = asyncio.get_running_loop()
        self._awaits_logs = False
        self._is_closed = False

    def attempt_ended(self, attempt: AttemptId, outcome: Outcome) -> None:
        run_id, step, number = attempt
        self._store.accepted.remove(attempt)
        self._backlog.facts.add_one(RunFact(run_id, AttemptEnded(step, number, outcome)))
        self._schedule()

    def attempt_accepted(self, attempt: AttemptId) -> None:
        """Another system has the attempt, which is written with the next batch."""
        if not self._is_closed:
            self._store.accepted.add(attempt)
            self._schedule()

    def attempt_logged(self, attempt: AttemptId, stream: str, text: bytes) -> None:
        if self._is_closed:
            return
        if not self._awaits_logs:
            self._awaits_logs = True
            self._loop.call_later(_LOG_DELAY_S, self._write_logs)
        self._logs.add(attempt, self._clock.now(), stream, text)

    def when_logged(self, attempt: AttemptId, then: Callable[[], None]) -> None:
        self._logs.finish(attempt, then)

    def close(self) -> None:
        """Ignores logs from now on: the store is about to be closed."""
        self._is_closed = True

    def _write_logs(self) -> None:
        self._awaits_logs = False
        if self._store.logs:
            self._schedule()
