"""Converts a run into an item of the table, and back.

The item stays small, because each transition writes all of it. It contains the results of attempts only while they are
short. A long output is stored in an item of its own, and a long history in pages. The keys of both contain a hash of
the content, and both are written before the run refers to them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import orjson

from stepwell.aws.table.keys import (
    STATUS_SHARDS,
    Item,
    approval_key,
    approvals_partition,
    run_key,
    shard_of,
    status_partition,
)
from stepwell.aws.table.run_records import AT_ONCE, Record
from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.events.events import Event, user_key
from stepwell.core.run.messages import Timer
from stepwell.core.run.run import Run, RunStatus, StepStatus, pack, unpack
from stepwell.core.run.stored_links import stored_body
from stepwell.platform import Causes

SHORT = 300  # bytes; a result up to this size always stays in the run's item
SMALL = 1000  # bytes; an item up to this size costs one write unit
_PAGE = 4000  # bytes; a longer history is moved into a page
_PLAIN = 500  # bytes; longer JSON is compressed
_EVENT = 400  # bytes; a shorter event is copied into the runs, so that a run is read with one request
_DAY_S = 86_400


@dataclass(slots=True)
class StoredRun:
    """The content of a run's item."""

    run: Run
    function: str
    version: int
    position: int
    after: int
    event_id: str
    event_position: int
    event_body: bytes | None  # None: only in the event's item
    user: str | None
    rerun_of: str | None
    replay: str | None
    attempts: list[StoredAttempt]
    pages: list[str]  # sort keys of the items that contain earlier attempts
    causes: dict[int, tuple[str, int]]
    revision: int  # counts the writes of the item
    wide_at: int  # the last revision at which the run was wide; 0: never
    watched: int | None = None  # the time (ms) of a scheduled check by the sweeper (`watches`), if there is one


def stored_run(item: Item) -> StoredRun:
    run_id = item["pk"]["S"][2:]
    run = unpack(run_id, _expanded(item["s"]["B"]))
    body = item["e"]["B"] if "e" in item else None
    return StoredRun(
        run=run,
        function=item["f"]["S"],
        version=int(item["n"]["N"]),
        position=int(item["p"]["N"]),
        after=int(item["a"]["N"]),
        event_id=item["ei"]["S"] if body is None else orjson.loads(body)["id"],
        event_position=int(item["ep"]["N"]) if "ep" in item else int(item["a"]["N"]),  # left out if it equals `after`
        event_body=body,
        user=item["u"]["S"] if "u" in item else None,
        rerun_of=item["ro"]["S"] if "ro" in item else None,
        replay=item["rp"]["S"] if "rp" in item else None,
        attempts=read_attempts(item["h"]["B"], run.created_at) if "h" in item else [],
        pages=[page["S"] for page in item["hp"]["L"]] if "hp" in item else [],
        causes=_read_causes(_expanded(item["c"]["B"]), run) if "c" in item else {},
        revision=int(item["v"]["N"]),
        wide_at=_wide_at(item, run),
        watched=int(item["l"]["N"]) if "l" in item else None,
    )


def _wide_at(item: Item, run: Run) -> int:
    """The last revision at which the run was wide.

    Earlier versions of Stepwell did not store it: they treated every run with that many steps as wide.
    """
    if len(run.steps) <= AT_ONCE:
        return 0
    return int(item["w" if "w" in item else "v"]["N"])


def read_attempts(content: bytes, since: int) -> list[StoredAttempt]:
    return [StoredAttempt.from_json(row, since) for row in orjson.loads(_expanded(content))]


def write_attempts(attempts: list[StoredAttempt], since: int) -> bytes:
    return _compact(orjson.dumps([attempt.to_json(since) for attempt in attempts]))


def run_item(record: Record, ttl: int) -> Item:
    """The item of a run at the next revision. `ttl` (s): when it may be deleted; only set once the run has ended."""
    run, event, stored = record.run, record.event, record.stored
    item: Item = {
        **run_key(run.id),
        "v": {"N": str(stored.revision + 1)},
        "s": {"B": _compact(pack(run))},
        "f": {"S": record.plan.function_id},
        "n": {"N": str(record.plan.version)},
        "p": {"N": str(stored.position)},
        "a": {"N": str(record.after)},
    }
    if is_kept_in_runs(event):
        item["e"] = {"B": stored_body(event)}
    else:
        item["ei"] = {"S": event.id}
    if event.position != record.after:
        item["ep"] = {"N": str(event.position)}
    if (user := user_key(event.user)) is not None:
        item["u"] = {"S": user}
    if record.rerun_of is not None:
        item["ro"] = {"S": record.rerun_of}
    if record.replay is not None:
        item["rp"] = {"S": record.replay}
    if stored.attempts:
        item["h"] = {"B": write_attempts(stored.attempts, run.created_at)}
    if stored.pages:
        item["hp"] = {"L": [{"S": page} for page in stored.pages]}
    if len(run.steps) > AT_ONCE:
        item["w"] = {"N": str(record.next_wide_at)}
    if record.causes:
        item["c"] = {"B": _write_causes(record.causes, run)}
    if stored.watched is not None:
        item["l"] = {"N": str(stored.watched)}
    partition = _status_partition(run, stored.position)
    if partition is not None:
        item["gk"], item["gs"] = {"S": partition}, {"N": str(stored.position)}
    if run.ended_at is not None:
        item["ttl"] = {"N": str(ttl)}
    return item


def approval_item(record: Record, timer: Timer, until: int) -> Item:
    """The item through which the index lists an open approval. It expires a day after `until` (ms)."""
    run_id = record.run.id
    return {
        **approval_key(run_id, timer.index, timer.attempt),
        "gk": {"S": approvals_partition(shard_of(run_id, STATUS_SHARDS))},
        "gs": {"N": str(record.stored.position)},
        "ttl": {"N": str(until // 1000 + _DAY_S)},
    }


def is_kept_in_runs(event: Event) -> bool:
    return len(event.body) <= _EVENT


def _write_causes(causes: Causes, run: Run) -> bytes:
    """The causes by step: message id and time. The time is left out if the attempt started at that time."""
    rows = [[step, name] if at == run.steps[step].at else [step, name, at] for step, (name, at) in causes.items()]
    return _compact(orjson.dumps(rows))


def _read_causes(content: bytes, run: Run) -> dict[int, tuple[str, int]]:
    rows = orjson.loads(content)
    return {step: (item, at[0] if at else run.steps[step].at) for step, item, *at in rows}


def _compact(content: bytes) -> bytes:
    """The content, compressed if it is large. Large states repeat themselves and shrink to about a tenth."""
    return content if len(content) <= _PLAIN else zlib.compress(content)


def _expanded(content: bytes) -> bytes:
    return zlib.decompress(content) if content[:1] == b"x" else content  # JSON never begins with an x


def is_long_history(record: Record) -> bool:
    """Whether the attempts should be moved into a page."""
    return sum(40 + attempt.size * (attempt.ref is None) for attempt in record.stored.attempts) > _PAGE


def is_long_result(record: Record, attempt: StoredAttempt) -> bool:
    """Whether a result should be stored in a separate item."""
    if attempt.size > SHORT * 10:
        return True
    others = sum(60 + attempt.size * (attempt.ref is None) for attempt in record.stored.attempts)
    event = min(len(record.event.body), _EVENT)
    return attempt.size > SHORT and 350 + event + others + attempt.size > SMALL


def result_steps(run: Run) -> tuple[set[int], set[int]]:
    """The steps that have an output, and those that have an error."""
    completed = {i for i, step in enumerate(run.steps) if step.status is StepStatus.COMPLETED}
    failed = {i for i, step in enumerate(run.steps) if step.status is StepStatus.FAILED}
    return completed, failed


def _status_partition(run: Run, position: int) -> str | None:
    shard = shard_of(run.id, STATUS_SHARDS)
    if run.status is RunStatus.COMPLETED:
        return None
    if run.status is RunStatus.RUNNING:
        return status_partition("running", shard)
    if any(step.status is StepStatus.RUNNING for step in run.steps):  # running attempts of a failed run may end
        return status_partition("ending", shard)
    from stepwell.aws.table.positions import month_of

    return status_partition(run.status.name.lower(), shard, month_of(position))
