"""Attempts and queues after a restart or a rollback: what the store says decides, memory is filled from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwell.core.run.messages import AttemptLost
from stepwell.core.run.run import StepStatus
from stepwell.engine import RunFact
from stepwell.local.database.store import LocalStore
from stepwell.local.engine.backlog import Backlog
from stepwell.local.engine.executor import Executor

_RUNS_AT_ONCE = 500


class Recovery:
    def __init__(self, store: LocalStore, executor: Executor, backlog: Backlog) -> None:
        self._store, self._executor, self._backlog = store, executor, backlog

    def pieces(self) -> Iterator[Sequence[str]]:
        """The ids of all active runs, some at a time."""
        active = self._store.active()
        for start in range(0, len(active), _RUNS_AT_ONCE):
            yield active[start : start + _RUNS_AT_ONCE]

    def recover_all(self) -> None:
        """`recover` all active runs."""
        self.recover(self._store.active())

    def recover(self, run_ids: Sequence[str]) -> None:
        """Queue the queued attempts of these runs again, and report claimed attempts that do not run as lost. Call it
        between batches. Raises sqlite3.Error if the database cannot be read."""
        running = self._executor.running
        for run_id, record in self._store.load(run_ids).items():
            for i, state in enumerate(record.run.steps):
                if state.status is StepStatus.QUEUED:
                    self._executor.queue(record, i, state.attempt, calls=record.plan.steps[i].calls)
                elif record.plan.steps[i].is_approval:
                    continue  # nothing ran of it, and its time goes on
                elif state.status is StepStatus.RUNNING and (run_id, i, state.attempt) not in running:
                    self._backlog.facts.add([RunFact(run_id, AttemptLost(i, state.attempt))])

    def lose_running(self) -> None:
        """Report all attempts that run as lost, so that the next start queues them again."""
        running = self._executor.running
        self._backlog.facts.add(RunFact(run_id, AttemptLost(step, number)) for run_id, step, number in running)
