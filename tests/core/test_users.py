"""Tests the merging of persons with random events in random order, against a plain union-find."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.core.events.events import event_from, internal_event
from stepwell.core.events.users import (
    MOST_IDS,
    MOST_TRAITS,
    IdentityClaim,
    Person,
    Trait,
    UserId,
    fold,
    identity_claim,
    join,
    owner,
    pack,
    unpack,
)

Json = dict[str, Any]
EXTERNAL, ID, EMAIL, PHONE = range(4)


def identity_of(user: Json, data: Json | None = None, name: str = "stepwell/identify") -> IdentityClaim | None:
    return identity_claim(event_from({"name": name, "id": "e", "ts": 1, "user": user, "data": data or {}}))


class Known:
    """All persons, by each id, as in the store of a platform."""

    def __init__(self, events: Iterable[tuple[int, IdentityClaim]] = ()) -> None:
        self.people: dict[UserId, Person] = {}
        for position, claim in events:
            self.add(claim, position)

    def add(self, claim: IdentityClaim, position: int) -> Person:
        known = {i: self.people[i] for i in (*claim.ids, *claim.previous) if i in self.people}
        person = fold(claim, position, position * 10, known)
        self.people.update(dict.fromkeys(person.ids, person))
        return person

    def groups(self) -> set[frozenset[UserId]]:
        return {person.ids for person in self.people.values()}


# --- identity claims -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "user", "data", "ids", "previous", "traits"),
    [
        ("go", {"email": "a@b.c", "id": 7, "plan": "pro"}, {}, ["1 7", "2 a@b.c"], [], {"plan": "pro"}),
        ("go", {"external_id": "u", "traits": {"x": 1}}, {}, ["0 u"], [], {"traits": {"x": 1}}),
        ("go", {"id": "a", "email": ""}, {"traits": {"plan": "pro"}}, None, [], {}),
        ("go", {"id": True, "email": ["x"], "phone": None}, {}, None, [], {}),
        ("go", {"plan": "pro", "name": "x"}, {}, None, [], {}),
        ("stepwell/identify", {"id": "a"}, {"traits": {"plan": "pro"}}, ["1 a"], [], {"plan": "pro"}),
        ("stepwell/identify", {"id": "a", "plan": "free"}, {"traits": {"plan": "pro"}}, ["1 a"], [], {"plan": "pro"}),
        ("stepwell/identify", {"external_id": "u"}, {"previous_id": "anon"}, ["0 u"], ["1 anon"], {}),
        ("stepwell/identify", {"external_id": "u"}, {"previous_id": {"external_id": 1}}, ["0 u"], ["0 1"], {}),
        ("stepwell/identify", {"external_id": "u"}, {"previous_id": [1], "traits": "x"}, None, [], {}),
        ("stepwell/identify", {}, {"previous_id": "anon", "traits": {"x": 1}}, None, [], {}),
        ("go", {"id": "a", "email": "x" * 257}, {}, None, [], {}),
        ("go", {"id": "a", "text": "x" * 3000, "n" * 200: 1, "ok": None}, {}, ["1 a"], [], {"ok": None}),
    ],
)
def test_an_event_contains_ids_and_traits(
    name: str, user: Json, data: Json, ids: list[str] | None, previous: list[str], traits: Json
) -> None:
    claim = identity_of(user, data, name)
    if ids is None:
        assert claim is None
    else:
        assert claim is not None
        assert [f"{kind} {text}" for kind, text in claim.ids] == ids
        assert [f"{kind} {text}" for kind, text in claim.previous] == previous
        assert claim.traits == traits


def test_an_event_with_one_id_and_no_traits_has_no_identity_claim() -> None:
    assert identity_of({"external_id": "u"}, name="go") is None
    assert owner({"external_id": "", "id": 7, "email": "a@b.c"}) == (ID, "7")
    assert owner({"plan": "pro"}) is None


def test_engine_events_have_no_identity_claim() -> None:
    assert identity_claim(internal_event("stepwell/run.completed", {}, {"id": 1, "plan": "old"}, "run:a", 1)) is None


# --- merging ---------------------------------------------------------------------------------------------------------

texts = st.sampled_from("abcde")
user_ids = st.builds(UserId, st.integers(0, 3), texts)
values = st.sampled_from([1, 2, 3])


@st.composite
def identity_claims(draw: st.DrawFn, kinds: tuple[int, int] = (0, 3)) -> IdentityClaim:
    ids = draw(st.dictionaries(st.integers(*kinds), texts, min_size=1, max_size=3))
    previous = draw(st.lists(st.builds(UserId, st.integers(1, 3), texts), max_size=1))
    traits = draw(st.dictionaries(st.sampled_from("xyz"), values, max_size=2))
    return IdentityClaim([UserId(*pair) for pair in sorted(ids.items())], previous, traits)


def union_find(events: Iterable[IdentityClaim]) -> set[frozenset[UserId]]:
    groups: list[set[UserId]] = []
    for event in events:
        new = {*event.ids, *event.previous}
        touched = [group for group in groups if group & new]
        groups = [group for group in groups if not group & new] + [new.union(*touched)]
    return {frozenset(group) for group in groups}


@settings(deadline=None)
@given(st.lists(identity_claims(), max_size=12), st.randoms())
def test_the_order_of_events_does_not_change_persons_or_traits(events: list[IdentityClaim], random: Random) -> None:
    groups = union_find(events)
    if any(sum(kind == EXTERNAL for kind, _ in group) > 1 for group in groups):
        return  # a conflict, covered by the next test
    items = list(enumerate(events, 1))
    known = Known(items)
    assert known.groups() == groups
    latest = {user_id: {name: trait.value for name, trait in p.traits.items()} for user_id, p in known.people.items()}
    random.shuffle(items)
    again = Known([*items, *items[: len(items) // 2]])  # some events twice
    assert again.groups() == groups
    assert {user_id: p.since for user_id, p in again.people.items()} == {
        user_id: p.since for user_id, p in known.people.items()
    }
    again = Known(sorted(items) * 2)
    assert {
        user_id: {name: trait.value for name, trait in p.traits.items()} for user_id, p in again.people.items()
    } == latest


@settings(deadline=None)
@given(st.lists(identity_claims(), max_size=15))
def test_two_external_ids_are_never_one_person_and_no_id_has_two_persons(events: list[IdentityClaim]) -> None:
    known = Known(enumerate(events, 1))
    for group in known.groups():
        assert sum(kind == EXTERNAL for kind, _ in group) <= 1
    for user_id, person in known.people.items():
        assert user_id in person.ids
    everybody = [user_id for group in known.groups() for user_id in group]
    assert len(everybody) == len(set(everybody))
    for event in events:
        assert event.ids[0] in known.people


@settings(deadline=None)
@given(st.lists(identity_claims(), min_size=3, max_size=3))
def test_joining_persons_is_a_union_of_sets(events: list[IdentityClaim]) -> None:
    a, b, c = (Known([(position, claim)]).people[claim.ids[0]] for position, claim in enumerate(events, 1))
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a
    assert unpack(pack(a)) == a


def test_the_last_accepted_value_of_a_trait_counts() -> None:
    ada, pro, free = UserId(ID, "ada"), {"plan": "pro"}, {"plan": "free"}
    late_first = Known([(2, IdentityClaim([ada], [], free)), (1, IdentityClaim([ada], [], pro))])
    assert late_first.people[ada].traits == {"plan": Trait("free", 2, 20)}
    assert late_first.people[ada].since == 10


def test_an_id_that_two_external_ids_share_stays_with_the_first() -> None:
    u1, u2, shared = UserId(EXTERNAL, "u1"), UserId(EXTERNAL, "u2"), UserId(EMAIL, "team@b.c")
    known = Known([(1, IdentityClaim([u1, shared], [], {})), (2, IdentityClaim([u2, shared], [], {"x": 1}))])
    assert known.groups() == {frozenset({u1, shared}), frozenset({u2})}
    assert known.people[u2].traits == {"x": Trait(1, 2, 20)}


def test_only_a_previous_external_id_merges_two_external_ids() -> None:
    u1, u2, browser = UserId(EXTERNAL, "u1"), UserId(EXTERNAL, "u2"), UserId(ID, "browser")
    known = Known([(1, IdentityClaim([u1], [browser], {})), (2, IdentityClaim([u2], [browser], {"x": 1}))])
    assert known.groups() == {frozenset({u1, browser}), frozenset({u2})}
    known.add(IdentityClaim([u2], [u1], {}), 3)
    assert known.groups() == {frozenset({u1, browser, u2})}
    assert known.people[u2].root == u1


def test_an_id_that_all_persons_share_does_not_merge_all_of_them() -> None:
    everybody = UserId(EMAIL, "none@b.c")
    known = Known((n, IdentityClaim([UserId(ID, str(n)), everybody], [], {})) for n in range(MOST_IDS + 50))
    assert len(known.people[everybody].ids) == MOST_IDS
    assert known.people[UserId(ID, "149")].ids == {UserId(ID, "149")}


def test_a_flood_of_traits_does_not_replace_existing_ones() -> None:
    ada = UserId(ID, "ada")
    known = Known([(1, IdentityClaim([ada], [], {"plan": "pro"}))])
    known.add(IdentityClaim([ada], [], {f"t{n}": n for n in range(MOST_TRAITS + 1)}), 2)
    traits = known.add(IdentityClaim([ada], [], {"plan": "free"}), 3).traits
    assert (len(traits), traits["plan"].value) == (MOST_TRAITS, "free")
