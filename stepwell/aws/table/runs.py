"""A run as an item of the table, and back.

One rule: an item stays small, since every transition writes all of it. The results of attempts stand in it while they
are short; a long output is an item of its own, and a long history is moved into pages, both named by their content and
written before the run refers to them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from stepwell.aws.table.keys import Item, approval_key, approvals_partition, run_key, shard_of, status_partition
from stepwell.core.events.events import Event, user_key
from stepwell.core.plain_data import immutable
from stepwell.core.run.inputs import JoinedOutputs
from stepwell.core.run.messages import RecordAttempt, Timer
from stepwell.core.run.run import Run, RunStatus, StepStatus, pack, unpack
from stepwell.core.run.stored_links import stored_body
from stepwell.platform import Causes, RunRecord

SHORT = 300  # bytes of a result that stays in the run, as long as the run stays small
SMALL = 1000  # of an item that costs one write unit
_PAGE = 4000  # of a history that is moved out of the run
_PLAIN = 500  # bytes of JSON from which on it is compressed
AT_ONCE = 32  # attempts of a run that may run while each outcome is folded by itself
_EVENT = 400  # of an event that is kept in its runs, so that they are read with one request
STATUS_SHARDS = 8
_DAY_S = 86_400
_STATUSES = ("completed", "failed", "lost", "cancelled", "kept")  # stored as numbers: new ones go to the end


@dataclass(slots=True)
class StoredAttempt:
    """An attempt that is over. `ref` names the item that holds the output or error, if it is long."""

    step: int
    attempt: int
    status: str
    queued_at: int
    started_at: int | None
    ended_at: int
    output: bytes | None = None
    error: bytes | None = None
    request_id: str | None = None
    ref: str | None = None

    @classmethod
    def of(cls, command: RecordAttempt, error: bytes | None, request_id: str | None) -> StoredAttempt:
        c = command
        return cls(
            c.step, c.attempt, c.status, c.queued_at, c.started_at, c.ended_at, c.output, error, request_id
        )  # fmt: skip

    @property
    def size(self) -> int:
        return len(self.output or b"") + len(self.error or b"")

    def to_json(self, since: int) -> list[Any]:
        """Times as milliseconds after `since`, which takes fewer digits."""
        row: list[Any] = [
            self.step,
            self.attempt,
            _STATUSES.index(self.status),
            self.queued_at - since,
            None if self.started_at is None else self.started_at - since,
            self.ended_at - since,
            None if self.output is None or self.ref else orjson.Fragment(self.output),
            None if self.error is None or self.ref else orjson.Fragment(self.error),
            _short_id(self.request_id),
            self.ref,
        ]
        has_null_output = self.output is not None and self.ref is None and self.output == b"null"
        return [*row, 1] if has_null_output else _without_nulls(row)

    @classmethod
    def from_json(cls, row: list[Any], since: int) -> StoredAttempt:
        null_output = len(row) > 10
        padded: list[Any] = [*row, *([None] * 10)]
        step, attempt, status, queued, started, ended, output, error, request_id, ref = padded[:10]
        return cls(
            step,
            attempt,
            _STATUSES[status],
            since + queued,
            None if started is None else since + started,
            since + ended,
            orjson.dumps(output) if output is not None or null_output else None,
            None if error is None else orjson.dumps(error),
            _long_id(request_id),
            ref,
        )


@dataclass(slots=True)
class StoredRun:
    """What the item of a run says."""

    run: Run
    function: str
    version: int
    position: int
    after: int
    event_id: str
    event_position: int
    event_body: bytes | None  # None: in the event's own item
    user: str | None
    rerun_of: str | None
    replay: str | None
    attempts: list[StoredAttempt]
    pages: list[str]  # items that hold earlier attempts
    causes: dict[int, tuple[str, int]]
    revision: int  # counts the item's writes
    wide_at: int  # the last revision at which the run was wide; 0: none
    watched: int | None = None  # when the sweeper looks at it (`watches`), if somebody asked for that


@dataclass(slots=True)
class StoredState:
    """What the item of a run holds besides its record; the store changes it as it writes. `revision` counts the item's
    writes; 0: not written yet."""

    position: int = 0
    revision: int = 0
    attempts: list[StoredAttempt] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    written_causes: Causes = field(default_factory=dict)
    watched: int | None = None
    wide_at: int = 0


@immutable
class Record(RunRecord):
    """A run as the engine works on it, with what its item needs besides."""

    stored: StoredState = field(default_factory=StoredState)

    def changed(
        self,
        run: Run,
        outputs: Mapping[int, bytes],
        errors: Mapping[int, bytes],
        causes: Causes,
        joined: JoinedOutputs | None,
    ) -> Record:
        same = self.plan, self.event, self.after, self.rerun_of, self.replay, self.order
        return Record(run, *same, outputs, errors, causes, joined, self.stored)

    @property
    def is_wide(self) -> bool:
        """Whether so many attempts may end at once that their outcomes are written down before they are folded.
        Everybody who sees the same revision of the run says the same. People end theirs one by one."""
        if len(self.run.steps) <= AT_ONCE:
            return False
        running = sum(step.status is StepStatus.RUNNING for step in self.run.steps)
        return running - len(self.plan.approval_steps) > AT_ONCE

    @property
    def next_wide_at(self) -> int:
        """`wide_at` once the run is written as it is."""
        return self.stored.revision + 1 if self.is_wide else self.stored.wide_at

    def count_write(self) -> None:
        """The run is written as it is."""
        stored = self.stored
        stored.wide_at = self.next_wide_at
        stored.revision += 1
        stored.written_causes = self.causes


class Results(Mapping[int, bytes]):
    """Outputs or errors by step; those that are in other items are read, all at once, when one of them is needed.
    `elsewhere` is shared by all that came of the same item."""

    def __init__(self, known: dict[int, bytes], elsewhere: Elsewhere) -> None:
        self._known, self._elsewhere = known, elsewhere

    def __getitem__(self, step: int) -> bytes:
        if step in self._known:
            return self._known[step]
        return self._elsewhere.read()[step]

    def __contains__(self, step: object) -> bool:
        return step in self._known or step in self._elsewhere.steps

    def __or__(self, more: dict[int, bytes]) -> Results:
        return Results(self._known | more, self._elsewhere)

    def __iter__(self) -> Iterator[int]:
        return iter({**self._known, **dict.fromkeys(self._elsewhere.steps)})

    def __len__(self) -> int:
        return len(self._known.keys() | self._elsewhere.steps)


class Elsewhere:
    """Results that are not in the item of their run. `fetch` reads them."""

    def __init__(self, steps: Set[int], fetch: Callable[[], dict[int, bytes]]) -> None:
        self.steps, self._fetch = steps, fetch
        self._read: dict[int, bytes] | None = None

    def read(self) -> dict[int, bytes]:
        if self._read is None:
            self._read = self._fetch() if self.steps else {}
        return self._read


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
        event_position=int(item["ep"]["N"]) if "ep" in item else int(item["a"]["N"]),
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
    """Earlier versions of Stepwell, which took every run of so many steps to be wide, did not write it down."""
    if len(run.steps) <= AT_ONCE:
        return 0
    return int(item["w" if "w" in item else "v"]["N"])


def read_attempts(content: bytes, since: int) -> list[StoredAttempt]:
    return [StoredAttempt.from_json(row, since) for row in orjson.loads(_expanded(content))]


def write_attempts(attempts: list[StoredAttempt], since: int) -> bytes:
    return _compact(orjson.dumps([attempt.to_json(since) for attempt in attempts]))


def run_item(record: Record, ttl: int) -> Item:
    """The item of a run at its next revision. `ttl`: when it may be deleted, counted only once the run has ended."""
    run, event = record.run, record.event
    item: Item = {
        **run_key(run.id),
        "v": {"N": str(record.stored.revision + 1)},
        "s": {"B": _compact(pack(run))},
        "f": {"S": record.plan.function_id},
        "n": {"N": str(record.plan.version)},
        "p": {"N": str(record.stored.position)},
        "a": {"N": str(record.after)},
    }
    if is_kept_in_runs(event):
        item["e"] = {"B": stored_body(event)}
    else:
        item["ei"] = {"S": event.id}
    if event.position != record.after:
        item["ep"] = {"N": str(event.position)}
    user = user_key(event.user)
    if user is not None:
        item["u"] = {"S": user}
    if record.rerun_of is not None:
        item["ro"] = {"S": record.rerun_of}
    if record.replay is not None:
        item["rp"] = {"S": record.replay}
    if record.stored.attempts:
        item["h"] = {"B": write_attempts(record.stored.attempts, run.created_at)}
    if record.stored.pages:
        item["hp"] = {"L": [{"S": page} for page in record.stored.pages]}
    if len(run.steps) > AT_ONCE:
        item["w"] = {"N": str(record.next_wide_at)}
    if record.causes:
        item["c"] = {"B": _write_causes(record.causes, run)}
    if record.stored.watched is not None:
        item["l"] = {"N": str(record.stored.watched)}
    partition = _status_partition(run, record.stored.position)
    if partition is not None:
        item["gk"], item["gs"] = {"S": partition}, {"N": str(record.stored.position)}
    if run.ended_at is not None:
        item["ttl"] = {"N": str(ttl)}
    return item


def approval_item(record: Record, timer: Timer, until: int) -> Item:
    """By which an open approval is listed with its run; it goes some time after `until` if nothing deletes it."""
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
    """The time is left out where it is that of the attempt's start."""
    rows = [[step, name] if at == run.steps[step].at else [step, name, at] for step, (name, at) in causes.items()]
    return _compact(orjson.dumps(rows))


def _read_causes(content: bytes, run: Run) -> dict[int, tuple[str, int]]:
    rows = orjson.loads(content)
    return {step: (item, at[0] if at else run.steps[step].at) for step, item, *at in rows}


def _compact(content: bytes) -> bytes:
    """What is large says nearly the same of each step, so that a tenth of its size is left."""
    return content if len(content) <= _PLAIN else zlib.compress(content)


def _expanded(content: bytes) -> bytes:
    return zlib.decompress(content) if content[:1] == b"x" else content  # JSON does not begin so


def is_long_history(record: Record) -> bool:
    return sum(40 + attempt.size * (attempt.ref is None) for attempt in record.stored.attempts) > _PAGE


def is_long_result(record: Record, attempt: StoredAttempt) -> bool:
    """Whether a result should be an item of its own."""
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
    if any(step.status is StepStatus.RUNNING for step in run.steps):  # of a failed run, what runs may end
        return status_partition("ending", shard)
    from stepwell.aws.table.positions import month_of

    return status_partition(run.status.name.lower(), shard, month_of(position))


def _without_nulls(row: list[Any]) -> list[Any]:
    while row and row[-1] is None:
        row.pop()
    return row


def _short_id(request_id: str | None) -> str | None:
    """22 characters instead of 36, if it is a UUID."""
    if request_id is None:
        return None
    try:
        return base64.urlsafe_b64encode(UUID(request_id).bytes).decode().rstrip("=")
    except ValueError:
        return request_id


def _long_id(text: str | None) -> str | None:
    if text is None or len(text) != 22:
        return text
    return str(UUID(bytes=base64.urlsafe_b64decode(text + "==")))
