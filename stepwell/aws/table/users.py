"""Stores persons: the item of a person's smallest id holds the person, and the items of the other ids point to it.

Two persons are merged in steps, each a conditional write. First the item of the greater id becomes a claim: it points
to the smaller id, but still holds the person. Then the person at the smaller id takes over the ids and traits, and the
claim drops the person. A process that finds a claim completes it. Pointers always go from greater to smaller ids, so
every chain of pointers ends.

An event without new information writes nothing. Ids are only added, so a process can cache the ids that it has
recorded. Traits are always compared with the table, because another process may have changed a value meanwhile.
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
from stepwell.core.events.users import (
    IdentityClaim,
    Person,
    UserId,
    candidates,
    fold,
    identity_claim,
    join,
    pack,
    unpack,
)
from stepwell.platform import NotWritten

_TRIES = 10
_HOPS = 20  # longest chain of pointers; chains longer than 1 exist only after a crash during a merge
_REMEMBERED = 10_000
_REMEMBERED_MS = 60_000  # not longer, because a person may be erased by another process


@dataclass(frozen=True, slots=True)
class StoredId:
    """The item of an id.

    `leads`: the id that it points to. With both `leads` and `person` the item is a claim: the person is to be merged
    into the person of `leads`. `revision` counts the writes of an item that holds a person. An item that only points
    to another id changes only to point to a smaller one.
    """

    id: UserId
    person: Person | None
    leads: UserId | None
    revision: int


Found = Mapping[UserId, StoredId]


class _Lost(Exception):
    """Another process changed the item meanwhile."""


class UserIndex:
    """Finds, records and deletes persons."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._recorded: OrderedDict[tuple[UserId, ...], int] = OrderedDict()  # ids of one claim, and when (ms)

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, ids: Iterable[UserId]) -> dict[UserId, StoredId]:
        """The items of these ids, and the items to which they point."""
        found: dict[UserId, StoredId] = {}
        wanted = set(ids)
        requested: set[UserId] = set()  # some of them may not exist yet
        for _ in range(_HOPS):
            items = read_items(self._table, [person_key(*user_id) for user_id in wanted], consistent=True)
            found |= {stored_id.id: stored_id for stored_id in map(_stored, items)}
            requested |= wanted
            wanted = {stored_id.leads for stored_id in found.values() if stored_id.leads is not None} - requested
            if not wanted:
                return found
        raise NotWritten(f"the chain of user ids is longer than {_HOPS}, after {min(wanted)}")

    def first_person(self, *ids: UserId) -> Person | None:
        """The person of the first of these ids that exists."""
        found = self.read(ids)
        return next((_person(user_id, found, 0) for user_id in ids if user_id in found), None)

    def find(self, text: str) -> Person | None:
        """The person with this id, which may be of any kind."""
        return self.first_person(*candidates(text))

    def names(self, text: str) -> list[str]:
        """All ids of the user with this id: the keys under which lists may contain the user."""
        person = self.find(text)
        return sorted({text} | {user_id.text for user_id in (person.ids if person else ())})

    def listed(self, partitions: Iterable[str]) -> dict[str, Person]:
        """The persons at these partition keys, which come from the index."""
        keys = [person_key(*id_of(partition)) for partition in partitions]
        items = read_items(self._table, keys, consistent=False)
        return {item["pk"]["S"]: unpack(item["b"]["B"]) for item in items if "b" in item and "l" not in item}

    # --- writing ---------------------------------------------------------------------------------------------------

    def record(self, events: Iterable[Event], now: int) -> None:
        """Stores the ids and traits of the events' users, if they are new. Raises NotWritten."""
        news = [
            (claim, event.position)
            for event in events
            if (claim := identity_claim(event)) and not self._is_known(claim, now)
        ]
        if not news:
            return
        found: Found | None = self.read(user_id for claim, _ in news for user_id in (*claim.ids, *claim.previous))
        for claim, position in sorted(news, key=lambda pair: pair[1]):
            if self._learn(claim, position, found):
                found = None  # the items that were read before have changed
            self._remember(claim, now)

    def _is_known(self, claim: IdentityClaim, now: int) -> bool:
        return not claim.traits and now - self._recorded.get(_all_ids(claim), -_REMEMBERED_MS) < _REMEMBERED_MS

    def _remember(self, claim: IdentityClaim, now: int) -> None:
        self._recorded[_all_ids(claim)] = now
        self._recorded.move_to_end(_all_ids(claim))
        if len(self._recorded) > _REMEMBERED:
            self._recorded.popitem(last=False)

    def _learn(self, claim: IdentityClaim, position: int, found: Found | None) -> bool:
        """Stores a claim, and tries again after lost races. Returns whether anything was written."""
        for tries in range(_TRIES):
            try:
                return self._fold(claim, position, self.read(_all_ids(claim)) if found is None else found)
            except _Lost:
                found = None
                time.sleep(random.uniform(0, 0.01 * 2 ** min(tries, 6)))
        raise NotWritten(f"user {claim.ids[0].text!r} was changed by other processes {_TRIES} times in a row")

    def _fold(self, value: IdentityClaim, position: int, found: Found) -> bool:
        ids, at = _all_ids(value), ms_of(position)
        known = {user_id: _person(user_id, found, at) for user_id in ids}
        person = fold(value, position, at, known)
        root = found.get(person.root)
        leading = {_end(user_id, found) for user_id in ids if user_id in person.ids} - {person.root}
        claims = [
            stored_id
            for stored_id in _path(ids, found)
            if stored_id.person is not None and stored_id.leads in person.ids
        ]
        if root is not None and root.person == person and not leading and not claims:
            return False
        for user_id in leading:
            stored = found.get(user_id, StoredId(user_id, None, None, 0))
            claim = StoredId(user_id, stored.person, person.root, stored.revision + 1)
            self._put(claim)
            if stored.person is not None:
                claims.append(claim)
        if root is None or root.person != person:
            self._put(StoredId(person.root, person, None, (root.revision if root else 0) + 1))
        for claim in claims:
            self._settle(claim, person.root)
        return True

    def _settle(self, claim: StoredId, root: UserId) -> None:
        """Completes a claim whose person has been merged: all ids of that person now point to `root`."""
        assert claim.person is not None
        with suppress(_Lost):  # another process has completed it
            self._put(StoredId(claim.id, None, root, claim.revision + 1))
        for user_id in sorted(claim.person.ids - {claim.id, root}):
            with suppress(_Lost):
                self._put_item(_lead(user_id, root), LEADS)

    def keep(self, person: Person) -> None:
        """Adds a person, even if only an id is known. Does nothing if the id exists."""
        with suppress(_Lost):
            self._put(StoredId(person.root, person, None, 1))

    def forget(self, person: Person) -> None:
        """Deletes a person: the pointers first, so that an interrupted deletion can find the rest again."""
        found = [stored_id for stored_id in self.read(person.ids).values() if stored_id.id in person.ids]
        for is_root in (False, True):
            delete_items(
                self._table, [person_key(*stored_id.id) for stored_id in found if (stored_id.leads is None) is is_root]
            )
        self._recorded.clear()

    def _put(self, stored_id: StoredId) -> None:
        """Writes the item of an id. Raises _Lost if it is no longer at the revision before."""
        item = person_key(*stored_id.id) if stored_id.leads is None else _lead(stored_id.id, stored_id.leads)
        if stored_id.person is not None:
            item |= {"b": {"B": pack(stored_id.person)}, "v": {"N": str(stored_id.revision)}}
        if stored_id.leads is None and stored_id.person is not None:
            item["gk"] = {"S": people_partition(shard_of(stored_id.id.text, STATUS_SHARDS))}
            item["gs"] = {
                "N": str(
                    first_of(stored_id.person.since) + shard_of(f"{stored_id.id.kind}#{stored_id.id.text}", 1 << 17)
                )
            }
        before = {":before": {"N": str(stored_id.revision - 1)}}
        self._put_item(item, UNCHANGED if stored_id.revision > 1 else NEW, before if stored_id.revision > 1 else None)

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


def _lead(user_id: UserId, to: UserId) -> Item:
    return {**person_key(*user_id), "l": {"S": person_key(*to)["pk"]["S"]}}


def _all_ids(claim: IdentityClaim) -> tuple[UserId, ...]:
    return (*claim.ids, *claim.previous)


def _path(ids: Iterable[UserId], found: Found) -> list[StoredId]:
    """The items of these ids, and all items that they point to, directly or not."""
    path = {}
    for user_id in ids:
        at: UserId | None = user_id
        while at is not None and at in found:
            path[at] = found[at]
            at = found[at].leads
    return list(path.values())


def _end(user_id: UserId, found: Found) -> UserId:
    """The last id in the chain of pointers from an id."""
    while user_id in found and (leads := found[user_id].leads) is not None:
        user_id = leads
    return user_id


def _person(user_id: UserId, found: Found, at: int) -> Person:
    """The person of an id, merged from all items on the chain of pointers. `at` (ms): when a new person begins."""
    path = _path([user_id], found)
    people = [stored_id.person for stored_id in path if stored_id.person is not None]
    since = min((person.since for person in people), default=at)
    person = Person(frozenset({user_id, _end(user_id, found)}), {}, since)
    for item in people:
        person = join(person, item)
    return person
