"""Persons in the table: each stands at its smallest id, and its other ids lead there.

Two become one by one conditional write: the item of the greater id, claimed for the smaller one, holds its person until
that has it. Whoever finds a claim completes it. So leads go from greater to smaller ids alone, and end.

One rule: an event that tells nothing new writes nothing. Ids are only ever added, so a process remembers which it has
seen; of a trait another process may have told another value since, so it is looked up.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.table.items import delete_items, read_items
from stepwell.aws.table.keys import LEADS, NEW, STATUS_SHARDS, UNCHANGED, Item, people_partition, person_key, shard_of
from stepwell.aws.table.positions import first_of, ms_of
from stepwell.core.events.events import Event
from stepwell.core.events.users import Person, Told, UserId, candidates, fold, join, pack, told_by, unpack
from stepwell.platform import NotWritten

_TRIES = 10
_HOPS = 20  # ids that may lead to one another: after a crash in the middle of joining, and no longer than that
_REMEMBERED = 10_000
_REMEMBERED_MS = 60_000  # a person may be erased, and be told of again


@dataclass(frozen=True, slots=True)
class StoredId:
    """The item of an id. `leads`: to which other; the person is then one that waits to be joined with that one's.
    `revision` counts the writes as long as there is a person: what only leads is never changed but to lead further."""

    id: UserId
    person: Person | None
    leads: UserId | None
    revision: int


Found = Mapping[UserId, StoredId]


class _Lost(Exception):
    """Somebody else has changed the item."""


class People:
    def __init__(self, table: str) -> None:
        self._table = table
        self._told: OrderedDict[tuple[UserId, ...], int] = OrderedDict()  # ids that were told together, and when

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, ids: Iterable[UserId]) -> dict[UserId, StoredId]:
        """The items of ids, and those that they lead to."""
        found: dict[UserId, StoredId] = {}
        wanted = set(ids)
        asked: set[UserId] = set()  # some may not be there yet
        for _ in range(_HOPS):
            items = read_items(self._table, [person_key(*its) for its in wanted], consistent=True)
            found |= {its.id: its for its in map(_stored, items)}
            asked |= wanted
            wanted = {its.leads for its in found.values() if its.leads is not None} - asked
            if not wanted:
                return found
        raise NotWritten(f"more than {_HOPS} ids lead to one another; is {min(wanted)} the last one?")

    def whose(self, *ids: UserId) -> Person | None:
        """The person of the first of these ids that is known."""
        found = self.read(ids)
        return next((_person(its, found, 0) for its in ids if its in found), None)

    def find(self, text: str) -> Person | None:
        """Whom an id means, of the first kind that knows it."""
        return self.whose(*candidates(text))

    def names(self, text: str) -> list[str]:
        """All that lists may call a user whom one calls so."""
        person = self.find(text)
        return sorted({text} | {its.text for its in (person.ids if person else ())})

    def listed(self, partitions: Iterable[str]) -> dict[str, Person]:
        """Persons by the partitions that the index names."""
        keys = [person_key(*id_of(partition)) for partition in partitions]
        items = read_items(self._table, keys, consistent=False)
        return {item["pk"]["S"]: unpack(item["b"]["B"]) for item in items if "b" in item and "l" not in item}

    # --- writing ---------------------------------------------------------------------------------------------------

    def tell(self, events: Iterable[Event], now: int) -> None:
        """Write down what accepted events tell of their users, if that is new. Raises NotWritten."""
        news = [(told, event.seq) for event in events if (told := told_by(event)) and not self._is_known(told, now)]
        if not news:
            return
        found: Found | None = self.read(its for told, _ in news for its in (*told.ids, *told.previous))
        for told, position in sorted(news, key=lambda its: its[1]):
            if self._learn(told, position, found):
                found = None  # what was read for all of them has changed
            self._remember(told, now)

    def _is_known(self, told: Told, now: int) -> bool:
        return not told.traits and now - self._told.get(_all_ids(told), -_REMEMBERED_MS) < _REMEMBERED_MS

    def _remember(self, told: Told, now: int) -> None:
        self._told[_all_ids(told)] = now
        self._told.move_to_end(_all_ids(told))
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _learn(self, told: Told, position: int, found: Found | None) -> bool:
        """Whether there was anything to write."""
        for tries in range(_TRIES):
            try:
                return self._fold(told, position, self.read(_all_ids(told)) if found is None else found)
            except _Lost:
                found = None
                time.sleep(random.uniform(0, 0.01 * 2 ** min(tries, 6)))
        raise NotWritten(f"{_TRIES} times others were faster to tell of {told.ids[0].text!r}")

    def _fold(self, told: Told, position: int, found: Found) -> bool:
        ids, at = _all_ids(told), ms_of(position)
        known = {its: _person(its, found, at) for its in ids}
        person = fold(told, position, at, known)
        root = found.get(person.root)
        leading = {_end(its, found) for its in ids if its in person.ids} - {person.root}
        claims = [its for its in _path(ids, found) if its.person is not None and its.leads in person.ids]
        if root is not None and root.person == person and not leading and not claims:
            return False
        for its in leading:
            stored = found.get(its, StoredId(its, None, None, 0))
            claim = StoredId(its, stored.person, person.root, stored.revision + 1)
            self._put(claim)
            if stored.person is not None:
                claims.append(claim)
        if root is None or root.person != person:
            self._put(StoredId(person.root, person, None, (root.revision if root else 0) + 1))
        for claim in claims:
            self._settle(claim, person.root)
        return True

    def _settle(self, claim: StoredId, root: UserId) -> None:
        """Its person is joined: it leads there now, and its ids need no longer go by way of it."""
        assert claim.person is not None
        with suppress(_Lost):  # somebody else has settled it
            self._put(StoredId(claim.id, None, root, claim.revision + 1))
        for its in sorted(claim.person.ids - {claim.id, root}):
            with suppress(_Lost):
                self._put_item(_lead(its, root), LEADS)

    def keep(self, person: Person) -> None:
        """Have a person in the table, also one of whom but an id is known."""
        with suppress(_Lost):
            self._put(StoredId(person.root, person, None, 1))

    def forget(self, person: Person) -> None:
        """Delete a person: what leads to it first, so that who is interrupted finds it again."""
        found = [its for its in self.read(person.ids).values() if its.id in person.ids]
        for is_root in (False, True):
            delete_items(self._table, [person_key(*its.id) for its in found if (its.leads is None) is is_root])
        self._told.clear()

    def _put(self, its: StoredId) -> None:
        """At its revision, if nobody has written it since the one before."""
        item = person_key(*its.id) if its.leads is None else _lead(its.id, its.leads)
        if its.person is not None:
            item |= {"b": {"B": pack(its.person)}, "v": {"N": str(its.revision)}}
        if its.leads is None and its.person is not None:
            item["gk"] = {"S": people_partition(shard_of(its.id.text, STATUS_SHARDS))}
            item["gs"] = {"N": str(first_of(its.person.since) + shard_of(f"{its.id.kind}#{its.id.text}", 1 << 17))}
        before = {":before": {"N": str(its.revision - 1)}}
        self._put_item(item, UNCHANGED if its.revision > 1 else NEW, before if its.revision > 1 else None)

    def _put_item(self, item: Item, condition: str, values: Item | None = None) -> None:
        db = client("dynamodb")
        more: dict[str, Any] = {} if values is None else {"ExpressionAttributeValues": values}
        try:
            db.put_item(TableName=self._table, Item=item, ConditionExpression=condition, **more)
        except db.exceptions.ConditionalCheckFailedException:
            raise _Lost from None


def id_of(partition: str) -> UserId:
    kind, _, text = partition[2:].partition("#")
    return UserId(int(kind), text)


def _stored(item: Item) -> StoredId:
    leads = id_of(item["l"]["S"]) if "l" in item else None
    person = unpack(item["b"]["B"]) if "b" in item else None
    return StoredId(id_of(item["pk"]["S"]), person, leads, int(item["v"]["N"]) if "v" in item else 0)


def _lead(its: UserId, to: UserId) -> Item:
    return {**person_key(*its), "l": {"S": person_key(*to)["pk"]["S"]}}


def _all_ids(told: Told) -> tuple[UserId, ...]:
    return (*told.ids, *told.previous)


def _path(ids: Iterable[UserId], found: Found) -> list[StoredId]:
    """All items on the way of these ids."""
    path = {}
    for its in ids:
        at: UserId | None = its
        while at is not None and at in found:
            path[at] = found[at]
            at = found[at].leads
    return list(path.values())


def _end(user_id: UserId, found: Found) -> UserId:
    while user_id in found and (leads := found[user_id].leads) is not None:
        user_id = leads
    return user_id


def _person(user_id: UserId, found: Found, at: int) -> Person:
    """All that is known of the person of an id. `at`: since when, if it is known only from now on."""
    path = _path([user_id], found)
    people = [its.person for its in path if its.person is not None]
    since = min((its.since for its in people), default=at)
    person = Person(frozenset({user_id, _end(user_id, found)}), {}, since)
    for its in people:
        person = join(person, its)
    return person
