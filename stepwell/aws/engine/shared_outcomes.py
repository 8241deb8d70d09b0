"""Outcomes of wide runs: stored before they are folded, so that one write of the run folds many.

A batch that folds a wide run also folds the outcomes that other batches stored. A success that starts nothing new stays
pending until other outcomes are folded (`table.pending_outcomes`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace

from stepwell.aws.table.pending_outcomes import (
    LOST_RACES,
    SHORT_OUTCOME,
    Ended,
    may_have_pending,
    outcome_items,
    read_outcomes,
)
from stepwell.aws.table.run_records import Record
from stepwell.aws.table.table import Table
from stepwell.core.run.messages import AttemptEnded, Command, RecordAttempt
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.platform import AttemptId, Cause, RunFact, Transition

_FOLDED_AT_ONCE = 40  # from this number of outcomes on they do not stay pending


class SharedOutcomes:
    """The outcomes of the wide runs of one batch. `request_ids`: request ids of the attempts with known outcomes."""

    def __init__(self, table: Table, request_ids: MutableMapping[AttemptId, str], retention_s: int, now: int) -> None:
        self._table, self._request_ids, self._retention_s, self._now = table, request_ids, retention_s, now
        self._deferrable: dict[str, int] = {}  # revisions of the runs for which the batch contains only outcomes
        self._changed: dict[str, Cause | None] = {}  # other wide runs that the batch has changed, with the last cause

    def write(self, facts: Sequence[RunFact], records: Mapping[str, Record]) -> list[RunFact]:
        """Stores the outcomes of wide runs. Returns all facts, with the time of storing in these outcomes."""
        timed: list[RunFact] = []
        ended: dict[str, list[Ended]] = defaultdict(list)
        with_other_facts: set[str] = set()
        for fact in facts:
            record, outcome = records.get(fact.run_id), fact.fact
            if record is None or not _shares_outcomes(record) or not isinstance(outcome, AttemptEnded):
                with_other_facts.add(fact.run_id)
                timed.append(fact)
                continue
            outcome = replace(outcome, at=self._now)
            request_id = self._request_ids.get((fact.run_id, outcome.step, outcome.attempt))
            ended[fact.run_id].append(Ended(outcome, request_id))
            timed.append(fact._replace(fact=outcome))
        for run_id, outcomes in ended.items():
            revision, ttl = records[run_id].stored.revision, self._now // 1000 + self._retention_s
            for item in outcome_items(run_id, revision, outcomes, self._now, ttl):
                self._table.put(item)
            if run_id not in with_other_facts:
                self._deferrable[run_id] = revision
        return timed

    def read(self, record: Record) -> Sequence[AttemptEnded]:
        """The pending outcomes of a run, earliest first."""
        if not _may_have_pending(record):
            return ()
        found = read_outcomes(self._table.name, record.run, record.stored.revision, self._table.get_many)
        run_id = record.run.id
        self._request_ids.update({(run_id, end.step, end.attempt): known for end, known in found if known is not None})
        return [fact for fact, _ in found]

    def run_was_written(self, transition: Transition, record: Record) -> None:
        """Notes that the run was written. Called before the revision of the record is incremented."""
        if _may_have_pending(record) and not self._is_deferrable(record):
            self._changed[record.run.id] = transition.causes[-1] if transition.causes else None
        self._deferrable.pop(record.run.id, None)

    def take_changed(self) -> dict[str, Cause | None]:
        """Runs that this batch has changed, with the last cause of the change.

        Another process that had not read the change may have left outcomes pending. They may start something now.
        """
        changed, self._changed = self._changed, {}
        return changed

    def may_stay_pending(self, transition: Transition, record: Record) -> bool:
        """Whether the outcomes of a transition may stay pending: it starts nothing, and further outcomes will come.

        Open approvals do not count as further outcomes, because they may take a year.
        """
        running = (i for i, step in enumerate(record.run.steps) if step.status is StepStatus.RUNNING)
        return (
            self._is_deferrable(record)
            and any(i not in record.plan.approval_steps for i in running)
            and record.run is not transition.before.run
            and not record.plan.has_limits  # others may wait for the permits
            and len(transition.commands) < _FOLDED_AT_ONCE
            and not transition.claims
            and all(map(_is_short_success, transition.commands))
        )

    def _is_deferrable(self, record: Record) -> bool:
        """Whether this batch contains only outcomes for the run, and every fold of this revision or the next one will
        read them."""
        stored_under = self._deferrable.get(record.run.id)
        return stored_under is not None and record.stored.revision - stored_under <= LOST_RACES


def _shares_outcomes(record: Record) -> bool:
    """Whether outcomes of the run are stored before they are folded. Runs of erased events store nothing more."""
    goes_on = record.run.status in (RunStatus.RUNNING, RunStatus.FAILED)
    return record.is_wide and goes_on and not record.event.erased


def _may_have_pending(record: Record) -> bool:
    """Whether the run may have pending outcomes at this revision."""
    stored = record.stored
    return may_have_pending(record.run, stored.revision, stored.wide_at) and not record.event.erased


def _is_short_success(command: Command) -> bool:
    if not isinstance(command, RecordAttempt) or command.status != "completed":
        return False
    return len(command.output or b"") <= SHORT_OUTCOME
