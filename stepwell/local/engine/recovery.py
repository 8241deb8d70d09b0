"""Restores attempts and queues in memory from the store, after a restart or a rollback."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from stepwell.core.run.messages import AttemptLost, RunStarted
from stepwell.core.run.permits import RUN
from stepwell.core.run.run import RunStatus, StepStatus, has_begun
from stepwell.local.engine.backlog import Backlog
from stepwell.local.engine.executor import Executor
from stepwell.local.store.store import LocalStore
from stepwell.platform import Attempt, AttemptId, DamagedRun, Effects, QueuedAttempt, RunFact, RunRecord

_RUNS_AT_ONCE = 500

log = logging.getLogger("stepwell.local")


class Recovery:
    def __init__(self, store: LocalStore, executor: Executor, backlog: Backlog) -> None:
        self._store, self._executor, self._backlog = store, executor, backlog

    def pieces(self) -> Iterator[Sequence[str]]:
        """The ids of all active runs, in pieces."""
        active = self._store.active()
        for start in range(0, len(active), _RUNS_AT_ONCE):
            yield active[start : start + _RUNS_AT_ONCE]

    def recover_all(self) -> None:
        """Recovers all active runs, and begins to admit those that limits delay."""
        self.recover(self._store.active())
        self.admit()

    def admit(self) -> None:
        """Begins to admit the starts that limits delay, when all runs are recovered."""
        self._executor.limits.open(self._started_with_limits())

    def _started_with_limits(self) -> Iterator[RunRecord]:
        for run_ids in self._store.started_with_limits():
            for record in self._load(run_ids).values():
                if has_begun(record.run):
                    yield record

    def recover(self, run_ids: Sequence[str]) -> None:
        """Restores the attempts of these runs. Call it between batches. Raises sqlite3.Error if the database cannot be
        read.

        Queued attempts are queued again, claimed attempts that do not run are reported as lost, and runs that have not
        begun begin. Attempts that another system has accepted are not lost with the server. Neither are those that
        workers fetch: their claims are made for workers that are asking."""
        running, accepted = self._executor.running, self._store.accepted
        for run_id, record in self._load(run_ids).items():
            if record.run.status is RunStatus.RUNNING and not has_begun(record.run):
                if record.plan.start_limits:
                    self._executor.carry_out(Effects(held=[QueuedAttempt(record, RUN, 0)]))
                else:
                    self._backlog.facts.add([RunFact(run_id, RunStarted())])
            for i, state in enumerate(record.run.steps):
                if state.status is StepStatus.QUEUED:
                    self._executor.carry_out(Effects(queued=[QueuedAttempt(record, i, state.attempt)]))
                elif record.plan.steps[i].is_approval:
                    continue  # no process was lost, and the timer of the approval continues
                elif state.status is StepStatus.RUNNING and (run_id, i, state.attempt) not in running:
                    if record.plan.steps[i].is_fetched or (run_id, i, state.attempt) in accepted:
                        self._executor.resume(Attempt(record, i, state.attempt, b""))
                    else:
                        self._backlog.facts.add([RunFact(run_id, AttemptLost(i, state.attempt))])

    def _load(self, run_ids: Sequence[str]) -> dict[str, RunRecord]:
        """Runs by id. A damaged run is left out and logged, so that it does not affect others."""
        try:
            return self._store.load(run_ids)
        except DamagedRun:
            if len(run_ids) == 1:
                log.exception("run %s cannot be read and does not continue", run_ids[0])
                return {}
        return {name: record for run_id in run_ids for name, record in self._load([run_id]).items()}

    def lose_running(self) -> None:
        """Reports all attempts that run here or that no worker has got as lost, so that they are queued again."""
        self.lose([*self._executor.running_here, *self._executor.worker_queues.take_undelivered()])

    def lose(self, attempts: Iterable[AttemptId]) -> None:
        """Reports attempts as lost, so that the next ones are queued."""
        self._backlog.facts.add(RunFact(run_id, AttemptLost(step, number)) for run_id, step, number in attempts)
