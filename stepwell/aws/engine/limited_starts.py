"""Limited runs and attempts: their facts, their order, and whether they need a permit any more."""

from __future__ import annotations

from stepwell.aws.table.keys import Key
from stepwell.aws.table.limit_keys import waiter_key
from stepwell.aws.table.permits import Bucket
from stepwell.aws.table.run_records import Record
from stepwell.core.run.messages import AttemptStarted, Fact, RunStarted
from stepwell.core.run.permits import RUN, Permit, is_waiting, rank_of
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


def fact(start: AttemptId) -> Fact:
    """The fact that starts a run or an attempt."""
    _, step, attempt = start
    return RunStarted() if step == RUN else AttemptStarted(step, attempt)


def order(permit: Permit) -> tuple[bool, bool, bool, str, bytes]:
    """The place of a permit in the order in which all starts take theirs."""
    limit = permit.limit
    return bool(limit.period_ms), limit.key is None, "/steps/" not in limit.id, limit.id, permit.key


def rank(record: Record) -> int:
    """The place of a run among those that wait for the same limit."""
    return rank_of(record.plan, record.run, record.event)


def text_of(key: Key) -> str:
    """A key as one text."""
    return f"{key['pk']['S']} {key['sk']['S']}"


def waiter_of(record: Record, start: AttemptId, bucket: Bucket) -> Key:
    """The key of the item with which a start waits."""
    return waiter_key(bucket.partition, rank(record), record.stored.position, "{}/{}/{}".format(*start))
