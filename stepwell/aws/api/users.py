"""`/v1/users` on AWS: persons and their timelines.

Lists are found by the text of an id, whatever the kind of the id. So an entry belongs to a person only if the event's
user has an id of the same kind and text. The reads of each request are bounded.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import orjson

from stepwell.api.v1.timeline import EndedAttempt, Entry, Mark, UserRun, event_entry, run_entry, step_entry
from stepwell.api.v1.users import Erased, Seen
from stepwell.aws.api.erasure import Erasure
from stepwell.aws.api.queries import Queries
from stepwell.aws.engine.results import all_attempts
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_items
from stepwell.aws.table.keys import STATUS_SHARDS, Item, event_key, item_key, people_partition, run_key
from stepwell.aws.table.list_layout import EVENTS, RUNS, of_user
from stepwell.aws.table.list_layout import Entry as Listed
from stepwell.aws.table.positions import first_of, ms_of
from stepwell.aws.table.runs import StoredRun, stored_run
from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.events.events import Event
from stepwell.core.events.users import Person, owner, single_id_person
from stepwell.reader import Page

_AT_ONCE = 100
_MOST = 2000  # runs that are read for a page of a timeline
_NEWEST = first_of(1 << 44)


class _Ended(NamedTuple):
    mark: Mark
    run: StoredRun
    attempt: StoredAttempt


class AwsUsers(Queries):
    """Implements `api.v1.users.Users`. `cancel`: cancels a run of a person who is erased."""

    def __init__(self, resources: Resources, registry: Registry, cancel: Callable[[str], None]) -> None:
        super().__init__(resources, registry)
        self._erasure = Erasure(resources, self._lists, self._users, registry, cancel)

    def read_users(self, *, before: int | None, limit: int) -> Page[Person]:
        partitions = [people_partition(shard) for shard in range(STATUS_SHARDS)]
        entries = self._lists.indexed(partitions, 0, _NEWEST if before is None else before, limit)
        page = list(islice(entries, limit))
        following = None
        for position, partition in entries:
            if position != page[-1][0]:
                following = page[-1][0]
                break
            page.append((position, partition))
        persons = self._users.listed(partition for _, partition in page)
        return Page([persons[partition] for _, partition in page if partition in persons], following)

    def find(self, text: str) -> Person | None:
        """The person with this id; if none is recorded, the user of the newest event that is listed under it."""
        person = self._users.find(text)
        if person is not None:
            return person
        for _, event_id in self._lists.entries(EVENTS, of_user(text), None, 1):
            for item in read_items(self._table, [event_key(event_id)], consistent=False):
                user_id = owner(orjson.loads(item["b"]["B"])["user"])
                if user_id is not None:
                    return single_id_person(user_id, ms_of(int(item["p"]["N"])))
        return None

    def seen(self, person: Person) -> Seen:
        lists = [of_user(name) for name in _names(person)]
        begun = [ms_of(number) for name in lists if (number := self._lists.oldest(name)) is not None]
        newest = (next(self._lists.entries(EVENTS, name, None, 1), None) for name in lists)
        last = [ms_of(pair[0]) for pair in newest if pair is not None]
        return Seen(person, min(begun, default=person.since), max(last, default=person.since))

    def erase(self, person: Person) -> Erased:
        return self._erasure.erase(person)

    # --- timelines -------------------------------------------------------------------------------------------------

    def timeline(self, person: Person, *, before: Mark | None, limit: int) -> Sequence[Entry]:
        until = None if before is None else first_of(before[0] + 1)
        runs = self._runs(person, until)
        ended = sorted(self._ended(runs), reverse=True)
        sources: list[Iterator[Entry | _Ended]] = [
            self._events(person, until, limit),
            iter(sorted(map(_run_entry, runs), key=lambda entry: entry.mark, reverse=True)),
            iter(ended),
        ]
        entries = heapq.merge(*sources, key=lambda entry: entry.mark, reverse=True)
        wanted = list(islice((entry for entry in entries if before is None or entry.mark < before), limit))
        errors = self._errors([ended for ended in wanted if isinstance(ended, _Ended)])
        return [self._step_entry(item, errors) if isinstance(item, _Ended) else item for item in wanted]

    def _events(self, person: Person, until: int | None, limit: int) -> Iterator[Entry]:
        entries = self._of_users(EVENTS, _names(person), until, limit)
        while chunk := list(islice(entries, min(_AT_ONCE, limit))):
            for position, event in self._owned(person, chunk):
                yield event_entry(event.id, event.name, ms_of(position), position)

    def _owned(self, person: Person, entries: Sequence[Listed]) -> Iterator[tuple[int, Event]]:
        events = self._read_events(event_id for _, event_id in entries)
        for position, event_id in entries:
            if event_id in events and owner(events[event_id].user) in person.ids:
                yield position, events[event_id]

    def _read_events(self, ids: Iterator[str]) -> dict[str, Event]:
        items = read_items(self._table, map(event_key, ids), consistent=False)
        events = [Event.stored(int(item["p"]["N"]), item["b"]["B"]) for item in items]
        return {event.id: event for event in events}

    def _runs(self, person: Person, until: int | None) -> list[StoredRun]:
        """The newest runs of a person."""
        entries = islice(self._of_users(RUNS, _names(person), until, _MOST), _MOST)
        runs: list[StoredRun] = []
        while chunk := list(islice(entries, _AT_ONCE)):
            items = read_items(self._table, [run_key(run_id) for _, run_id in chunk], consistent=False)
            found = [stored_run for stored_run in map(stored_run, items) if stored_run.user is not None]
            events = self._read_events(stored_run.event_id for stored_run in found if stored_run.event_body is None)
            runs += [stored_run for stored_run in found if _owner_of(stored_run, events) in person.ids]
        return runs

    def _ended(self, runs: Sequence[StoredRun]) -> Iterator[_Ended]:
        read = partial(read_items, self._table, consistent=False)
        for run in runs:
            for attempt in all_attempts(run, read, results=False):
                if attempt.attempt:  # 0 is a result that a rerun has kept
                    yield _Ended((attempt.ended_at, 2, run.position, attempt.step, attempt.attempt), run, attempt)

    def _errors(self, ended: Sequence[_Ended]) -> dict[tuple[str, str], bytes]:
        """The long errors of failed attempts, which are in other items, by partition key and sort key."""
        keys = [
            item_key(ended.run.run.id, ended.attempt.ref)
            for ended in ended
            if ended.attempt.ref is not None and ended.attempt.status == "failed"
        ]
        items = read_items(self._table, keys, consistent=False) if keys else []
        return {_name(item): item["x"]["B"] for item in items if "x" in item}

    def _step_entry(self, ended: _Ended, errors: dict[tuple[str, str], bytes]) -> Entry:
        run, attempt = ended.run, ended.attempt
        error = attempt.error
        if attempt.ref is not None:
            error = errors.get((run_key(run.run.id)["pk"]["S"], attempt.ref))
        plan = self._registry.version(run.function, run.version).plan
        shown = EndedAttempt(
            run.run.id, run.function, plan, attempt.step, attempt.attempt, attempt.status, attempt.ended_at, error
        )
        return step_entry(run.position, shown)


def _names(person: Person) -> list[str]:
    return sorted({user_id.text for user_id in person.ids})


def _name(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _owner_of(run: StoredRun, events: dict[str, Event]) -> object:
    if run.event_body is not None:
        return owner(orjson.loads(run.event_body)["user"])
    return owner(events[run.event_id].user) if run.event_id in events else None


def _run_entry(stored: StoredRun) -> Entry:
    run = UserRun(
        stored.run.id,
        stored.function,
        stored.version,
        stored.event_id,
        stored.run.status,
        stored.run.ended_at,
        stored.rerun_of,
        stored.replay,
    )
    return run_entry(ms_of(stored.position), stored.position, run)
