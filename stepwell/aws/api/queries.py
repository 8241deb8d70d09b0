"""Lists and details for the API, read from the table.

Each request reads a bounded number of items, however many of them a filter excludes, and returns a bounded number of
bytes. A page that reaches such a bound is shorter than `limit`, and `next` is where the following page begins.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TypeVar, Unpack

from stepwell.aws.api.details import Details
from stepwell.aws.api.logs import Logs
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item, read_items, read_partition
from stepwell.aws.table.keys import (
    STATUS_SHARDS,
    Item,
    approvals_partition,
    event_entry,
    event_key,
    paused_events_partition,
    run_key,
)
from stepwell.aws.table.list_layout import ALL, EVENTS, RUNS, Entry, of_function, of_name, of_replay, of_user
from stepwell.aws.table.lists import Lists
from stepwell.aws.table.positions import first_of, ms_of
from stepwell.aws.table.runs import StoredRun, stored_run
from stepwell.aws.table.samples import read_samples
from stepwell.aws.table.users import UserIndex
from stepwell.core.events.events import Event, run_id, user_key
from stepwell.core.routing.guard import RunSample
from stepwell.core.routing.not_started import with_keepers
from stepwell.core.run.run import RunStatus
from stepwell.reader import EventDetail, FunctionDetail, Page, RunDetail, RunQuery, VersionDetail

T = TypeVar("T")
Show = Callable[[Sequence[str]], dict[str, T]]  # from ids to details, without those that the filter excludes

_RUNS = 50  # default limit of a list of runs
_AT_ONCE = 50  # items read with one request
_MOST = 2000  # entries read for one page
_MOST_BYTES = 2 * 1024 * 1024  # of events or results in a page; the answer of a Lambda has at most 6 MB
_PARALLEL = 8
_NEWEST = first_of(1 << 44)


class Queries:
    """Implements `reader.Reader`. Thread-safe."""

    def __init__(self, resources: Resources, registry: Registry) -> None:
        self._table, self._registry = resources.table, registry
        self._lists = Lists(resources)
        self._users = UserIndex(resources.table)
        self._details = Details(resources, registry, self._lists, Logs())
        self._pool = ThreadPoolExecutor(_PARALLEL, "queries")

    def _names(self, user: str | None) -> Sequence[str]:
        """All ids under which lists may contain the user; empty if `user` is None."""
        return () if user is None else self._users.names(user)

    def _of_users(
        self, kind: str, names: Sequence[str], before: int | None, limit: int, since: int | None = None
    ) -> Iterator[Entry]:
        lists = [self._lists.entries(kind, of_user(name), before, limit, since) for name in names]
        return heapq.merge(*lists, reverse=True)

    # --- events ----------------------------------------------------------------------------------------------------

    def read_events(
        self,
        *,
        name: str | None = None,
        user: str | None = None,
        since: int | None = None,
        until: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page[EventDetail]:
        is_filtered = name is not None and user is not None
        names = self._names(user)
        first, before = _between(since, until, before)
        if user is not None:
            entries = self._of_users(EVENTS, names, before, limit, first)
        else:
            entries = self._lists.entries(EVENTS, of_name(name) if name is not None else ALL, before, limit, first)

        def show(ids: Sequence[str]) -> dict[str, EventDetail]:
            items = read_items(self._table, map(event_key, ids), consistent=False)
            details = [_event(item) for item in items]
            return {d.event.id: d for d in details if name in (None, d.event.name) and _is_of(names, d.event)}

        return _page(entries, show, lambda detail: len(detail.event.body), limit, is_filtered)

    def read_event(self, event_id: str) -> EventDetail | None:
        item = read_item(self._table, event_key(event_id))
        if item is None:
            return None
        detail = _event(item)
        return replace(detail, misses=with_keepers(detail.misses, self._functions_keeping(item, detail.event)))

    def _functions_keeping(self, item: Item, event: Event) -> list[str]:
        """The paused functions that keep an event, sorted. One request for all functions that the event starts."""
        started = [function["S"] for function in item.get("st", {}).get("L", ())]
        functions = {paused_events_partition(function_id): function_id for function_id in started}
        entries = [event_entry(partition, event.position, event.id) for partition in functions]
        keys = [{"pk": entry["pk"], "sk": entry["sk"]} for entry in entries]
        return sorted(functions[kept["pk"]["S"]] for kept in read_items(self._table, keys, consistent=True))

    # --- runs ------------------------------------------------------------------------------------------------------

    def read_run_texts(self, view: Callable[[RunDetail], bytes], **query: Unpack[RunQuery]) -> Page[bytes]:
        page = self.read_runs(**query)
        return Page([view(detail) for detail in page.items], page.next)

    def read_runs(self, **query: Unpack[RunQuery]) -> Page[RunDetail]:
        names = self._names(query.get("user"))
        function, status, replay = query.get("function"), query.get("status"), query.get("replay")
        entries, is_filtered = self._run_entries(query, names)

        def show(ids: Sequence[str]) -> dict[str, RunDetail]:
            items = read_items(self._table, map(run_key, ids), consistent=False)
            runs = [
                run
                for run in map(stored_run, items)
                if function in (None, run.function) and status in (None, run.run.status)
                if replay in (None, run.replay) and (not names or run.user in names)
            ]
            return {run.run.id: detail for run, detail in zip(runs, self._summaries(runs), strict=True)}

        return _page(entries, show, _size, query.get("limit", _RUNS), is_filtered)

    def read_run(self, run_id: str) -> RunDetail | None:
        item = read_item(self._table, run_key(run_id))
        return None if item is None else self._details.complete(stored_run(item))

    def read_asked(self, run_id: str) -> RunDetail | None:
        """A run with the messages of the approvals in it, and without logs."""
        item = read_item(self._table, run_key(run_id))
        return None if item is None else self._details.with_approvals(stored_run(item))

    def read_asking(self, before: int | None, limit: int) -> Page[RunDetail]:
        """Runs with open approvals, newest first."""
        partitions = [approvals_partition(shard) for shard in range(STATUS_SHARDS)]
        entries = self._lists.indexed(partitions, 0, _NEWEST if before is None else before, limit)
        positions: dict[str, int] = {}
        following = None
        for position, partition in entries:
            last = next(reversed(positions.values()), None)
            if position != last and len(positions) >= limit:
                following = last
                break
            positions[partition[2:]] = position
        items = read_items(self._table, map(run_key, positions), consistent=True)
        runs = sorted(map(stored_run, items), key=lambda stored_run: -stored_run.position)
        return Page(list(self._pool.map(self._details.with_approvals, runs)), following)

    def _summaries(self, runs: Sequence[StoredRun]) -> Iterator[RunDetail]:
        return self._pool.map(self._details.summary, runs)

    def _run_entries(self, query: RunQuery, names: Sequence[str]) -> tuple[Iterator[Entry], bool]:
        """The entries of the list that fits the query best, and whether it may contain runs that the query excludes.

        `names`: the ids of the query's user.
        """
        function, status, replay = query.get("function"), query.get("status"), query.get("replay")
        first, before = _between(query.get("since"), query.get("until"), query.get("before"))
        limit, event = query.get("limit", _RUNS), query.get("event")
        if event is not None:
            return self._runs_of_event(event, before), True
        has_others = sum(item is not None for item in (function, status, names or None, replay)) > 1
        if replay is None and not names and status not in (None, RunStatus.COMPLETED):
            return self._lists.runs_of_status(status.name.lower(), before, limit, first), has_others
        has_others = has_others or status is not None
        if names and replay is None:
            return self._of_users(RUNS, names, before, limit, first), has_others
        dimension = ALL if function is None else of_function(function)
        dimension = dimension if replay is None else of_replay(replay)
        return self._lists.entries(RUNS, dimension, before, limit, first), has_others

    def _runs_of_event(self, event_id: str, before: int | None) -> Iterator[Entry]:
        """The runs of an event: those of the functions in the event's item, and reruns, which are items beside it."""
        ids = []
        for item in read_partition(self._table, event_key(event_id)["pk"]["S"]):
            ids += [run_id(function["S"], event_id) for function in item.get("st", {}).get("L", ())]
            ids += [item["r"]["S"]] if "r" in item else []
        runs = map(stored_run, read_items(self._table, map(run_key, ids), consistent=False))
        entries = [(run.position, run.run.id) for run in runs if before is None or run.position < before]
        return iter(sorted(entries, reverse=True))

    # --- functions -------------------------------------------------------------------------------------------------

    def read_functions(self) -> list[FunctionDetail]:
        live = [row.id for row in self._registry.functions() if row.live is not None]
        return [detail for detail in self._pool.map(self.read_function, live) if detail is not None]

    def read_function(self, function_id: str) -> FunctionDetail | None:
        routing = self._registry.routing(function_id)
        if routing is None:
            return None
        versions = self._versions(function_id)
        shown = next((version for version in versions if version.number == routing.live), versions[-1])
        definition = self._registry.version(function_id, shown.number).definition
        return FunctionDetail(function_id, shown.created_at, definition, versions, routing)

    def read_samples(self, function_id: str, limit: int) -> list[RunSample]:
        return read_samples(self._table, self._lists, function_id, limit)

    def _versions(self, function_id: str) -> list[VersionDetail]:
        """All versions of a function, oldest first."""
        items = read_partition(
            self._table,
            f"V#{function_id}",
            ProjectionExpression="sk, #at, #hash, author, message",
            ExpressionAttributeNames={"#at": "at", "#hash": "hash"},
            ConsistentRead=True,
        )
        return [
            VersionDetail(int(i["sk"]["S"]), int(i["at"]["N"]), i["hash"]["S"], i["author"]["S"], i["message"]["S"])
            for i in items
        ]


# --- pages -----------------------------------------------------------------------------------------------------------


def _page(entries: Iterator[Entry], show: Show[T], size: Callable[[T], int], limit: int, is_filtered: bool) -> Page[T]:
    """A page of a list. It never ends between two entries with the same position, which two Lambdas may create."""
    found: list[T] = []
    room, last = _MOST_BYTES, None
    shown = _shown(entries, show, limit, is_filtered)
    for number, (position, detail) in enumerate(shown):
        if position != last and (len(found) >= limit or number >= _MOST or room <= 0):
            return Page(found, last)
        last = position
        if detail is not None:
            found.append(detail)
            room -= size(detail)
    return Page(found, None)


def _shown(entries: Iterator[Entry], show: Show[T], limit: int, is_filtered: bool) -> Iterator[tuple[int, T | None]]:
    """The position and the details of each entry; None for those that the filter excludes.

    Without a filter, only one entry more than `limit` is read.
    """
    left = _MOST if is_filtered else limit + 1
    while chunk := list(islice(entries, min(_AT_ONCE, left) if left > 0 else _AT_ONCE)):
        left -= len(chunk)
        details = show([entry_id for _, entry_id in chunk])
        yield from ((position, details.get(entry_id)) for position, entry_id in chunk)


def _event(item: Item) -> EventDetail:
    position = int(item["p"]["N"])
    misses = item["ms"]["B"] if "ms" in item else None
    replay = item["rp"]["S"] if "rp" in item else None
    invalid = item["iv"]["B"] if "iv" in item else None
    return EventDetail(Event.stored(position, item["b"]["B"]), ms_of(position), misses, replay, invalid)


def _between(since: int | None, until: int | None, before: int | None) -> tuple[int | None, int | None]:
    """The first position from `since` (ms) on, and the position before which the page ends; None: no bound."""
    end = None if until is None else first_of(until)
    first = None if since is None else first_of(since)
    return first, min((number for number in (end, before) if number is not None), default=None)


def _is_of(names: Sequence[str], event: Event) -> bool:
    return not names or user_key(event.user) in names


def _size(detail: RunDetail) -> int:
    results = sum(300 + len(row.output or b"") + len(row.error or b"") for row in detail.attempts)
    return results + 300 * (len(detail.plan.steps) + len(detail.plan.edges))
