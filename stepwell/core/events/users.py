"""Who events speak of: the ids and traits that make up a person, and when two persons are one.

One rule: what is told is only ever added. So the order of events does not matter: persons are joined like sets, of each
trait the value that was accepted latest counts, and a person's canonical id is the smallest of its ids.

As Segment's identify and alias: https://segment.com/docs/connections/spec/identify/ and /alias/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from stepwell.core.events.events import Event

IDENTIFY = "stepwell/identify"
KINDS = ("external_id", "id", "email", "phone")  # the first that a user has is the one that an event belongs to
_EXTERNAL = 0
_LONGEST_ID = 256
MOST_IDS = 100  # of a person: who shares an id with more has no id of their own
MOST_TRAITS = 100
_LONGEST_NAME = 128
_LONGEST_VALUE = 2048  # bytes of JSON


class UserId(NamedTuple):
    """`kind` counts in `KINDS`, so that the smallest of some ids is the best one."""

    kind: int
    text: str


class Trait(NamedTuple):
    """A value, with the event that told it when it was another: its position, and when it was accepted (ms)."""

    value: Any
    position: int
    at: int


class IdentityClaim(NamedTuple):
    """What an event says of a user. The event belongs to the first of `ids`; `previous`: what `ids` replace."""

    ids: Sequence[UserId]
    previous: Sequence[UserId]
    traits: Mapping[str, Any]


class Person(NamedTuple):
    """`since`: when the first event that told of it was accepted (ms)."""

    ids: frozenset[UserId]
    traits: Mapping[str, Trait]
    since: int

    @property
    def root(self) -> UserId:
        """By which the person is known."""
        return min(self.ids)


def owner(user: Mapping[str, Any]) -> UserId | None:
    """To whom an event with this user belongs; `events.user_key` is its text."""
    return next(iter(_ids(user)), None)


def candidates(text: str) -> list[UserId]:
    """The ids that may be meant by a text, the likeliest first."""
    return [UserId(kind, text) for kind in range(len(KINDS))]


def identity_claim(event: Event) -> IdentityClaim | None:
    """What an event tells of a user besides one id; None if that is nothing. The engine's own events repeat users."""
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
    traits = {name: value for name, value in traits.items() if _is_kept(name, value)}
    return IdentityClaim(ids, previous, traits) if len(ids) > 1 or previous or traits else None


def fold(claim: IdentityClaim, position: int, at: int, known: Mapping[UserId, Person]) -> Person:
    """The person whom an event belongs to, with what it tells; `known` holds the persons of those of its ids that have
    one. Whose ids the person has then is one with it.

    Ids that stand together belong together, but two persons who both have an external_id are two people who share an
    email or a browser: each id stays with whom it was told of first. Only an external_id in `previous` makes them one.
    """
    first = claim.ids[0]
    person = known.get(first) or alone(first, at)
    others = [(user_id, False) for user_id in claim.ids[1:]] + [
        (user_id, user_id.kind == _EXTERNAL) for user_id in claim.previous
    ]
    for user_id, is_explicit in others:
        other = known.get(user_id) or alone(user_id, at)
        if user_id not in person.ids and may_join(person, other, is_explicit):
            person = join(person, other)
    traits = {name: Trait(value, position, at) for name, value in claim.traits.items() if _is_news(name, value, person)}
    return join(person, Person(frozenset(), traits, at))


def _is_news(name: str, value: Any, person: Person) -> bool:
    """A value that comes again keeps its time: else who sends it with each event would have it written with each."""
    known = person.traits.get(name)
    return known is None or orjson.dumps(known.value) != orjson.dumps(value)


def alone(user_id: UserId, at: int) -> Person:
    """Somebody of whom one id is known."""
    return Person(frozenset({user_id}), {}, at)


def may_join(one: Person, other: Person, is_explicit: bool) -> bool:
    if len(one.ids | other.ids) > MOST_IDS:
        return False
    return is_explicit or one.root == other.root or not one.root.kind == other.root.kind == _EXTERNAL


def join(one: Person, other: Person) -> Person:
    """One person of two; in whatever order, and however often."""
    traits = dict(one.traits)
    for name, trait in other.traits.items():
        if name not in traits or traits[name].position < trait.position:
            traits[name] = trait
    if len(traits) > MOST_TRAITS:  # new ones have no room
        traits = dict(list(traits.items())[: max(MOST_TRAITS, len(one.traits))])
    return Person(one.ids | other.ids, traits, min(one.since, other.since))


def pack(person: Person) -> bytes:
    """As it is stored."""
    ids = [list(user_id) for user_id in sorted(person.ids)]
    return orjson.dumps([ids, {name: list(trait) for name, trait in person.traits.items()}, person.since])


def unpack(data: bytes) -> Person:
    ids, traits, since = orjson.loads(data)
    return Person(
        frozenset(UserId(*item) for item in ids), {name: Trait(*item) for name, item in traits.items()}, since
    )


def _ids(user: Mapping[str, Any]) -> list[UserId]:
    """In the order of `KINDS`, by the rule of `events.user_key`; what is longer is no id."""
    found = []
    for kind, field in enumerate(KINDS):
        value = user.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool) and 0 < len(str(value)) <= _LONGEST_ID:
            found.append(UserId(kind, str(value)))
    return found


def _is_kept(name: str, value: Any) -> bool:
    return len(name) <= _LONGEST_NAME and len(orjson.dumps(value)) <= _LONGEST_VALUE
