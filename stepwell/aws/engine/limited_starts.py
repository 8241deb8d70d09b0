"""Whether a limited run or attempt executes, or needs no permit any more."""

from __future__ import annotations

from stepwell.aws.table.run_records import Record
from stepwell.core.run.permits import RUN, is_waiting
from stepwell.core.run.run import StepStatus, has_begun
from stepwell.platform import AttemptId


def is_running(record: Record, start: AttemptId) -> bool:
    _, step, attempt = start
    if step == RUN:
        return record.run.ended_at is None and has_begun(record.run)
    state = record.run.steps[step]
    return state.status is StepStatus.RUNNING and state.attempt == attempt


def is_over(record: Record, start: AttemptId, *, is_reported: bool) -> bool:
    """Whether a start needs no permit any more. A cancelled attempt executes until its end is reported."""
    if is_waiting(record.run, start) or is_running(record, start):
        return False
    return is_reported or start[1] == RUN or not _was_cancelled(record, start) or never_started(record, start)


def _was_cancelled(record: Record, start: AttemptId) -> bool:
    _, step, attempt = start
    state = record.run.steps[step]
    return state.status is StepStatus.CANCELLED and state.attempt == attempt


def never_started(record: Record, start: AttemptId) -> bool:
    """Whether a start was cancelled while it waited."""
    _, step, attempt = start
    if step == RUN:
        return record.run.started_at is None
    ended = [found for found in record.stored.attempts if (found.step, found.attempt) == (step, attempt)]
    return bool(ended) and ended[0].started_at is None
