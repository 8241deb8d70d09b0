"""The sweeper: runs that stand still because a message was lost go on all the same.

Every timer can be derived again from its run, and an attempt that has been silent for longer than it could take was
lost. One rule: what is only late is left alone, so that the sweeper never overtakes a message that is on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.records import Record
from stepwell.aws.resources import Resources
from stepwell.aws.table import STATUS_INDEX, STATUS_SHARDS, status_partition
from stepwell.core.messages import AttemptLost, DeadlinePassed, DelayEnded, Fact, RetryDue, RunStarted
from stepwell.core.run import PauseStatus, StepStatus

_LATE_MS = 120_000  # after which a timer's message is taken to be lost
_START_MS = 60_000


def overdue(record: Record, now: int, event_age_ms: int, silence_ms: int | None = None) -> list[Fact]:
    """The facts that should have come for this run by now. An attempt is lost once it was silent for longer than it may
    wait and run, or for `silence_ms`."""
    facts: list[Fact] = []
    for i, step in enumerate(record.run.steps):
        if step.status is StepStatus.RUNNING:
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


def open_runs(resources: Resources, shard: int, page: int) -> Iterator[list[str]]:
    """The ids of runs of which something runs, also if they have failed, in pages, of one of the index's shards."""
    query = client("dynamodb").get_paginator("query")
    for partition in ("running", "ending"):
        for found in query.paginate(
            TableName=resources.table,
            IndexName=STATUS_INDEX,
            KeyConditionExpression="gk = :gk",
            ExpressionAttributeValues={":gk": {"S": status_partition(partition, shard)}},
            PaginationConfig={"PageSize": page},
        ):
            items: list[Any] = found["Items"]
            if items:
                yield [item["pk"]["S"][2:] for item in items]


def shards_of(minute: int) -> list[int]:
    """The shards that are swept in a minute: each one every eight minutes."""
    return [minute % STATUS_SHARDS]
