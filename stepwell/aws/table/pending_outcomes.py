"""Pending outcomes of wide runs: each batch stores outcomes in one item, and one write of the run folds them all.

A batch that folds a run also folds the outcomes that other batches stored. If an attempt has two outcomes, the earlier
one counts. So outcomes that start nothing new may stay pending: the batch that stores the last outcome reads all of
them.

A batch stores outcomes under the revision of the run that it read. It leaves them pending only while the run is at that
revision or at the next one: it may lose one race. A batch that folds at the same time may have read the outcomes just
before, and it creates one more revision. So the outcomes that are pending at revision r are stored under r - 2 or
later, and earlier ones are not read again. Therefore the reads of a run grow with the number of outcomes, not with the
square of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from stepwell.aws.table.items import read_partition
from stepwell.aws.table.keys import OUTCOMES, Item, Key, item_key, outcomes_from, outcomes_key, overflow_key, run_key
from stepwell.core.run.messages import AttemptEnded, Error, Outcome
from stepwell.core.run.run import Run, RunStatus, StepStatus

LOST_RACES = 1  # races that a batch may lose and still leave outcomes pending
_BEHIND = LOST_RACES + 1  # revisions before the current one under which outcomes may be pending
SHORT_OUTCOME = 1000  # bytes; a longer outcome is stored in a separate item


class Ended(NamedTuple):
    fact: AttemptEnded
    request_id: str | None


def outcome_items(run_id: str, revision: int, ended: Sequence[Ended], now: int, ttl: int) -> list[Item]:
    """The items that store outcomes under a revision of the run: the long outcomes, then the item that lists all."""
    long: list[Item] = []
    rows: list[Any] = []
    for fact, request_id in ended:
        content = orjson.dumps({**_to_json(fact.outcome), "request_id": request_id})
        value: object = orjson.Fragment(content)
        if len(content) > SHORT_OUTCOME:
            key = overflow_key(run_id, fact.step, fact.attempt, content)
            long.append({**key, "c": {"B": content}, "ttl": {"N": str(ttl)}})
            value = key["sk"]["S"]
        rows.append([fact.step, fact.attempt, value])
    body = orjson.dumps(rows)
    return [*long, {**outcomes_key(run_id, revision, now, body), "c": {"B": body}, "ttl": {"N": str(ttl)}}]


def may_have_pending(run: Run, revision: int, wide_at: int) -> bool:
    """Whether the run may have pending outcomes. `wide_at`: the last revision at which the run was wide, or 0."""
    goes_on = run.status in (RunStatus.RUNNING, RunStatus.FAILED)
    return goes_on and wide_at > 0 and revision - wide_at <= _BEHIND


def read_outcomes(table: str, run: Run, revision: int, read: Callable[[Sequence[Key]], list[Item]]) -> list[Ended]:
    """The pending outcomes of attempts that are still running according to the run, earliest first."""
    wanted: dict[tuple[int, int], tuple[Any, int]] = {}
    first = outcomes_from(revision - _BEHIND)
    rows = read_partition(table, run_key(run.id)["pk"]["S"], OUTCOMES, first=first, ConsistentRead=True)
    for at, item in sorted(((_time_of(item), item) for item in rows), key=itemgetter(0)):
        for step, attempt, entry in orjson.loads(item["c"]["B"]):
            state = run.steps[step]
            if state.status is StepStatus.RUNNING and state.attempt == attempt:
                wanted.setdefault((step, attempt), (entry, at))
    refs = [item_key(run.id, item) for item, _ in wanted.values() if isinstance(item, str)]
    long = {item["sk"]["S"]: orjson.loads(item["c"]["B"]) for item in (read(refs) if refs else [])}
    found = {name: (long[item] if isinstance(item, str) else item, at) for name, (item, at) in wanted.items()}
    return [Ended(AttemptEnded(*name, _from_json(item), at), item["request_id"]) for name, (item, at) in found.items()]


def _time_of(item: Item) -> int:
    """When outcomes were stored (ms): the part of the sort key before the digest."""
    return int(item["sk"]["S"].split("#")[-2])


def _to_json(outcome: Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "output": None if outcome.output is None else outcome.output.decode(),
        "error": error
        and [error.kind, error.message, error.status, None if error.output is None else error.output.decode()],
        "retryable": outcome.retryable,
        "retry_after_ms": outcome.retry_after_ms,
    }


def _from_json(data: dict[str, Any]) -> Outcome:
    error = None
    if data["error"] is not None:
        kind, message, status, output = data["error"]
        error = Error(kind, message, status, None if output is None else output.encode())
    output = None if data["output"] is None else data["output"].encode()
    return Outcome(output, error, data["retryable"], data["retry_after_ms"])
