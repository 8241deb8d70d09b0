"""The layout of lists: which lists contain an event or a run, and how list entries are packed into rows.

All entries of a row lie within `SPAN` positions after the row's first position. So a reader can tell when no unread row
can contain a newer entry.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.aws.table.keys import Item, shard_of
from stepwell.aws.table.positions import first_of, month_of

ALL = "a"
EVENTS, RUNS = "e", "r"
LIST_SHARDS = 8
SPAN = first_of(100)  # positions of 100 ms; a batch usually accepts all events within that time
_MOST = 100  # entries in a row

Entry = tuple[int, str]  # position and id


@dataclass(frozen=True, slots=True)
class Listed:
    """An event or a run, with the values that decide which lists contain it."""

    position: int
    id: str
    name: str | None = None
    user: str | None = None
    function: str | None = None
    replay: str | None = None


def of_name(name: str) -> str:
    return f"n#{name}"


def of_user(user: str) -> str:
    """The dimension of a user. A long user id is hashed: a partition key has at most 2 KB."""
    return f"u#{user}" if len(user) <= 200 else f"u##{hashlib.sha256(user.encode()).hexdigest()}"


def of_function(function_id: str) -> str:
    return f"f#{function_id}"


def of_replay(replay: str) -> str:
    return f"p#{replay}"


def _dimensions(listed: Listed) -> Iterator[str]:
    yield ALL
    if listed.name is not None:
        yield of_name(listed.name)
    if listed.user is not None:
        yield of_user(listed.user)
    if listed.function is not None:
        yield of_function(listed.function)
    if listed.replay is not None:
        yield of_replay(listed.replay)


def rows_of(events: Sequence[Listed], runs: Sequence[Listed]) -> Iterator[tuple[str, list[tuple[int, str, str]]]]:
    """The dimension of each row, and its entries: position, kind and id.

    An event that is delivered again keeps its position, so a batch may contain old entries beside new ones.
    """
    lists: dict[str, set[tuple[int, str, str]]] = defaultdict(set)
    for kind, listed in ((EVENTS, events), (RUNS, runs)):
        for item in listed:
            for dimension in _dimensions(item):
                lists[dimension].add((item.position, kind, item.id))
    for dimension, entries in lists.items():
        row: list[tuple[int, str, str]] = []
        for entry in sorted(entries):
            if row and (len(row) == _MOST or entry[0] - row[0][0] > SPAN):
                yield dimension, row
                row = []
            row.append(entry)
        yield dimension, row


def row_item(dimension: str, entries: Sequence[tuple[int, str, str]], ttl: int) -> Item:
    """A row as an item. The key contains a hash of the content: a batch that has only some entries in common with
    another must not replace the other's row."""
    first = entries[0][0]
    content: dict[str, list[Any]] = defaultdict(list)
    for position, kind, name in entries:
        content[kind].append([position - first, name])
    body = orjson.dumps(content)
    digest = hashlib.blake2b(body, digest_size=4).hexdigest()
    partition = list_partition(dimension, month_of(first), shard_of(str(first), LIST_SHARDS))
    return {
        "pk": {"S": partition},
        "sk": {"S": f"{first:020}#{digest}"},
        "x": {"B": body},
        "ttl": {"N": str(ttl)},
    }


def list_partition(dimension: str, month: str, shard: int) -> str:
    return f"L#{dimension}#{month}#{shard}"


def entries_of(rows: Iterator[Item], kind: str, before: int) -> Iterator[Entry]:
    """The entries of a kind below position `before`, newest first, from rows that are newest first.

    A heap holds an entry until no later row can contain a newer one.
    """
    waiting: list[tuple[int, str]] = []
    for row in rows:
        first = int(row["sk"]["S"].partition("#")[0])
        for offset, name in orjson.loads(row["x"]["B"]).get(kind, ()):
            if first + offset < before:
                heapq.heappush(waiting, (-first - offset, name))
        yield from _newest(waiting, first + SPAN)
    yield from _newest(waiting, -1)


def _newest(waiting: list[tuple[int, str]], above: int) -> Iterator[Entry]:
    """Removes the entries above a position from the heap, newest first."""
    while waiting and -waiting[0][0] > above:
        position, name = heapq.heappop(waiting)
        yield -position, name


def months_between(floor: int, before: int) -> Iterator[str]:
    """The months between two positions, newest first."""
    if before <= floor:
        return
    month, oldest = month_of(before), month_of(floor)
    while month >= oldest:
        yield month
        year, number = int(month[:4]), int(month[5:])
        month = f"{year}-{number - 1:02}" if number > 1 else f"{year - 1}-12"
