"""Schemas that are checked before they are kept, and events that are held against them.

One rule: nothing is fetched, and no schema makes a check slow: patterns are matched in linear time (so they have no
lookaround and no backreferences), and what refers to itself has bounded ways (`depth`).

The library is loaded when the first schema is looked at: whoever has no types waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from stepwell.core.events import Event, Invalid
from stepwell.core.problems import Problem

if TYPE_CHECKING:
    import jsonschema_rs

MAX_SCHEMA_BYTES = 64 * 1024
_MOST_ERRORS = 1000  # of one event: an answer must not be many times larger than what it answers
_LONGEST = 500  # characters of a message, which may quote the schema
_VALUE = "the value"  # how messages name it: values may be private, and messages go to logs


class BadSchema(Exception):
    """The schema cannot be a type; `problems` says where in it, and why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{json_pointer(p.pointer) or 'the schema'}: {p.message}" for p in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a schema that can be a type: how many levels its values may have (None: any number), and whether
    it describes the whole event, not its `data` alone."""

    deepest: int | None
    is_whole: bool


class Check:
    """Holds events against one schema, which `check_schema` has let pass."""

    def __init__(self, schema: Any, its: Checked) -> None:
        self._its = its
        self._validator = _compile(schema)

    def errors(self, event: Event) -> list[Invalid]:
        """All that is wrong with an event, each at its place in it."""
        value, prefix = (_whole(event), "") if self._its.is_whole else (event.data, "/data")
        deepest = self._its.deepest
        if deepest is not None and _levels(value) > deepest:
            return [Invalid(prefix, f"more than {deepest} levels cannot be checked with this schema")]
        return _errors(self._validator, value, prefix)


def errors_of(value: Any, schema: Any) -> list[Invalid]:
    """What is wrong with a JSON value by a schema of our own."""
    return _errors(_compile(schema), value)


def _errors(validator: jsonschema_rs.Draft202012Validator, value: Any, prefix: str = "") -> list[Invalid]:
    if validator.is_valid(value):
        return []
    found = islice(validator.iter_errors(value), _MOST_ERRORS)
    return [Invalid(prefix + json_pointer(error.instance_path), error.message[:_LONGEST]) for error in found]


def check_schema(schema: Any) -> Checked:
    """Raises BadSchema."""
    from stepwell.event_types.depth import TooManyWays, deepest  # who only checks events waits for neither of them
    from stepwell.event_types.schema import describes, refusals

    try:
        size = len(orjson.dumps(schema))
    except TypeError as error:  # nested too deeply, a number beyond 64 bits, half a surrogate pair
        raise BadSchema([Problem((), f"it cannot be kept: {error}")]) from None
    if size > MAX_SCHEMA_BYTES:
        message = f"it has {size:,} bytes, more than {MAX_SCHEMA_BYTES:,}; describe less in one type"
        raise BadSchema([Problem((), message)])
    if problems := refusals(schema):
        raise BadSchema(problems)
    try:
        return Checked(deepest(schema), describes(schema) == "event")
    except TooManyWays as error:
        raise BadSchema([Problem((), str(error))]) from None


def _compile(schema: Any) -> jsonschema_rs.Draft202012Validator:
    import jsonschema_rs

    linear = jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=2_000_000)
    return jsonschema_rs.Draft202012Validator(
        schema, offline=True, validate_formats=False, mask=_VALUE, pattern_options=linear
    )


def _whole(event: Event) -> dict[str, Any]:
    """As it was sent: without the `v` that it does not have."""
    value = event.as_json()
    if event.v is None:
        del value["v"]
    return value


def _levels(value: Any) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        its, level = todo.pop()
        deepest = max(deepest, level)
        children = its.values() if isinstance(its, dict) else its if isinstance(its, list) else ()
        todo += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest


def json_pointer(path: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def from_pointer(parts: Iterable[str]) -> tuple[str | int, ...]:
    """A path again, of the parts of a pointer that were between its slashes."""
    return tuple(int(part) if part.isdecimal() else part.replace("~1", "/").replace("~0", "~") for part in parts)
