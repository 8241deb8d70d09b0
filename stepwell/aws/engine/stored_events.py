"""Events in the table: accepted once, and found by waits.

The item of an event is written conditionally. The entries by which waits find the event are written before it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from stepwell.aws.functions.registry import Registry
from stepwell.aws.observability import count
from stepwell.aws.table.events import event_item
from stepwell.aws.table.keys import (
    NAME_SHARDS,
    NEW,
    Item,
    event_entry,
    event_entry_partitions,
    event_key,
    read_event_entry,
    shard_of,
)
from stepwell.aws.table.positions import first_of, ms_of, next_position
from stepwell.aws.table.table import Table
from stepwell.core.events.events import Event, next_event_id
from stepwell.core.routing.triggers import Catalog
from stepwell.core.run.max_run_duration import longest_run_ms
from stepwell.platform import Accepted, NewEvent, NotWritten

_ENTRIES = 200  # entries of a partition that are read at once: about 4 read units
_FIRST_EVENTS, _MORE_EVENTS = 10, 100  # events that are read at once: first, then each further time


class StoredEvents:
    """Accepts the events of one batch, and finds earlier ones.

    `accepted`: the events that the batch has accepted, with positions, in no order. It includes events that were
    accepted before and are delivered again.
    """

    def __init__(self, table: Table, registry: Registry, retention_s: int, now: int) -> None:
        self._table, self._registry, self._retention_s, self._now = table, registry, retention_s, now
        self.accepted: list[tuple[NewEvent, Event]] = []

    def put(self, events: Sequence[NewEvent], catalog: Catalog) -> list[Accepted | NotWritten | None]:
        """Accepts events. The answer for a duplicate of a known event is None."""
        positions = [next_position(self._now) for _ in events]
        by_id: dict[str, list[int]] = defaultdict(list)
        for i, new in enumerate(events):
            by_id[new.event.id].append(i)
        accepted: list[Accepted | NotWritten | None] = [None] * len(events)

        def put(indexes: list[int]) -> None:
            """Tries events with the same id in order, until one is accepted: the first, or the one that is delivered
            again. Events whose ids were created by ingest are never duplicates."""
            is_accepted = False
            for i in indexes:
                if not is_accepted or events[i].event.origin:
                    accepted[i] = self._put(events[i], positions[i], catalog)
                is_accepted = is_accepted or isinstance(accepted[i], Accepted)

        self._table.each(put, list(by_id.values()))
        return accepted

    def _put(self, new: NewEvent, position: int, catalog: Catalog) -> Accepted | NotWritten | None:
        event, errors = new.event, self._table.errors
        accepted = Accepted(position, new.starts)
        try:
            self._put_entries(new, position, catalog)
            self._table.put(event_item(new, position, self._ttl(new, catalog)), NEW)
        except errors.ConditionalCheckFailedException as refused:
            known = refused.response["Item"]
            if event.origin and known.get("o", {}).get("S") != event.origin:
                event.rename(next_event_id(event.id))  # the same new id at each delivery
                return self._put(new, position, catalog)
            identity = known.get("m", {}).get("S")
            if new.cause is None or identity != new.cause.id or "x" in known:
                return None  # a duplicate, or the event was erased
            accepted = Accepted(int(known["p"]["N"]), [function["S"] for function in known.get("st", {}).get("L", [])])
            try:
                self._put_entries(new, accepted.position, catalog)  # for wait paths registered since then
            except errors.ClientError as error:
                return NotWritten(str(error))
        except Exception as error:  # throttled, no connection, too large: only this event fails
            return NotWritten(str(error))
        count("EventsAccepted")
        self.accepted.append((new, event.at_position(accepted.position)))
        return accepted

    def _put_entries(self, new: NewEvent, position: int, catalog: Catalog) -> None:
        """Writes the entries by which waits find the event.

        They are written before the event, so that every wait that opens after it finds it. Readers ignore an entry
        whose event does not exist or has another position.
        """
        event = new.event
        if new.replay is not None:
            return
        partitions = [event_entry_partitions(event.name, key)[0] for key in new.keys]
        if catalog.is_awaited_by_name(event):
            partitions.append(event_entry_partitions(event.name, None)[shard_of(event.id, NAME_SHARDS)])
        ttl = self._until(self._registry.longest_wait_ms(event.name)) if partitions else 0
        for partition in partitions:
            self._table.put({**event_entry(partition, position, event.id), "ttl": {"N": str(ttl)}})

    def _ttl(self, new: NewEvent, catalog: Catalog) -> int:
        """The ttl of an event: runs that it starts and waits that it may satisfy still need it."""
        plans = [catalog.choose(function, new.event) for function in new.starts]
        runs = [longest_run_ms(plan) for plan in plans if plan is not None]
        return self._until(max([self._registry.longest_wait_ms(new.event.name), *runs]))

    def _until(self, needed_ms: int) -> int:
        """The ttl (s since the epoch) of an item that is needed for `needed_ms`; the retention begins after that."""
        return (self._now + needed_ms) // 1000 + self._retention_s

    def read(self, ids: Sequence[str]) -> dict[str, Event]:
        """Stored events by id, with their positions."""
        return read_events(self._table, ids)

    def find(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        """Events by name and key between a position and a time (ms), in order of acceptance.

        Pages are read lazily, and at most one page of each partition is in memory. So the caller can stop early.
        """
        if before <= ms_of(after):
            return
        between = {":first": {"S": f"{after + 1:020}"}, ":until": {"S": f"{first_of(before):020}"}}
        partitions = event_entry_partitions(name, key)
        pages = self._table.each(lambda partition: self._entries(partition, between), partitions)
        entries = heapq.merge(*(self._all_entries(page, between) for page in pages))
        at_once = _FIRST_EVENTS
        while next_entries := list(islice(entries, at_once)):
            events = self.read([event_id for _, event_id in next_entries])
            for position, event_id in next_entries:
                if event_id in events and events[event_id].position == position:
                    yield events[event_id]
            at_once = _MORE_EVENTS

    def _all_entries(self, page: list[Item], between: Item) -> Iterator[tuple[int, str]]:
        """The entries of the first page of a partition, and of the further pages, which are read lazily."""
        while page:
            yield from map(read_event_entry, page)
            last = page[-1]
            page = self._entries(last["pk"]["S"], between, last) if len(page) == _ENTRIES else []

    def _entries(self, partition: str, between: Item, after: Item | None = None) -> list[Item]:
        start = {} if after is None else {"ExclusiveStartKey": {"pk": after["pk"], "sk": after["sk"]}}
        return self._table.query(
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :until",
            ExpressionAttributeValues={":pk": {"S": partition}, **between},
            Limit=_ENTRIES,
            **start,
        )


def read_events(table: Table, ids: Sequence[str]) -> dict[str, Event]:
    """Stored events by id, with their positions."""
    items = table.get_many([event_key(event_id) for event_id in ids])
    found = [Event.stored(int(item["p"]["N"]), item["b"]["B"]) for item in items]
    return {event.id: event for event in found}
