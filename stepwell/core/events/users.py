"""Identifies the users in events: the ids and traits of a person, and when two persons are merged into one.

Information is only added, so the order of events does not matter. Merging is a union of ids. For each trait, the value
that was accepted last counts. The canonical id of a person is the smallest of the ids.

The rules follow Segment's identify and alias: https://segment.com/docs/connections/spec/identify/ and /alias/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from stepwell.core.events.events import Event

IDENTIFY = "stepwell/identify"
KINDS = ("external_id", "id", "email", "phone")  # an event belongs to the first of these ids that it has
_EXTERNAL = 0
_LONGEST_ID = 256
MOST_IDS = 100  # of a person; more than that is a shared id, such as that of a test device
MOST_TRAITS = 100
_LONGEST_NAME = 128
_LONGEST_VALUE = 2048  # bytes of JSON


class UserId(NamedTuple):
    """An id of a user. `kind` is the index in `KINDS`, so that the smallest of several ids is the preferred one."""

    kind: int
    text: str


class Trait(NamedTuple):
    """A trait of a person. `position` and `at` (ms) are those of the event that last changed the value."""

    value: Any
    position: int
    at: int


class IdentityClaim(NamedTuple):
    """The information about a user in one event.

    The event belongs to the first of `ids`. `previous`: earlier ids of the same user, from `previous_id`.
    """

    ids: Sequence[UserId]
    previous: Sequence[UserId]
    traits: Mapping[str, Any]


class Person(NamedTuple):
    """A user with all known ids and traits. `since`: when the first event about the user was accepted (ms)."""

    ids: frozenset[UserId]
    traits: Mapping[str, Trait]
    since: int

    @property
    def root(self) -> UserId:
        """The canonical id."""
        return min(self.ids)


def owner(user: Mapping[str, Any]) -> UserId | None:
    """The id that an event with this user belongs to; None if there is no id. `events.user_key` returns its text."""
    return next(iter(_ids(user)), None)


def candidates(text: str) -> list[UserId]:
    """The ids that a text may stand for, the most likely first."""
    return [UserId(kind, text) for kind in range(len(KINDS))]


def identity_claim(event: Event) -> IdentityClaim | None:
    """The information about a user in an event; None if there is nothing besides a single id.

    Events of the engine give none: they only repeat the user of another event.
    """
    user = event.user
    is_identify = event.name == IDENTIFY
    if not is_identify and (len(user) < 2 or event.name.startswith("stepwell/")):
        return None
    ids = _ids(user)
    if not ids:
        return None
    traits = {name: value for name, value in user.items() if name not in KINDS}
    previous: Sequence[UserId] = ()
    if is_identify:
        more, before = event.data.get("traits"), event.data.get("previous_id")
        traits |= more if isinstance(more, dict) else {}
        previous = _ids(before if isinstance(before, dict) else {"id": before})
    traits = {name: value for name, value in traits.items() if _is_storable(name, value)}
    return IdentityClaim(ids, previous, traits) if len(ids) > 1 or previous or traits else None


def fold(claim: IdentityClaim, position: int, at: int, known: Mapping[UserId, Person]) -> Person:
    """The person of an event, after adding the event's information and merging other persons into it.

    `known`: the persons that the event's ids already belong to. All persons whose ids are in the result are merged into
    it.

    Ids in one event belong to one person. The exception are two persons who both have an external_id: they are two
    people who share an email or a browser, so each id stays with the person that had it first. Only an external_id in
    `previous` merges such persons.
    """
    first = claim.ids[0]
    person = known.get(first) or single_id_person(first, at)
    more_ids = [(user_id, False) for user_id in claim.ids[1:]] + [
        (user_id, user_id.kind == _EXTERNAL) for user_id in claim.previous
    ]
    for user_id, is_explicit in more_ids:
        other = known.get(user_id) or single_id_person(user_id, at)
        if user_id not in person.ids and may_join(person, other, is_explicit):
            person = join(person, other)
    traits = {
        name: Trait(value, position, at) for name, value in claim.traits.items() if _is_changed(name, value, person)
    }
    return join(person, Person(frozenset(), traits, at))


def _is_changed(name: str, value: Any, person: Person) -> bool:
    """Whether a trait has a new value. An equal value keeps its time, so that repeating it causes no write."""
    known = person.traits.get(name)
    return known is None or orjson.dumps(known.value) != orjson.dumps(value)


def single_id_person(user_id: UserId, at: int) -> Person:
    """A person with a single id and no traits."""
    return Person(frozenset({user_id}), {}, at)


def may_join(one: Person, other: Person, is_explicit: bool) -> bool:
    """Whether two persons may be merged. `is_explicit`: the sender gave one id as the `previous_id` of the other."""
    if len(one.ids | other.ids) > MOST_IDS:
        return False
    return is_explicit or one.root == other.root or not one.root.kind == other.root.kind == _EXTERNAL


def join(one: Person, other: Person) -> Person:
    """Two persons merged into one. The result does not depend on the order, or on how often they are merged."""
    traits = dict(one.traits)
    for name, trait in other.traits.items():
        if name not in traits or traits[name].position < trait.position:
            traits[name] = trait
    if len(traits) > MOST_TRAITS:  # existing traits stay, new ones beyond the limit are dropped
        traits = dict(list(traits.items())[: max(MOST_TRAITS, len(one.traits))])
    return Person(one.ids | other.ids, traits, min(one.since, other.since))


def pack(person: Person) -> bytes:
    """The stored form of a person."""
    ids = [list(user_id) for user_id in sorted(person.ids)]
    return orjson.dumps([ids, {name: list(trait) for name, trait in person.traits.items()}, person.since])


def unpack(data: bytes) -> Person:
    """The inverse of `pack`."""
    ids, traits, since = orjson.loads(data)
    return Person(
        frozenset(UserId(*item) for item in ids), {name: Trait(*item) for name, item in traits.items()}, since
    )


def _ids(user: Mapping[str, Any]) -> list[UserId]:
    """The ids of a user in the order of `KINDS`. Values that are too long are left out."""
    found = []
    for kind, field in enumerate(KINDS):
        value = user.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool) and 0 < len(str(value)) <= _LONGEST_ID:
            found.append(UserId(kind, str(value)))
    return found


def _is_storable(name: str, value: Any) -> bool:
    return len(name) <= _LONGEST_NAME and len(orjson.dumps(value)) <= _LONGEST_VALUE
