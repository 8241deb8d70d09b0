"""Outcomes of wide runs: written down before they are folded, so that one write of the run folds many.

Whoever folds a wide run takes along what others wrote down. A success from which nothing follows waits for the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace

from stepwell.aws.table.pending_outcomes import (
    LOST_RACES,
    SHORT_OUTCOME,
    Ended,
    may_have_waiting,
    outcome_items,
    read_outcomes,
)
from stepwell.aws.table.run_records import Record
from stepwell.aws.table.table import Table
from stepwell.core.run.messages import AttemptEnded, Command, RecordAttempt
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.platform import AttemptId, Cause, RunFact, Transition

_FOLDED_AT_ONCE = 40  # outcomes of a run from which on they wait no longer


class SharedOutcomes:
    """Of the runs of one batch. `request_ids`: of the attempts whose outcomes are known."""

    def __init__(self, table: Table, request_ids: MutableMapping[AttemptId, str], retention_s: int, now: int) -> None:
        self._table, self._request_ids, self._retention_s, self._now = table, request_ids, retention_s, now
        self._deferrable: dict[str, int] = {}  # runs that the batch brings only outcomes for, and their revisions
        self._changed: dict[str, Cause | None] = {}  # wide runs that it has changed otherwise, by what

    def write(self, facts: Sequence[RunFact], records: Mapping[str, Record]) -> list[RunFact]:
        """Write down the outcomes of runs of which many attempts run. Answers the facts, with the times of these."""
        timed: list[RunFact] = []
        ended: dict[str, list[Ended]] = defaultdict(list)
        others: set[str] = set()
        for fact in facts:
            record, outcome = records.get(fact.run_id), fact.fact
            if record is None or not _shares_outcomes(record) or not isinstance(outcome, AttemptEnded):
                others.add(fact.run_id)
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
            if run_id not in others:
                self._deferrable[run_id] = revision
        return timed

    def read(self, record: Record) -> Sequence[AttemptEnded]:
        """The outcomes of a run that are written down and not folded, the earliest first."""
        if not _may_have_waiting(record):
            return ()
        found = read_outcomes(self._table.name, record.run, record.stored.revision, self._table.get_many)
        run_id = record.run.id
        self._request_ids.update({(run_id, end.step, end.attempt): known for end, known in found if known is not None})
        return [fact for fact, _ in found]

    def run_was_written(self, transition: Transition, record: Record) -> None:
        """The run was written; its revision is not counted yet."""
        if _may_have_waiting(record) and not self._is_seen(record):
            self._changed[record.run.id] = transition.causes[-1] if transition.causes else None
        self._deferrable.pop(record.run.id, None)

    def take_overtaken(self) -> dict[str, Cause | None]:
        """Runs of which outcomes may have been left to wait by somebody who did not know yet what this batch has
        written since: now they may have consequences."""
        changed, self._changed = self._changed, {}
        return changed

    def may_wait(self, transition: Transition, record: Record) -> bool:
        """Whether nothing follows from a transition but that some outcomes are known, which are written down already,
        and others are still to come; but not those of people, who may take a year."""
        running = (i for i, step in enumerate(record.run.steps) if step.status is StepStatus.RUNNING)
        return (
            self._is_seen(record)
            and any(i not in record.plan.approval_steps for i in running)
            and record.run is not transition.before.run
            and len(transition.commands) < _FOLDED_AT_ONCE
            and not transition.claims
            and all(map(_is_short_success, transition.commands))
        )

    def _is_seen(self, record: Record) -> bool:
        """Whether this batch has written outcomes down, and nothing else, for the run, under a revision from which
        everybody reads who folds this revision of the run or the next one."""
        seen = self._deferrable.get(record.run.id)
        return seen is not None and record.stored.revision - seen <= LOST_RACES


def _shares_outcomes(record: Record) -> bool:
    """Whether the outcomes of a run are written down before they are folded. Of an erased event nothing is kept."""
    goes_on = record.run.status in (RunStatus.RUNNING, RunStatus.FAILED)
    return record.is_wide and goes_on and not record.event.erased


def _may_have_waiting(record: Record) -> bool:
    """Whether outcomes may be written down that are not folded at this revision."""
    stored = record.stored
    return may_have_waiting(record.run, stored.revision, stored.wide_at) and not record.event.erased


def _is_short_success(command: Command) -> bool:
    if not isinstance(command, RecordAttempt) or command.status != "completed":
        return False
    return len(command.output or b"") <= SHORT_OUTCOME
