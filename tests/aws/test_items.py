"""Batches of items: unprocessed keys and items are requested again, and none twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table.events import not_started_json
from stepwell.aws.table.items import delete_items, put_items, read_items, read_partition
from stepwell.aws.table.run_records import OverflowResults, Results
from stepwell.core.routing.not_started import NotStarted
from stepwell.testing.batches import Json


class _Ok:
    status_code = 200
    headers: Json = {}  # noqa: RUF012
    content = b""


@contextmanager
def asked(operation: str, answer: Callable[[Json], Json | None]) -> Iterator[list[int]]:
    """The number of keys or items in each request. An answer of None lets the table answer."""
    sizes: list[int] = []

    def take(params: Json, **_: Any) -> tuple[Any, Json] | None:
        ((_, entries),) = json.loads(params["body"])["RequestItems"].items()
        sizes.append(len(entries["Keys"] if isinstance(entries, dict) else entries))
        found = answer(json.loads(params["body"])["RequestItems"])
        return None if found is None else (_Ok(), {**found, "ResponseMetadata": {"HTTPStatusCode": 200}})

    name, events = f"before-call.dynamodb.{operation}", client("dynamodb").meta.events
    events.register_first(name, take, unique_id="asked")
    try:
        yield sizes
    finally:
        events.unregister(name, unique_id="asked")


def key(number: int) -> Json:
    return {"pk": {"S": "P"}, "sk": {"S": f"{number:04}"}}


def numbers(items: list[Json]) -> list[int]:
    return sorted(int(item["sk"]["S"]) for item in items)


def test_items_are_read_a_hundred_and_written_25_at_a_time(resources: Resources) -> None:
    keys = [key(number) for number in range(101)]
    with asked("BatchWriteItem", lambda request: None) as written:
        put_items(resources.table, keys)
    with asked("BatchGetItem", lambda request: None) as read:
        found = read_items(resources.table, [*keys, *keys], consistent=True)
    assert numbers(found) == list(range(101))
    assert (written, read) == ([25, 25, 25, 25, 1], [100, 1])
    with asked("BatchWriteItem", lambda request: None) as deleted:
        delete_items(resources.table, [*keys[:20], *keys[:20]])
    assert deleted == [20]
    assert numbers(read_partition(resources.table, "P")) == list(range(20, 101))


def test_nothing_is_asked_for_where_nothing_is_wanted(resources: Resources) -> None:
    with asked("BatchWriteItem", lambda request: None) as written, asked("BatchGetItem", lambda request: None) as read:
        put_items(resources.table, [])
        delete_items(resources.table, [])
        assert read_items(resources.table, [], consistent=True) == []
    assert (written, read) == ([], [])


def test_keys_that_dynamodb_leaves_out_are_asked_for_again(resources: Resources) -> None:
    """DynamoDB is full or busy: it may even process nothing."""
    left = [3, 2, 2, 1, 1]

    def answer(request: Json) -> Json:
        keys = request[resources.table]["Keys"]
        cut = len(keys) - left.pop(0) if left else len(keys)
        rest = {resources.table: {"Keys": keys[cut:]}} if keys[cut:] else {}
        return {"Responses": {resources.table: keys[:cut]}, "UnprocessedKeys": rest}

    with asked("BatchGetItem", answer) as read:
        found = read_items(resources.table, map(key, range(4)), consistent=True)
    assert numbers(found) == [0, 1, 2, 3]
    assert read == [4, 3, 2, 2, 1, 1]


def test_items_that_dynamodb_leaves_out_are_written_again(resources: Resources) -> None:
    written: list[int] = []

    def answer(request: Json) -> Json:
        items = request[resources.table]
        taken, rest = items[: len(items) // 2 + 1], items[len(items) // 2 + 1 :]
        written.extend(numbers([item["PutRequest"]["Item"] for item in taken]))
        return {"UnprocessedItems": {resources.table: rest} if rest else {}}

    with asked("BatchWriteItem", answer):
        put_items(resources.table, map(key, range(30)))
    assert sorted(written) == list(range(30))


def test_a_partition_is_read_from_where_one_wants_to_where_its_names_end(resources: Resources) -> None:
    names = ["a#1", "b#1", "b#2", "b#3", "c#1"]
    put_items(resources.table, [{"pk": {"S": "P"}, "sk": {"S": name}} for name in names])

    def read(*prefix: str, **more: Any) -> list[str]:
        return [item["sk"]["S"] for item in read_partition(resources.table, "P", *prefix, **more)]

    assert read() == names
    assert read("b#") == ["b#1", "b#2", "b#3"]
    assert read("b#", first="b#2") == ["b#2", "b#3"]


# --- results in other items ------------------------------------------------------------------------------------------


def test_results_that_stand_elsewhere_are_read_once_and_when_they_are_needed() -> None:
    reads: list[None] = []

    def fetch() -> dict[int, bytes]:
        reads.append(None)
        return {1: b"far", 2: b"away"}

    results = Results({0: b"near"}, OverflowResults({1, 2}, fetch))
    assert (0 in results, 1 in results, 3 in results) == (True, True, False)
    assert (sorted(results), len(results), results[0]) == ([0, 1, 2], 3, b"near")
    assert reads == []
    more = results | {0: b"newer", 1: b"close", 4: b"new"}
    assert (more[0], more[1], more[4], len(more), 4 in results) == (b"newer", b"close", b"new", 4, False)
    assert reads == []
    assert (results[1], results[2], more[2]) == (b"far", b"away", b"away")
    assert len(reads) == 1
    with pytest.raises(KeyError):
        results[3]


def test_where_nothing_stands_elsewhere_nothing_is_read() -> None:
    def fetch() -> dict[int, bytes]:
        raise AssertionError

    with pytest.raises(KeyError):
        Results({0: b"near"}, OverflowResults(set(), fetch))[1]


def test_of_many_functions_that_an_event_does_not_start_those_are_kept_that_an_item_has_room_for() -> None:
    few = [NotStarted(f"f{number}", "data.x == 1", None) for number in range(3)]
    assert orjson.loads(not_started_json(None, few)) == [miss.as_json() for miss in few]
    many = [NotStarted(f"f{number:04}", "x" * 1000, None) for number in range(100)]
    kept = orjson.loads(not_started_json(None, many))
    size = len(orjson.dumps(many[0].as_json())) + 1
    assert kept == [miss.as_json() for miss in many[: 64 * 1024 // size]]
    assert len(not_started_json(not_started_json(None, many), [NotStarted("g", "y", None)])) <= 64 * 1024
