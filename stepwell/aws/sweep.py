"""The sweeper: runs that stand still because a message was lost go on all the same.

Every timer can be derived again from its run, and an attempt that has been silent for longer than it could take was
lost, or, if its Lambda is not ours, has failed. One rule: what is only late is left alone, so that the sweeper never
overtakes a message that is on its way. What it finds becomes messages, which come again until they are done. Where
there are more open runs than it can look at in a minute, it goes on there the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.items import put_items, read_item
from stepwell.aws.resources import Resources
from stepwell.aws.table import STATUS_INDEX, STATUS_SHARDS, Key, status_partition, sweep_key
from stepwell.core.messages import (
    AttemptEnded,
    AttemptLost,
    DeadlinePassed,
    DelayEnded,
    Fact,
    RetryDue,
    RunStarted,
    Timer,
    TimerKind,
)
from stepwell.core.outcome import failure
from stepwell.core.plan import Plan
from stepwell.core.run import PauseStatus, StepStatus
from stepwell.platform import RunRecord

_LATE_MS = 120_000  # after which a timer's message is taken to be lost
_START_MS = 60_000
_UNDECIDED = "Undecided"
_FACTS: dict[str, Callable[..., Fact]] = {
    _UNDECIDED: lambda step, attempt: Timer(TimerKind.DECISION, step, attempt).fact(),
    **{its.__name__: its for its in (AttemptLost, DeadlinePassed, DelayEnded, RetryDue, RunStarted)},
}


def overdue(record: RunRecord, now: int, event_age_ms: int, silence_ms: int | None = None) -> list[Fact]:
    """The facts that should have come for this run by now. An attempt is lost once it was silent for longer than it may
    wait and run, or for `silence_ms`."""
    facts: list[Fact] = []
    for i, step in enumerate(record.run.steps):
        if step.status is StepStatus.RUNNING and record.plan.steps[i].asks:
            if step.at + record.plan.steps[i].timeout_ms + _LATE_MS <= now:
                facts.append(Timer(TimerKind.DECISION, i, step.attempt).fact())
        elif step.status is StepStatus.RUNNING:
            claimed = max(step.at, record.causes.get(i, ("", 0))[1])
            longest = event_age_ms + record.plan.steps[i].timeout_ms + _START_MS
            if claimed + (longest if silence_ms is None else silence_ms) <= now:
                facts.append(AttemptLost(i, step.attempt))
        elif step.status is StepStatus.RETRYING and step.at + _LATE_MS <= now:
            facts.append(RetryDue(i, step.attempt))
        elif step.status is StepStatus.QUEUED and step.at + _LATE_MS <= now:
            facts.append(RunStarted())  # which is stale, and so asks for what the run is owed
    for p, pause in enumerate(record.run.pauses):
        if pause.due_at + _LATE_MS <= now:
            if pause.status is PauseStatus.DELAYED:
                facts.append(DelayEnded(p))
            elif pause.status is PauseStatus.AWAITING:
                facts.append(DeadlinePassed(p))
    return facts


def to_rows(facts: Sequence[Fact]) -> list[list[str | int]]:
    return [
        [_UNDECIDED, fact.step, fact.attempt]  # the one way to end that takes no outcome
        if isinstance(fact, AttemptEnded)
        else [type(fact).__name__, *(getattr(fact, its.name) for its in fields(fact))]
        for fact in facts
    ]


def from_rows(rows: Sequence[Sequence[Any]], plan: Plan) -> list[Fact]:
    return [_silent(fact, plan) for name, *numbers in rows if (fact := _FACTS[name](*numbers))]


def _silent(fact: Fact, plan: Plan) -> Fact:
    """Lambda tells of whatever ends an invocation, but of an answer that is too long, or that a role may not send, it
    tells nobody. Of our own Lambdas neither can be; another try of somebody else's would end in the same way."""
    arn = plan.steps[fact.step].runtime.arn if isinstance(fact, AttemptLost) else None
    if arn is None or not isinstance(fact, AttemptLost):
        return fact
    text = (
        f"no answer of {arn} came, as when it answers about 1 MB or more, which Lambda drops (answer less, and pass a"
        " reference to large data), or its role may not send messages to the queue of outcomes (`stepwell push` says"
        " what it needs)"
    )
    return AttemptEnded(fact.step, fact.attempt, failure("no_answer", text, retryable=False))


def open_runs(
    resources: Resources, shard: int, page: int, start: Key | None = None
) -> Iterator[tuple[list[str], Key | None]]:
    """The ids of runs of which something runs, also if they have failed, in pages, of one of the index's shards; each
    page with where the next begins, None after the last."""
    query = client("dynamodb").get_paginator("query")
    partitions = [status_partition(status, shard) for status in ("running", "ending")]
    for partition in partitions[partitions.index(start["gk"]["S"]) if start else 0 :]:
        options = {"ExclusiveStartKey": start} if start and start["gk"]["S"] == partition else {}
        for found in query.paginate(
            TableName=resources.table,
            IndexName=STATUS_INDEX,
            KeyConditionExpression="gk = :gk",
            ExpressionAttributeValues={":gk": {"S": partition}},
            PaginationConfig={"PageSize": page},
            **options,
        ):
            if found["Items"]:
                yield [item["pk"]["S"][2:] for item in found["Items"]], found.get("LastEvaluatedKey")


def read_cursor(resources: Resources, shard: int) -> Key | None:
    """Where the last sweep of a shard stopped, if it did not come to the end."""
    item = read_item(resources.table, sweep_key(shard))
    return item["k"]["M"] if item and "k" in item else None


def write_cursor(resources: Resources, shard: int, at: Key | None) -> None:
    put_items(resources.table, [{**sweep_key(shard), **({"k": {"M": at}} if at else {})}])


def shards_of(minute: int) -> list[int]:
    """The shards that are swept in a minute: each one every eight minutes."""
    return [minute % STATUS_SHARDS]
