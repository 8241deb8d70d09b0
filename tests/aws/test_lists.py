"""Lists of events and runs: order, writes, and the number of requests to read them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest
import time_machine

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table.list_layout import ALL, EVENTS, RUNS, Listed, of_function, of_name, of_user
from stepwell.aws.table.lists import Lists
from stepwell.aws.table.positions import first_of

DAY = 86_400_000


@pytest.fixture
def lists(resources: Resources) -> Lists:
    return Lists(resources)


@pytest.fixture
def now() -> Iterator[int]:
    """The middle of a month, whatever the current date is."""
    with time_machine.travel("2026-11-15T12:00:00Z", tick=False):
        yield time.time_ns() // 1_000_000


def event(ms: int, number: int = 0, name: str = "go", user: str | None = None) -> Listed:
    return Listed(first_of(ms) + number, f"event-{ms}-{number}", name, user)


def run(ms: int, number: int = 0, function: str = "f", user: str | None = None) -> Listed:
    return Listed(first_of(ms) + number, f"run-{ms}-{number}", None, user, function)


def read(lists: Lists, kind: str, dimension: str, before: int | None = None, most: int = 10_000) -> list[str]:
    return [its_id for _, its_id in islice(lists.entries(kind, dimension, before, 50), most)]


def ids(listed: list[Listed]) -> list[str]:
    return [listed.id for listed in listed]


def rows(resources: Resources) -> list[str]:
    items = client("dynamodb").scan(TableName=resources.table)["Items"]
    return sorted(item["pk"]["S"] for item in items if item["pk"]["S"].startswith("L#"))


def test_events_and_runs_are_in_the_lists_of_their_dimensions(lists: Lists, now: int) -> None:
    events = [event(now, 1, "a", "ada"), event(now, 2, "b", "bob")]
    runs = [run(now, 3, "f", "ada"), run(now, 4, "g")]
    lists.add(events, runs, now)
    assert read(lists, EVENTS, ALL) == ids(events)[::-1]
    assert read(lists, RUNS, ALL) == ids(runs)[::-1]
    assert read(lists, EVENTS, of_name("a")) == [events[0].id]
    assert read(lists, EVENTS, of_user("ada")) == [events[0].id]
    assert read(lists, RUNS, of_user("ada")) == [runs[0].id]
    assert read(lists, RUNS, of_function("g")) == [runs[1].id]
    assert read(lists, EVENTS, of_user("nobody")) == []


def test_a_batch_writes_one_row_for_each_value_of_a_dimension(
    lists: Lists, now: int, resources: Resources, requests: list[str]
) -> None:
    lists.add([event(now, n, "go", f"user-{n % 2}") for n in range(10)], [run(now, n) for n in range(10)], now)
    assert sorted(row.rsplit("#", 2)[0] for row in rows(resources)) == [
        "L#a",
        "L#f#f",
        "L#n#go",
        "L#u#user-0",
        "L#u#user-1",
    ]
    assert Counter(requests) == {"PutItem": 1, "BatchWriteItem": 1, "Scan": 1}


def test_an_empty_batch_writes_nothing(lists: Lists, now: int, requests: list[str]) -> None:
    lists.add([], [], now)
    assert requests == []


def test_what_is_written_twice_is_listed_once(lists: Lists, now: int, resources: Resources) -> None:
    events = [event(now, n) for n in range(3)]
    lists.add(events, [], now)
    before = rows(resources)
    lists.add(events, [], now)
    assert rows(resources) == before
    lists.add([events[1], event(now + 5)], [], now)
    assert read(lists, EVENTS, ALL) == [event(now + 5).id, *ids(events)[::-1]]


def test_a_batch_that_begins_with_anothers_event_takes_nothing_out_of_its_row(lists: Lists, now: int) -> None:
    first, second, third = (event(now, n) for n in range(3))
    lists.add([first, second], [], now)
    lists.add([first, third], [], now)
    assert read(lists, EVENTS, ALL) == ids([third, second, first])


def test_an_old_event_that_comes_again_does_not_hide_newer_ones(lists: Lists, now: int) -> None:
    old, between, new = event(now - 60_000), event(now - 30_000), event(now)
    lists.add([between], [], now)
    lists.add([old, new], [], now)
    assert read(lists, EVENTS, ALL, most=2) == ids([new, between])
    assert read(lists, EVENTS, ALL) == ids([new, between, old])


def test_a_list_is_in_order_however_batches_overlap(lists: Lists, now: int) -> None:
    events = [event(now - 3000 + 3 * n, n) for n in range(1000)]
    shuffled = random.Random(7).sample(events, len(events))
    for start in range(0, 1000, 50):
        lists.add(shuffled[start : start + 50], [], now)
    assert read(lists, EVENTS, ALL) == ids(events)[::-1]


def test_pages_follow_each_other_without_gap_or_repetition(lists: Lists, now: int) -> None:
    events = [event(now - 500 + n // 2, n) for n in range(250)]
    lists.add(events, [], now)
    found: list[str] = []
    before = None
    while page := list(islice(lists.entries(EVENTS, ALL, before, 7), 7)):
        found += [its_id for _, its_id in page]
        before = page[-1][0]
    assert found == ids(events)[::-1]


def test_a_list_goes_back_over_months_as_far_as_events_are_kept(lists: Lists, now: int) -> None:
    kept, old = [event(now - days * DAY) for days in (0, 10, 20, 29)], event(now - 32 * DAY)
    for listed in (old, *kept):
        lists.add([listed], [], now)
    assert read(lists, EVENTS, ALL) == ids(kept)


def test_a_list_of_an_environment_without_events_costs_one_request(lists: Lists, requests: list[str]) -> None:
    assert read(lists, EVENTS, ALL) == []
    assert requests == ["GetItem"]


def test_a_list_without_entries_costs_one_query_for_each_shard_of_the_months_since_the_first_event(
    resources: Resources, now: int, requests: list[str]
) -> None:
    Lists(resources).add([event(now)], [], now)
    requests.clear()
    reader = Lists(resources)
    assert read(reader, EVENTS, of_user("nobody")) == []
    assert Counter(requests) == {"GetItem": 1, "Query": 8}


def test_a_page_of_a_busy_list_costs_one_query_for_each_shard(lists: Lists, now: int, requests: list[str]) -> None:
    for n in range(100):
        lists.add([event(now - 50_000 + 500 * n)], [], now)
    requests.clear()
    assert len(read(lists, EVENTS, ALL, first_of(now), most=50)) == 50
    assert requests.count("Query") <= 10


def test_a_user_may_have_a_name_of_any_length(lists: Lists, now: int) -> None:
    names = ["x" * 5000, "x" * 5001, "#", "ada#2026-11#3"]
    lists.add([event(now, n, user=name) for n, name in enumerate(names)], [], now)
    for n, name in enumerate(names):
        assert read(lists, EVENTS, of_user(name)) == [event(now, n).id]


def test_rows_are_removed_when_what_they_list_is(lists: Lists, now: int, resources: Resources) -> None:
    lists.add([event(now)], [], now)
    items = client("dynamodb").scan(TableName=resources.table)["Items"]
    assert {int(item["ttl"]["N"]) for item in items if item["pk"]["S"].startswith("L#")} == {now // 1000 + 30 * 86_400}
