"""Writes a transition of a run: referenced items first, then the run conditionally, then timers and waits."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

from stepwell.aws.engine.results import record_results
from stepwell.aws.engine.timers import Timers
from stepwell.aws.engine.watches import Watches
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import put_items
from stepwell.aws.table.keys import NEW, UNCHANGED, Item, Key, approval_key, event_key, item_key, wait_key
from stepwell.aws.table.positions import ms_of
from stepwell.aws.table.run_records import Record
from stepwell.aws.table.runs import approval_item, is_kept_in_runs, run_item
from stepwell.aws.table.table import Table
from stepwell.core.run.max_run_duration import longest_run_ms
from stepwell.core.run.messages import ClearTimer, CloseWait, OpenWait, SetTimer, TimerKind
from stepwell.platform import AttemptId, Transition

_DAY_S = 86_400


class RunWriter:
    """Writes the transitions of one batch. `request_ids`: of the attempts whose outcomes are in the batch."""

    def __init__(
        self,
        table: Table,
        resources: Resources,
        registry: Registry,
        timers: Timers,
        request_ids: Mapping[AttemptId, str],
        now: int,
    ) -> None:
        self._table, self._registry, self._timers = table, registry, timers
        self._request_ids, self._now = request_ids, now
        self._retention_s = resources.retention_days * _DAY_S
        self._watches = Watches(resources)

    def prepare(self, transition: Transition) -> None:
        """Writes far timers before the run: without them, a crash after the write could leave the run stuck."""
        for command in transition.commands:
            if isinstance(command, SetTimer):
                self._timers.set_far(transition.record.run.id, command.timer, command.due_at, self._now)

    def must_write(self, transition: Transition, record: Record) -> bool:
        """Whether the run differs from the stored item."""
        is_same = record.run is transition.before.run and record.causes == record.stored.written_causes
        return not (record.stored.revision and is_same) or self._has_late_logs(record)

    def write(self, transition: Transition, record: Record) -> Item | None:
        """Writes the run. Returns the stored item if another process changed it meanwhile."""
        stored = record.stored
        ttl = self._until(self._now, longest_run_ms(record.plan))
        for item in record_results(record, transition.commands, self._request_ids, ttl):
            self._table.put(item)
        stored.watched = self._watches.of_change(record, self._now)
        item = run_item(record, self._now // 1000 + self._retention_s)
        try:
            if stored.revision == 0:
                self._table.put(item, NEW)
            else:
                self._table.put(item, UNCHANGED, {":before": {"N": str(stored.revision)}})
        except self._table.errors.ConditionalCheckFailedException as lost:
            current: Item = lost.response["Item"]
            if current != item:  # equal if the first answer was lost and boto3 sent the request again
                if stored.revision:
                    # a random delay, because other processes try again too
                    time.sleep(random.uniform(0, 0.02 if not record.is_wide else 0.2))
                return current
        return None

    def _has_late_logs(self, record: Record) -> bool:
        """Adds the request ids of cancelled attempts, which arrive after the cancellation. Whether there are any.

        The log of an attempt is found by the request id. Nothing else of such an outcome is stored.
        """
        found = False
        for attempt in record.stored.attempts if record.run.ended_at is not None and not record.event.erased else ():
            request_id = self._request_ids.get((record.run.id, attempt.step, attempt.attempt))
            if attempt.status == "cancelled" and attempt.request_id is None and request_id is not None:
                attempt.request_id, found = request_id, True
        return found

    def complete(self, transition: Transition, record: Record, *, is_new: bool) -> list[Key]:
        """Writes near timers, waits and approvals after the run. Returns the keys of items that are no longer needed.

        All writes may be repeated. A wait may be opened and closed in one transition, so the key of a closed wait is
        taken from the new state of the run.
        """
        run, obsolete = record.run, list[Key]()
        if is_new and _is_late(record):
            self._extend_retention(record, self._now)
        for command in transition.commands:
            if isinstance(command, SetTimer):
                self._complete_timer(record, command)
            elif isinstance(command, ClearTimer):
                obsolete += self._timers.item_of(record.plan, transition.before.run, command.timer, self._now)
                if command.timer.kind is TimerKind.DECISION:
                    obsolete.append(approval_key(run.id, command.timer.index, command.timer.attempt))
            elif isinstance(command, OpenWait):
                key = self._wait_key(record, command.pause, command.key)
                ttl = {"N": str(command.deadline // 1000 + _DAY_S)}
                self._table.put({**key, "d": {"N": str(command.deadline)}, "ttl": ttl})
            elif isinstance(command, CloseWait):
                obsolete.append(self._wait_key(record, command.pause, run.pauses[command.pause].key))
        return obsolete

    def _complete_timer(self, record: Record, command: SetTimer) -> None:
        self._timers.set_near(record.run.id, command.timer, command.due_at, self._now)
        if command.due_at > record.run.created_at + longest_run_ms(record.plan):  # possible with a long `retry_after`
            self._extend_retention(record, command.due_at)
        if command.timer.kind is TimerKind.DECISION:
            self._table.put(approval_item(record, command.timer, command.due_at))

    def _wait_key(self, record: Record, pause: int, key: bytes | None) -> Key:
        name = record.plan.pauses[pause].event or ""
        return wait_key(name, key, record.run.id, pause, self._registry.wait_shards)

    def _until(self, now: int, needed_ms: int) -> int:
        """The ttl (s since the epoch) of an item that is needed for `needed_ms`; the retention begins after that."""
        return (now + needed_ms) // 1000 + self._retention_s

    def _extend_retention(self, record: Record, until: int) -> None:
        """Extends the ttl of the items that a run needs, if it takes longer than usual or the event is old."""
        stored = record.stored
        refs = [*stored.pages, *(attempt.ref for attempt in stored.attempts if attempt.ref is not None)]
        keys = [item_key(record.run.id, ref) for ref in refs]
        if not is_kept_in_runs(record.event):
            keys.append(event_key(record.event.id))
        ttl = {"N": str(self._until(until, longest_run_ms(record.plan)))}
        put_items(self._table.name, [{**item, "ttl": ttl} for item in self._table.get_many(keys)] if keys else [])


def _is_late(record: Record) -> bool:
    """Whether the event of a new run may expire before the run ends: in reruns, replays and after a long pause."""
    is_old = record.run.created_at - ms_of(record.event.position) > _DAY_S * 1000
    return is_old or record.rerun_of is not None or record.replay is not None
