"""Persons in the table: the cost of recording them, and that crashes, redeliveries and concurrency change nothing."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest

from stepwell.aws.api import erasure
from stepwell.aws.api.users import AwsUsers
from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import put_items
from stepwell.aws.table.runs import stored_run
from stepwell.aws.table.users import UserIndex, _lead
from stepwell.core.events.events import Event, event_from
from stepwell.core.events.users import Person, UserId
from stepwell.core.flow.keys import limit_key
from stepwell.core.routing.idempotency import value_key
from stepwell.core.routing.waits import wait_index
from stepwell.testing.account.meter import Meter, metered
from stepwell.testing.batches import Batches, Json, handler_step

NOTHING = ({"dynamodb.PutItem": 1, "dynamodb.BatchWriteItem": 1}, 4)  # the event, and three rows of lists


@pytest.fixture
def batches(resources: Resources) -> Batches:
    batches = Batches(resources)
    batches.deploy({"a": handler_step()})
    batches.send("warm", user={"id": "warm"})
    batches.drain()
    return batches


def of_event(batches: Batches, user: Json, name: str = "nobody/cares", data: Json | None = None) -> Meter:
    batches.send(name, data, user=user)
    with metered() as meter:
        assert batches.route()
    return meter


def cost(meter: Meter) -> tuple[dict[str, int], float]:
    return dict(meter.operations()), meter.write_units


def more(**operations: int) -> dict[str, int]:
    fields = dict(NOTHING[0])
    for name, count in operations.items():
        fields[f"dynamodb.{name}"] = fields.get(f"dynamodb.{name}", 0) + count
    return fields


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_a_user_with_one_id_costs_nothing(batches: Batches) -> None:
    assert cost(of_event(batches, {"external_id": "u"})) == NOTHING
    assert cost(of_event(batches, {"external_id": "u"})) == NOTHING


def test_ids_that_belong_together_are_written_once(batches: Batches) -> None:
    both = {"external_id": "u", "email": "a@b.c"}
    first = of_event(batches, both)
    assert cost(first) == (more(BatchGetItem=1, PutItem=2), NOTHING[1] + 1 + 2)  # the email; the person, in the index
    assert cost(of_event(batches, both)) == NOTHING
    batches.start()  # another process reads, and finds that it is known
    again = of_event(batches, both)
    assert again.writes_of("U#") == 0
    assert again.operations()["dynamodb.BatchGetItem"] == 1


def test_traits_are_looked_up_and_written_when_they_change(batches: Batches) -> None:
    assert cost(of_event(batches, {"id": "u", "plan": "pro"})) == (more(BatchGetItem=1, PutItem=1), NOTHING[1] + 2)
    assert cost(of_event(batches, {"id": "u", "plan": "pro"})) == (more(BatchGetItem=1), NOTHING[1])
    assert cost(of_event(batches, {"id": "u", "plan": "free"})) == (more(BatchGetItem=1, PutItem=1), NOTHING[1] + 1)


def test_a_batch_looks_up_all_its_users_with_one_request(batches: Batches) -> None:
    users = [{"external_id": f"u{n}", "email": f"{n}@b.c"} for n in range(10)]
    for user in users:
        batches.send("nobody/cares", user=user)
    batches.route()
    batches.start()
    for user in users:
        batches.send("nobody/cares", user=user)
    with metered() as meter:
        batches.route()
    assert (meter.writes_of("U#"), meter.operations()["dynamodb.BatchGetItem"]) == (0, 1)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def event(number: int, **user: Any) -> Event:
    """An event that was accepted as this one. `user` has an alias in `previous`."""
    data = {"previous_id": user.pop("previous")} if "previous" in user else {}
    fields = {"name": "stepwell/identify", "id": f"e{number}", "ts": 1, "user": user, "data": data}
    return event_from(fields, position=(1000 + number) << 18)


def groups(resources: Resources) -> set[frozenset[UserId]]:
    """The ids of each person, according to each id, and according to the index."""
    people = UserIndex(resources.table)
    items = client("dynamodb").scan(TableName=resources.table)["Items"]
    ids = [UserId(int(kind), text) for kind, text in (_parts(item) for item in items if item["pk"]["S"][:2] == "U#")]
    found: dict[UserId, Person] = {}
    for user_id in ids:
        (person,) = [person for person in [people.first_person(user_id)] if person is not None]
        assert user_id in person.ids
        found[user_id] = person
    listed = people.listed(item["pk"]["S"] for item in items if "gk" in item and item["pk"]["S"][:2] == "U#")
    assert {person.ids for person in listed.values()} == {person.ids for person in found.values()}
    return {person.ids for person in found.values()}


def _parts(item: Json) -> tuple[str, str]:
    kind, _, text = item["pk"]["S"][2:].partition("#")
    return kind, text


MERGED = {
    frozenset({UserId(0, "u"), UserId(1, "a1"), UserId(1, "a2"), UserId(2, "a@b.c"), UserId(3, "+1"), UserId(3, "+2")})
}


@pytest.mark.parametrize("crash_at", range(24))
def test_a_crash_between_any_two_requests_changes_nothing_in_the_end(batches: Batches, crash_at: int) -> None:
    batches.send(user={"id": "a1", "email": "a@b.c", "city": "Rome"})
    batches.route()
    batches.send(user={"id": "a2", "phone": "+1", "plan": "pro"})
    batches.route()
    batches.send(user={"external_id": "u", "email": "a@b.c", "phone": "+2", "plan": "free"})
    batches.send("stepwell/identify", {"previous_id": {"phone": "+1"}}, user={"external_id": "u"})
    batches.crash_at = len(batches.requests) + crash_at
    for _ in range(3):
        batches.route()
    batches.crash_at = None
    batches.drain()
    assert groups(batches.resources) == MERGED
    person = UserIndex(batches.resources.table).find("u")
    assert person is not None
    assert {name: trait.value for name, trait in person.traits.items()} == {"city": "Rome", "plan": "free"}
    waiting = [item for item in items(batches) if "l" in item and "b" in item]
    assert waiting == []


def items(batches: Batches) -> list[Json]:
    found: list[Json] = batches.outside_db.scan(TableName=batches.resources.table)["Items"]
    return [item for item in found if item["pk"]["S"].startswith("U#")]


@pytest.mark.parametrize("round", range(5))
def test_many_who_tell_at_once_tell_the_same_in_the_end(resources: Resources, round: int) -> None:
    chain = [event(n, id=f"i{n}", email=f"{n}@b.c", n=n) for n in range(6)]
    chain += [event(10 + n, phone=f"+{n}", email=f"{n + 1}@b.c", id=f"i{n}") for n in range(5)]
    chain += [event(20, external_id="u", phone="+3"), event(21, external_id="u", previous="i0")]
    tell_at_once(resources, chain)
    (group,) = groups(resources)
    assert len(group) == 6 + 6 + 5 + 1
    person = UserIndex(resources.table).find("+0")
    assert person is not None
    assert (person.root, person.traits["n"].value) == (UserId(0, "u"), 5)


@pytest.mark.parametrize("round", range(5))
def test_of_two_who_claim_an_id_at_once_one_has_it(resources: Resources, round: int) -> None:
    tell_at_once(resources, [event(0, email="a@b.c", x=1)])
    tell_at_once(resources, [event(n, external_id=f"u{n}", email="a@b.c", phone="+1") for n in range(1, 5)])
    found = groups(resources)
    assert sum(len(group) for group in found) == 4 + 2
    assert all(sum(kind == 0 for kind, _ in group) == 1 for group in found)
    with_trait = [group for group in found if UserIndex(resources.table).find(min(group).text).traits]  # type: ignore[union-attr]
    assert [UserId(2, "a@b.c") in group for group in with_trait] == [True]


def tell_at_once(resources: Resources, events: list[Event]) -> None:
    problems: list[Exception] = []
    start = threading.Barrier(len(events))

    def tell(event: Event) -> None:
        try:
            start.wait()
            UserIndex(resources.table).record([event], 1)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=tell, args=(event,)) for event in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_ids_that_lead_to_what_is_not_there_yet_are_read_all_the_same(resources: Resources) -> None:
    """As during a concurrent merge: a pointer is written before the person to which it points."""
    ids = [UserId(1, text) for text in "abcde"]
    a, b, c, d, e = ids
    put_items(resources.table, [_lead(a, b), _lead(c, d), _lead(d, e)])
    assert UserIndex(resources.table).read([a, c]).keys() == {a, c, d}


# --- erasure ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [{"id": "lovelace", "email": "lovelace@b.c"}, {"id": "lovelace"}])
def test_an_erasure_that_is_interrupted_after_every_row_goes_on(
    batches: Batches, monkeypatch: pytest.MonkeyPatch, user: Json
) -> None:
    batches.answer = lambda ctx: {"hidden": "x" * 5000}
    for _ in range(4):
        batches.send(data={"hidden": 1}, user=user)
        batches.drain()
    monkeypatch.setattr(erasure, "_ENOUGH_S", -1.0)
    users = AwsUsers(batches.resources, batches.session.registry, batches.control.cancel)
    requests, counts = 0, {"events": 0, "runs": 0, "attempts": 0}
    while (person := users.find("lovelace")) is not None:
        erased = users.erase(person)
        requests += 1
        counts = {what: count + erased.counts[what] for what, count in counts.items()}  # type: ignore[literal-required]
        assert requests < 50
        if requests == 2:
            batches.start()
    assert requests > 4
    assert counts == {"events": 4, "runs": 4, "attempts": 4}
    kept = str(batches.outside_db.scan(TableName=batches.resources.table)["Items"])
    assert "hidden" not in kept
    assert "lovelace" not in kept


def test_an_erasure_leaves_no_digest_of_what_was_erased(batches: Batches) -> None:
    """Keys of waits and values of `idempotency` are digests: a reader who knows the value could find them."""
    match = "async.data.email == event.data.email"
    batches.deploy(
        {
            "a": handler_step(),
            "b": handler_step({"step": "a", "async": {"event": "paid", "match": match, "ttl": "2d"}}),
        },
        idempotency="event.data.email",
    )
    rate_limit = {"limit": 100, "period": "1d", "key": "event.data.email"}
    singleton = {"mode": "skip", "key": "event.data.email"}
    batches.deploy({"a": handler_step()}, id="limited", rate_limit=rate_limit, singleton=singleton)
    user, data = {"id": "ada", "email": "ada@b.c"}, {"email": "ada@b.c"}
    index = wait_index(match)
    assert index is not None
    key = index.key("paid", {"event": {"data": data}, "data": data}).key
    triggering = event_from({"name": "go", "id": "1", "ts": 1, "data": data})
    value, start = value_key("event.data.email", triggering)[0], limit_key("event.data.email", triggering)[0]
    assert key is not None
    digests = {
        key,
        value,
        start,
        *(hashlib.new(name, b"ada@b.c").digest() for name in ("md5", "sha1", "sha256", "sha512")),
    }
    digests |= {hashlib.blake2b(b"ada@b.c", digest_size=size).digest() for size in (4, 8, 16, 20, 32, 64)}

    def kept() -> set[bytes]:
        """Those of the texts that are in the table."""
        items = batches.outside_db.scan(TableName=batches.resources.table)["Items"]
        runs = [pause.key for item in items if "s" in item for pause in stored_run(item).run.pauses if pause.key]
        text = str(items)
        return {digest for digest in digests if digest.hex() in text or repr(digest)[2:-1] in text or digest in runs}

    for event in ("go", "go", "paid", "go"):
        batches.send(event, data, user=user)
        batches.drain()
    assert kept() == {key, value, start}
    users = AwsUsers(batches.resources, batches.session.registry, batches.control.cancel)
    while (person := users.find("ada")) is not None:
        users.erase(person)
        batches.drain()
    assert kept() == set()
    runs = len(batches.runs())
    batches.send("go", data, user={"id": "eve"})
    batches.drain()
    assert len(batches.runs()) == runs + 2  # no claim is left
