"""The functions that have a trigger for an event but are not started ("misses"): the reasons, as stored and shown.

What is stored for an event must not grow with the number of functions that have a trigger for it. So a long table of
triggers is stored once for all events (`content`). An event stores a reference to it, the exceptions and the reasons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any

import orjson

from stepwell.core.plan import Starts, Trigger

_FEW = 20  # up to so many misses of a table are stored with the event


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A function that has a trigger for the event, but was not started.

    The trigger's expression was not true, the function is paused, or one of its checks refused the event.
    """

    function_id: str
    expression: str
    problem: str | None  # None: the expression was false
    run_id: str | None = None  # the existing run with the same value of `idempotency`

    def as_json(self) -> dict[str, str | None]:
        """The form that the API shows."""
        fields = {"function_id": self.function_id, "expression": self.expression, "problem": self.problem}
        return fields if self.run_id is None else {**fields, "run_id": self.run_id}


class CannotStart(Exception):
    """A rerun is not possible now. The message contains the reason."""


def dropped_miss(function_id: str) -> NotStarted:
    """The miss of a paused function that drops the event."""
    return NotStarted(function_id, "", "the function is paused and drops events until it is resumed")


def kept_miss(function_id: str) -> NotStarted:
    """The miss of a paused function that keeps the event. It is never stored: it ends when the function is resumed."""
    return NotStarted(function_id, "", "the function is paused and keeps the event until it is resumed")


class Entries:
    """A table of triggers. A trigger is identified by its position, the number."""

    def __init__(self, entries: Sequence[tuple[Starts, Trigger]]) -> None:
        self.entries = entries

    @cached_property
    def content(self) -> bytes:
        """The table as JSON: `[function, expression]` by number. A trigger without an expression never misses: null."""
        rows = (
            None if trigger.expression is None else (starts.function_id, trigger.expression)
            for starts, trigger in self.entries
        )
        return orjson.dumps(list(rows))

    @cached_property
    def digest(self) -> bytes:
        return hashlib.blake2b(self.content, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class MissesOf:
    """The misses in a table: all triggers with an expression, except the numbers in `out`.

    `problems`: the reasons, each with the numbers of the triggers that it applies to. All others were false.
    """

    of: Entries
    out: Collection[int]
    problems: Mapping[str, Sequence[int]]

    def __iter__(self) -> Iterator[NotStarted]:
        by_number = {number: text for text, numbers in self.problems.items() for number in numbers}
        for number, (starts, trigger) in enumerate(self.of.entries):
            if trigger.expression is not None and number not in self.out:
                yield NotStarted(starts.function_id, trigger.expression, by_number.get(number))

    def reference(self, to: int) -> dict[str, Any]:
        """The stored form, with a reference to the table that is stored under the number `to`."""
        return {"of": to, "out": sorted(self.out), "problems": list(self.problems.items())}


class Misses(Collection[NotStarted]):
    """All misses of an event. `others`: those that are not in a table."""

    def __init__(self, tables: Sequence[MissesOf], others: Sequence[NotStarted] = ()) -> None:
        self.tables, self.others = tables, others

    def __iter__(self) -> Iterator[NotStarted]:
        return chain(*self.tables, self.others)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __contains__(self, miss: object) -> bool:
        return any(miss == item for item in self)


NO_MISSES = Misses(())


def misses_json(misses: Iterable[NotStarted], number_of: Callable[[Entries], int]) -> bytes | None:
    """The stored form of an event's misses; None if there are none.

    `number_of`: returns the number under which a table is stored. It stores the table if necessary.
    """
    if not isinstance(misses, Misses):
        return _dumps([miss.as_json() for miss in misses])
    rows: list[dict[str, Any]] = []
    for table in misses.tables:
        if len(table.of.entries) - len(table.out) > _FEW:
            rows.append(table.reference(number_of(table.of)))
        else:
            rows += [miss.as_json() for miss in table]
    return _dumps([*rows, *(miss.as_json() for miss in misses.others)])


def _dumps(rows: list[dict[str, Any]]) -> bytes | None:
    return orjson.dumps(rows) if rows else None


def whole_misses(stored: bytes | None, content: Callable[[int], bytes | None], most: int | None = None) -> bytes | None:
    """The JSON array that the API shows, from the stored form; at most the first `most` entries.

    `content`: returns the table that is stored under a number, or None if it is deleted.
    """
    if stored is None or b'"of":' not in stored:
        return stored
    whole = (item for part in orjson.loads(stored) for item in _whole(part, content))
    return orjson.dumps(list(islice(whole, most)))


def _whole(part: dict[str, Any], content: Callable[[int], bytes | None]) -> Iterator[dict[str, Any]]:
    if "of" not in part:
        yield part
        return
    out, by_number = set(part["out"]), {number: text for text, numbers in part["problems"] for number in numbers}
    for number, row in enumerate(orjson.loads(content(part["of"]) or b"[]")):
        if row is not None and number not in out:
            function_id, expression = row
            yield NotStarted(function_id, expression, by_number.get(number)).as_json()


def with_keepers(stored: bytes | None, keepers: Iterable[str]) -> bytes | None:
    """The misses that the API shows, as JSON, with those of the paused functions that keep the event."""
    kept = [kept_miss(function_id) for function_id in keepers]
    return orjson.dumps(with_misses(stored, kept)) if kept else stored


def with_misses(stored: bytes | None, misses: Iterable[NotStarted]) -> list[dict[str, Any]]:
    """The stored misses of an event and further ones. A further miss replaces a stored one of the same function.

    The functions of further misses were to be started, so they are not among the misses of a table.
    """
    further = [miss.as_json() for miss in misses]
    functions = {item["function_id"] for item in further}
    others = [item for item in (orjson.loads(stored) if stored else ()) if item.get("function_id") not in functions]
    return [*others, *further]
