"""The sweeper: finds runs that are stuck because a message was lost, and brings them on.

Young runs are found through the index of open runs and checked every eight minutes. Older runs are not read: most of
them wait for days, and a far timer, which is a separate item, brings them on. Before an older run changes in a way
that depends on a message, a watch is written: an item with the time of the next check (`watches`). The sweeper also
writes a watch when a run is no longer young. In addition, all open runs are checked once a day (ADR 16).

The sweeper sends overdue facts as messages, and repeats them until they are handled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import time_ns
from typing import Any, NamedTuple

from stepwell.aws.clients import client
from stepwell.aws.engine.sweep import LATE_MS, OpenRun, next_check_at, overdue, to_rows
from stepwell.aws.engine.watches import KEPT_MS, YOUNG_MS, due_watches, watch_item
from stepwell.aws.functions.registry import Registry
from stepwell.aws.queues.messages import entry, sweep_message, sweep_name
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.table.items import put_items, read_item, read_items
from stepwell.aws.table.keys import (
    STATUS_INDEX,
    STATUS_SHARDS,
    Item,
    Key,
    run_key,
    status_partition,
    sweep_key,
)
from stepwell.aws.table.positions import first_of, ms_of
from stepwell.aws.table.runs import stored_run
from stepwell.core.plan import Plan
from stepwell.core.run.run import Run

log = logging.getLogger("stepwell.aws")
_LEFT_MS = YOUNG_MS + 5 * 60_000  # older runs are left to watches; the margin is for slow commits and wrong clocks
_EVERY_MS = STATUS_SHARDS * 60_000  # between two sweeps of a shard
_ALL_EVERY_MS = 86_400_000 - _EVERY_MS
_PAGE = 100
_ENDLESS = 1 << 62


class Row(NamedTuple):
    """An entry of the index: a run that is open, or that has failed but still has running attempts."""

    run_id: str
    position: int


class _Open(NamedTuple):
    run: Run
    plan: Plan
    causes: Mapping[int, tuple[str, int]]


class Sweeper:
    """Checks the runs of a shard, and sends overdue facts."""

    def __init__(self, resources: Resources, registry: Registry, tokens: Tokens) -> None:
        self._resources, self._registry, self._tokens = resources, registry, tokens
        self._table, self._event_age_ms = resources.table, resources.event_age_s * 1000

    def sweep(self, shard: int, until: int) -> None:
        """Checks the runs of a shard: young runs, runs with a due watch, and once a day all runs.

        It stops at the time `until` (ms), and the next sweep of the shard continues from there. An error in one part
        does not stop the others. Raises the first error after all parts are done.
        """
        found = read_item(self._table, sweep_key(shard)) or {}
        progress = {name: value for name, value in found.items() if name not in ("pk", "sk")}
        stored, errors = dict(progress), list[Exception]()
        for part in (self._young, self._watched, self._all):
            try:
                part(shard, progress, until)
            except Exception as error:
                log.exception("a part of the sweep of shard %s failed", shard)
                errors.append(error)
        if progress != stored:
            client("dynamodb").put_item(TableName=self._table, Item={**sweep_key(shard), **progress})
        if errors:
            raise errors[0]

    def sweep_all(self, shards: Iterable[int], silence_ms: int | None = None) -> None:
        """Checks all open runs of these shards. `silence_ms`: see `overdue`."""
        for shard in shards:
            for rows, _ in open_runs(self._resources, shard, _PAGE):
                self._check([row.run_id for row in rows], silence_ms=silence_ms)

    # --- the parts of a sweep: each reads and updates attributes of the cursor item --------------------------------

    def _young(self, shard: int, progress: Item, until: int) -> None:
        """Checks young runs.

        Cursor: `h`, the position up to which runs are left to watches; `y`, where the last sweep stopped; `b`, the
        value of `h` once the sweep is complete.
        """
        now = now_ms()
        left = first_of(now - _LEFT_MS)
        stored_bound = int(progress["h"]["N"]) if "h" in progress else 0
        first = stored_bound if stored_bound <= left else 0  # greater if another clock was ahead
        start = progress.pop("y", None)
        bound = int(progress.pop("b")["N"]) if start is not None else left
        has_old = start is not None
        pages = open_runs(self._resources, shard, _PAGE, _key_of(start), first, first_of(now - LATE_MS))
        for rows, following in pages:
            has_old = has_old or any(row.position <= bound for row in rows)
            self._check([row.run_id for row in rows], leaves={r.run_id for r in rows if _is_left(r, now_ms())})
            if following is not None and now_ms() >= until:
                progress.update(y={"M": following}, b={"N": str(bound)})
                return
        if has_old or first != stored_bound:
            progress["h"] = {"N": str(bound)}

    def _watched(self, shard: int, progress: Item, until: int) -> None:
        """Checks runs with a due watch. Cursor: `w`, the sort key of the last watch that was handled."""
        now = now_ms()
        after = progress["w"]["S"] if "w" in progress else ""
        if after[:15] > f"{now:015}":  # another clock was ahead: the watches that it skipped still exist
            after = f"{now - KEPT_MS:015}"
        for keys in due_watches(self._table, shard, after, now):
            runs = {key["sk"]["S"].partition("#")[2]: None for key in keys}
            self._check(list(runs), leaves=runs)
            progress["w"] = {"S": keys[-1]["sk"]["S"]}
            if now_ms() >= until:
                return

    def _all(self, shard: int, progress: Item, until: int) -> None:
        """Checks the runs that are left to watches, once a day.

        Cursor: `d`, when the daily check last began; `a`, where it stopped.
        """
        if "h" not in progress:
            return
        start, now = progress.pop("a", None), now_ms()
        if start is None:
            began = int(progress["d"]["N"]) if "d" in progress else now  # the first sweep has checked all runs
            if "d" in progress and 0 <= now - began < _ALL_EVERY_MS:
                return
            progress["d"] = {"N": str(now)}
            if began == now:
                return
        pages = open_runs(self._resources, shard, _PAGE, _key_of(start), 0, int(progress["h"]["N"]))
        for rows, following in pages:
            self._check([row.run_id for row in rows], leaves={row.run_id for row in rows})
            if following is not None and now_ms() >= until:
                progress["a"] = {"M": following}
                return

    # --- checking runs ---------------------------------------------------------------------------------------------

    def _check(self, ids: Sequence[str], leaves: Iterable[str] = (), silence_ms: int | None = None) -> None:
        """Sends the overdue facts of these runs, and writes watches for the runs in `leaves`.

        Eventually consistent reads are enough: a fact becomes overdue minutes after it is due, and a process that
        changes a run writes the watch before.
        """
        now, messages, watches = now_ms(), [], []
        for record in self._read(ids):
            run_id = record.run.id
            facts = to_rows(overdue(record, now, self._event_age_ms, silence_ms))
            if facts:
                log.warning("run %s has %s overdue facts", run_id, len(facts))
                messages.append(sweep_message(run_id, facts, self._tokens.of(*sweep_name(run_id, facts))))
            at = next_check_at(record, now, self._event_age_ms) if run_id in leaves else None
            if at is not None:
                watches.append(watch_item(run_id, at, now))
        put_items(self._table, watches)
        send_messages(self._resources.outcomes_queue, [entry(body) for body in messages])

    def _read(self, ids: Sequence[str]) -> Iterator[OpenRun]:
        """The runs with these ids, without their events. Runs that cannot be read are skipped."""
        for item in read_items(self._table, map(run_key, ids), consistent=False):
            try:
                stored = stored_run(item)
                plan = self._registry.version(stored.function, stored.version).plan
                yield _Open(stored.run, plan, stored.causes)
            except Exception:
                log.exception("sweeper cannot read run %s", item["pk"]["S"][2:])


def open_runs(
    resources: Resources, shard: int, page: int, start: Key | None = None, first: int = 0, last: int = _ENDLESS
) -> Iterator[tuple[list[Row], Key | None]]:
    """The runs in a shard of the index that are open, or failed with attempts still running, in pages.

    `first`, `last`: the range of positions. `start`: where to continue. Each page comes with the start of the next one,
    or None after the last page.
    """
    if start is not None:  # DynamoDB requires that the start is within the range
        first, last = min(first, int(start["gs"]["N"])), max(last, int(start["gs"]["N"]))
    query = client("dynamodb").get_paginator("query")
    partitions = [status_partition(status, shard) for status in ("running", "ending")]
    for partition in partitions[partitions.index(start["gk"]["S"]) if start else 0 :]:
        options = {"ExclusiveStartKey": start} if start and start["gk"]["S"] == partition else {}
        for found in query.paginate(
            TableName=resources.table,
            IndexName=STATUS_INDEX,
            KeyConditionExpression="gk = :gk AND gs BETWEEN :first AND :last",
            ExpressionAttributeValues={
                ":gk": {"S": partition},
                ":first": {"N": str(first)},
                ":last": {"N": str(last)},
            },
            PaginationConfig={"PageSize": page},
            **options,
        ):
            if found["Items"]:
                rows = [Row(item["pk"]["S"][2:], int(item["gs"]["N"])) for item in found["Items"]]
                yield rows, found.get("LastEvaluatedKey")


def shard_of_minute(minute: int) -> int:
    """The shard that is swept in a minute. Each shard is swept every eight minutes."""
    return minute % STATUS_SHARDS


def _is_left(row: Row, now: int) -> bool:
    return ms_of(row.position) + _LEFT_MS <= now


def _key_of(attribute: Any) -> Key | None:
    return None if attribute is None else attribute["M"]


def now_ms() -> int:
    return time_ns() // 1_000_000
