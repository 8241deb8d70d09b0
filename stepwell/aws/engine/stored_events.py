"""Events in the table: accepted once, and found by those that wait for them.

An event's item is written under a condition. Where waits look for it (its arrivals) is written before.
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

_ARRIVALS = 200  # rows of a partition that are read at once: some 4 read units
_FIRST_EVENTS, _MORE_EVENTS = 10, 100  # that are read at once


class StoredEvents:
    """The events of one batch, at its time `now`, and those before them. `accepted`: what it has accepted, with
    positions, in no order; some may be there that a message brings again."""

    def __init__(self, table: Table, registry: Registry, retention_s: int, now: int) -> None:
        self._table, self._registry, self._retention_s, self._now = table, registry, retention_s, now
        self.accepted: list[tuple[NewEvent, Event]] = []

    def put(self, events: Sequence[NewEvent], catalog: Catalog) -> list[Accepted | NotWritten | None]:
        """Accept events; answers None for a duplicate of an event that is known."""
        positions = [next_position(self._now) for _ in events]
        same: dict[str, list[int]] = defaultdict(list)
        for i, new in enumerate(events):
            same[new.event.id].append(i)
        accepted: list[Accepted | NotWritten | None] = [None] * len(events)

        def put(those: list[int]) -> None:
            """One after the other, until one is accepted: the first, or the one whose message comes again. Those whose
            ids were made here are no duplicates."""
            is_accepted = False
            for i in those:
                if not is_accepted or events[i].event.origin:
                    accepted[i] = self._put(events[i], positions[i], catalog)
                is_accepted = is_accepted or isinstance(accepted[i], Accepted)

        self._table.each(put, list(same.values()))
        return accepted

    def _put(self, new: NewEvent, position: int, catalog: Catalog) -> Accepted | NotWritten | None:
        event, errors = new.event, self._table.errors
        accepted = Accepted(position, new.starts)
        try:
            self._put_arrivals(new, position, catalog)
            self._table.put(event_item(new, position, self._ttl(new, catalog)), NEW)
        except errors.ConditionalCheckFailedException as refused:
            known = refused.response["Item"]
            if event.origin and known.get("o", {}).get("S") != event.origin:
                event.rename(next_event_id(event.id))  # also when its message comes again
                return self._put(new, position, catalog)
            identity = known.get("m", {}).get("S")
            if new.cause is None or identity != new.cause.id or "x" in known:
                return None  # a duplicate, or it was erased since
            accepted = Accepted(int(known["p"]["N"]), [function["S"] for function in known.get("st", {}).get("L", [])])
            try:
                self._put_arrivals(new, accepted.position, catalog)  # under paths that were registered since, too
            except errors.ClientError as error:
                return NotWritten(str(error))
        except Exception as error:  # throttled, no connection, too large: in any case this event's trouble alone
            return NotWritten(str(error))
        count("EventsAccepted")
        self.accepted.append((new, event.at_position(accepted.position)))
        return accepted

    def _put_arrivals(self, new: NewEvent, position: int, catalog: Catalog) -> None:
        """Store where waits will look for the event: before it is accepted, so that whoever looks from then on finds
        it. A row whose event has another position, or is not there, says nothing."""
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
        """Until when runs may come to need an event: those that it starts, and those that await it."""
        plans = [catalog.choose(function, new.event) for function in new.starts]
        runs = [longest_run_ms(plan) for plan in plans if plan is not None]
        return self._until(max([self._registry.longest_wait_ms(new.event.name), *runs]))

    def _until(self, needed_ms: int) -> int:
        """In s since the epoch: the retention counts from when a thing is not needed any more."""
        return (self._now + needed_ms) // 1000 + self._retention_s

    def read(self, ids: Sequence[str]) -> dict[str, Event]:
        """Stored events by id, with their positions."""
        return read_events(self._table, ids)

    def find(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        """One after the other: whoever has found what it looks for stops, and no more is read, or held, than a page of
        each partition."""
        if before <= ms_of(after):
            return
        between = {":first": {"S": f"{after + 1:020}"}, ":until": {"S": f"{first_of(before):020}"}}
        partitions = event_entry_partitions(name, key)
        pages = self._table.each(lambda partition: self._arrivals(partition, between), partitions)
        arrivals = heapq.merge(*(self._all_arrivals(page, between) for page in pages))
        at_once = _FIRST_EVENTS
        while some := list(islice(arrivals, at_once)):
            events = self.read([event_id for _, event_id in some])
            for position, event_id in some:
                if event_id in events and events[event_id].position == position:
                    yield events[event_id]
            at_once = _MORE_EVENTS

    def _all_arrivals(self, page: list[Item], between: Item) -> Iterator[tuple[int, str]]:
        """Those of a partition's first page, and of the next ones when they are asked for."""
        while page:
            yield from map(read_event_entry, page)
            last = page[-1]
            page = self._arrivals(last["pk"]["S"], between, last) if len(page) == _ARRIVALS else []

    def _arrivals(self, partition: str, between: Item, behind: Item | None = None) -> list[Item]:
        start = {} if behind is None else {"ExclusiveStartKey": {"pk": behind["pk"], "sk": behind["sk"]}}
        return self._table.query(
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :until",
            ExpressionAttributeValues={":pk": {"S": partition}, **between},
            Limit=_ARRIVALS,
            **start,
        )


def read_events(table: Table, ids: Sequence[str]) -> dict[str, Event]:
    """Stored events by id, with their positions."""
    items = table.get_many([event_key(event_id) for event_id in ids])
    found = [Event.stored(int(item["p"]["N"]), item["b"]["B"]) for item in items]
    return {event.id: event for event in found}
