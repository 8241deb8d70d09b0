"""Schemas that are checked before they are kept, and events that are held against them.

One rule: nothing is fetched, and no schema makes a check slow: patterns are matched in linear time (so they have no
lookaround and no backreferences), and what refers to itself has bounded ways (`recursion_limit`).

The library is loaded when the first schema is looked at: whoever has no types waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from stepwell.core.definition.problems import Problem
from stepwell.core.events.events import Event, Invalid
from stepwell.event_types.effort import Cost, Effort, levels

if TYPE_CHECKING:
    import jsonschema_rs

MAX_SCHEMA_BYTES = 64 * 1024
_MOST_ERRORS = 1000  # of one event: an answer must not be many times larger than what it answers
_LONGEST = 500  # characters of a message, which may quote the schema
_TOO_MUCH = "it is too large to be checked with this schema, which has many alternatives; send less in one event"
_SOMEWHERE = "it does not match its schema; it is too large to find out where"
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

    def __init__(self, schema: Any, checked: Checked) -> None:
        self._its, self._checker = checked, _Checker(schema)

    def errors(self, event: Event, effort: Effort | None = None) -> list[Invalid]:
        """What is wrong with an event, each at its place in it: all of it, or the first if that would be much work."""
        value, prefix = (_whole(event), "") if self._its.is_whole else (event.data, "/data")
        deepest = self._its.deepest
        if deepest is not None and levels(value) > deepest:
            return [Invalid(prefix, f"more than {deepest} levels cannot be checked with this schema")]
        return self._checker.errors(value, event.body, effort or Effort(), prefix)


def errors_of(value: Any, schema: Any) -> list[Invalid]:
    """What is wrong with a JSON value by a schema of our own."""
    return _Checker(schema).errors(value, orjson.dumps(value), Effort())


class _Checker:
    """Holds values against a schema, with as much effort as `effort` allows."""

    def __init__(self, schema: Any) -> None:
        self._schema, self._validator, self._cost = schema, _compile(schema), Cost(schema)

    def errors(self, value: Any, text: bytes, effort: Effort, prefix: str = "") -> list[Invalid]:
        """`text`: the value as JSON, or more."""
        if self._cost.is_too_much(text, value, effort):
            return [Invalid(prefix, _TOO_MUCH)]
        if self._validator.is_valid(value):
            return []
        if not self._cost.is_little(text, value, effort):
            return [self._first(value, prefix)]
        found = islice(self._validator.iter_errors(value), _MOST_ERRORS)
        return [_invalid(prefix, error.instance_path, error.message) for error in found]

    def _first(self, value: Any, prefix: str) -> Invalid:
        from stepwell.event_types.first_error import message_of

        if self._by_first_error is not None:
            try:
                self._by_first_error.validate(value)
            except self._error as error:
                return _invalid(prefix, error.instance_path, message_of(error))
        return Invalid(prefix, _SOMEWHERE)

    @cached_property
    def _by_first_error(self) -> jsonschema_rs.Draft202012Validator | None:
        """None if there is no way to the first error that is short."""
        from stepwell.event_types.first_error import Entangled, first_error_schema

        try:
            return _compile(first_error_schema(self._schema))
        except (Entangled, ValueError):  # a reference leads into alternatives
            return None

    @cached_property
    def _error(self) -> type[jsonschema_rs.ValidationError]:
        import jsonschema_rs

        return jsonschema_rs.ValidationError


def _invalid(prefix: str, path: Iterable[str | int], message: str) -> Invalid:
    return Invalid(prefix + json_pointer(path), message[:_LONGEST])


def check_schema(schema: Any) -> Checked:
    """Raises BadSchema."""
    from stepwell.event_types.described import describes
    from stepwell.event_types.recursion_limit import (  # who only checks events waits for neither of them
        TooManyWays,
        deepest,
    )
    from stepwell.event_types.schema_checks import refusals

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


def json_pointer(path: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def from_pointer(parts: Iterable[str]) -> tuple[str | int, ...]:
    """A path again, of the parts of a pointer that were between its slashes."""
    return tuple(int(part) if part.isdecimal() else part.replace("~1", "/").replace("~0", "~") for part in parts)
