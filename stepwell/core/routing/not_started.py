"""Functions that an event names and does not start, and why: what is kept of them, and shown.

One rule: what is kept of an event grows with what it starts, not with how many functions name it: those of a long table
of triggers are kept once for all events (`content`), and an event says only which of them are none, and the reasons.
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

_FEW = 20  # misses that are written out for each event


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A function whose trigger names the event, and that was not started: its expression was not true, or its value of
    `idempotency` has a run already."""

    function_id: str
    expression: str
    problem: str | None  # None: it was false; else why it could not be evaluated, or is no reason to start
    run_id: str | None = None  # the run that counts for the value of `idempotency`

    def as_json(self) -> dict[str, str | None]:
        """As people see it."""
        fields = {"function_id": self.function_id, "expression": self.expression, "problem": self.problem}
        return fields if self.run_id is None else {**fields, "run_id": self.run_id}


class Entries:
    """Triggers by their number, in a fixed order."""

    def __init__(self, entries: Sequence[tuple[Starts, Trigger]]) -> None:
        self.entries = entries

    @cached_property
    def content(self) -> bytes:
        """JSON of `[function, expression]` by number; null for a trigger without an expression, which never misses."""
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
    """The misses among some triggers: all that have an expression, but for the numbers in `out`. `problems`: texts, and
    the numbers of the triggers that have them; the others were false."""

    of: Entries
    out: Collection[int]
    problems: Mapping[str, Sequence[int]]

    def __iter__(self) -> Iterator[NotStarted]:
        by_number = {number: text for text, numbers in self.problems.items() for number in numbers}
        for number, (starts, trigger) in enumerate(self.of.entries):
            if trigger.expression is not None and number not in self.out:
                yield NotStarted(starts.function_id, trigger.expression, by_number.get(number))

    def reference(self, to: int) -> dict[str, Any]:
        """What an event keeps, whose entries are kept under the number `to`."""
        return {"of": to, "out": sorted(self.out), "problems": list(self.problems.items())}


class Misses(Collection[NotStarted]):
    """All of an event. `others`: those that are none of a table of triggers."""

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
    """What is kept of an event's misses; None for none. `number_of`: under which number the entries of a table are
    kept, which are kept then."""
    if not isinstance(misses, Misses):
        return _dumps([miss.as_json() for miss in misses])
    kept: list[dict[str, Any]] = []
    for table in misses.tables:
        if len(table.of.entries) - len(table.out) > _FEW:
            kept.append(table.reference(number_of(table.of)))
        else:
            kept += [miss.as_json() for miss in table]
    return _dumps([*kept, *(miss.as_json() for miss in misses.others)])


def _dumps(kept: list[dict[str, Any]]) -> bytes | None:
    return orjson.dumps(kept) if kept else None


def whole_misses(kept: bytes | None, content: Callable[[int], bytes | None], most: int | None = None) -> bytes | None:
    """The JSON array that people see, of what is kept; of many the first, if `most` are wanted. `content`: of the
    entries that are kept under a number; None if they are not kept any more."""
    if kept is None or b'"of":' not in kept:
        return kept
    whole = (item for part in orjson.loads(kept) for item in _whole(part, content))
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


def with_misses(kept: bytes | None, misses: Iterable[NotStarted]) -> list[dict[str, Any]]:
    """What is kept of an event's misses (JSON), and further ones, which say more of a function than what is kept. A
    table of triggers says nothing of them, since those functions were to start."""
    further = [miss.as_json() for miss in misses]
    functions = {item["function_id"] for item in further}
    others = [item for item in (orjson.loads(kept) if kept else ()) if item.get("function_id") not in functions]
    return [*others, *further]
