"""Erases a person on AWS: cancels the person's open runs, then redacts runs and events, list row by list row.

A row is deleted once all events and runs in it are erased, and the person once no row is left. So an interrupted
erasure continues where it stopped. The items of events and runs stay, without data, so that an event that is delivered
again is still known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stepwell.api.v1.users import Erased
from stepwell.api.views.user_models import ErasedCounts
from stepwell.aws.clients import client
from stepwell.aws.engine.results import all_attempts, erased
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import delete_items, read_items, read_partition
from stepwell.aws.table.keys import EXISTS, UNCHANGED, Item, event_entry, event_entry_partitions, event_key, run_key
from stepwell.aws.table.list_layout import of_user
from stepwell.aws.table.lists import Lists, Row
from stepwell.aws.table.runs import StoredRun, stored_run, write_attempts
from stepwell.aws.table.start_checks import DynamoStartChecks
from stepwell.aws.table.users import UserIndex
from stepwell.core.events.events import Event, erased_body
from stepwell.core.events.users import Person, owner
from stepwell.core.run.run import RunStatus, pack, without_data
from stepwell.platform import NotWritten

_ENOUGH_S = 15.0  # after which a request, which has 30 s, stops; the next request continues
_TRIES = 5
_PARALLEL = 8
_DAY_S = 86_400


class Erasure:
    """Erases persons. `cancel`: cancels a run."""

    def __init__(
        self, resources: Resources, lists: Lists, users: UserIndex, registry: Registry, cancel: Callable[[str], None]
    ) -> None:
        self._table, self._lists, self._users = resources.table, lists, users
        self._registry, self._cancel = registry, cancel
        self._checks, self._retention_s = DynamoStartChecks(resources.table), resources.retention_days * _DAY_S
        self._pool = ThreadPoolExecutor(_PARALLEL, "erasure")

    def erase(self, person: Person) -> Erased:
        """Erases a person, or as much as there is time for in one request. Raises NotWritten."""
        counts: ErasedCounts = {"events": 0, "runs": 0, "runs_cancelled": 0, "attempts": 0}
        deadline = time.monotonic() + _ENOUGH_S
        self._users.keep(person)
        for name in sorted({user_id.text for user_id in person.ids}):
            for row in self._lists.rows(of_user(name)):
                self._erase_runs_of(person, row, counts)
                if self._erase_events_of(person, row, counts):
                    delete_items(self._table, [row.key])
                    if time.monotonic() > deadline:
                        return Erased(counts, is_done=False)
        self._users.forget(person)
        return Erased(counts, is_done=True)

    def _erase_runs_of(self, person: Person, row: Row, counts: ErasedCounts) -> None:
        runs = [run for run in self._runs(row.runs) if run.user is not None]
        triggers = self._events([run.event_id for run in runs])
        owned = [run for run in runs if run.event_id in triggers and _is_of(person, triggers[run.event_id][1])]
        for run in owned:
            if run.run.status is RunStatus.RUNNING:
                self._cancel(run.run.id)
                counts["runs_cancelled"] += 1
        for run in owned:
            plan = self._registry.version(run.function, run.version).plan
            self._checks.forget(plan, triggers[run.event_id][1], run.run.id, self._stored_since_ms())
        counts["attempts"] += sum(self._pool.map(self._redact, [run.run.id for run in owned]))
        counts["runs"] += len(owned)

    def _stored_since_ms(self) -> int:
        """Runs that were created before this time are no longer stored."""
        return (int(time.time()) - self._retention_s) * 1000

    def _erase_events_of(self, person: Person, row: Row, counts: ErasedCounts) -> bool:
        """Erases the person's events in a row. Returns whether everything in the row is erased."""
        events = self._events(row.events)
        owned = [(item, event) for item, event in events.values() if _is_of(person, event)]
        left = [(item, event) for item, event in owned if not event.erased]
        list(self._pool.map(self._erase_event, left))
        counts["events"] += len(left)
        return len(owned) == len(events) and all(run.user is None for run in self._runs(row.runs))

    def _events(self, ids: Sequence[str]) -> dict[str, tuple[Item, Event]]:
        items = read_items(self._table, map(event_key, ids), consistent=True)
        events = [(item, Event.stored(int(item["p"]["N"]), item["b"]["B"])) for item in items]
        return {event.id: (item, event) for item, event in events}

    def _runs(self, ids: Sequence[str]) -> list[StoredRun]:
        return [stored_run(item) for item in read_items(self._table, map(run_key, ids), consistent=True)]

    # --- items -----------------------------------------------------------------------------------------------------

    def _erase_event(self, stored: tuple[Item, Event]) -> None:
        item, event = stored
        keys = self._registry.catalog().keys(event)
        entries = [event_entry(event_entry_partitions(event.name, key)[0], event.position, event.id) for key in keys]
        delete_items(self._table, [{"pk": entry["pk"], "sk": entry["sk"]} for entry in entries])
        attributes = {name: value for name, value in item.items() if name not in ("ms", "iv")}
        self._put({**attributes, "b": {"B": erased_body(event)}, "x": {"BOOL": True}}, EXISTS)

    def _redact(self, run_id: str) -> int:
        """Removes the data from a run's item and deletes all other items. Returns the number of attempts."""
        db = client("dynamodb")
        for _ in range(_TRIES):  # attempts of a failed run may still end at any time
            (item,) = read_items(self._table, [run_key(run_id)], consistent=True)
            value = stored_run(item)
            attempts = all_attempts(value, partial(read_items, self._table, consistent=True))
            try:
                self._put(
                    _redacted(item, value, write_attempts([*map(erased, attempts)], value.run.created_at)),
                    UNCHANGED,
                    {":before": {"N": str(value.revision)}},
                )
            except db.exceptions.ConditionalCheckFailedException:
                continue
            parts = read_partition(self._table, item["pk"]["S"], ConsistentRead=True)
            delete_items(self._table, [{"pk": p["pk"], "sk": p["sk"]} for p in parts if p["sk"] != item["sk"]])
            return len(attempts)
        raise NotWritten(f"run {run_id} was changed by other processes {_TRIES} times in a row")

    def _put(self, item: Item, condition: str, values: Item | None = None) -> None:
        more = {} if values is None else {"ExpressionAttributeValues": values}
        client("dynamodb").put_item(TableName=self._table, Item=item, ConditionExpression=condition, **more)


def _redacted(item: Item, stored_run: StoredRun, history: bytes) -> Item:
    """A run's item without data: without the event, the user, results, and reasons why expressions did not match."""
    attributes = {name: value for name, value in item.items() if name not in ("e", "u", "hp")}
    return {
        **attributes,
        "v": {"N": str(stored_run.revision + 1)},
        "s": {"B": pack(without_data(stored_run.run))},
        "h": {"B": history},
        "ei": {"S": stored_run.event_id},
    }


def _is_of(person: Person, event: Event) -> bool:
    """Whether the event belongs to the person. An erased event no longer contains a user and counts as theirs."""
    return event.erased or owner(event.user) in person.ids
