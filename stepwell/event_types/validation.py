"""Checks schemas before they are stored, and events against schemas.

Nothing is fetched, and no schema makes a check slow: patterns are matched in linear time, so they cannot have
lookaround or backreferences, and recursive schemas are limited (`recursion_limit`). The validation library is imported
when the first schema is used, because servers without types do not need it.
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
_MAX_ERRORS = 1000  # of one event, so that a response is not much larger than the request
_MAX_MESSAGE = 500  # characters of a message, which may quote the schema
_TOO_MUCH = "the event is too large for this schema, which has many alternatives; send a smaller event"
_SOMEWHERE = "the event does not match the schema, and is too large to find the place"
_VALUE = "the value"  # messages do not contain values, because values may be private and messages are logged


class BadSchema(Exception):
    """The schema cannot be used for a type. `problems` are the reasons with places."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{json_pointer(p.pointer) or 'the schema'}: {p.message}" for p in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a schema check.

    `deepest` is the number of levels that values may have (None: no limit). `is_whole`: the schema describes the whole
    event, not only the `data`.
    """

    deepest: int | None
    is_whole: bool


class Check:
    """Checks events against one schema, which `check_schema` has accepted."""

    def __init__(self, schema: Any, checked: Checked) -> None:
        self._checked, self._checker = checked, _Checker(schema)

    def errors(self, event: Event, effort: Effort | None = None) -> list[Invalid]:
        """The errors of an event with their places; only the first error if finding all is too much work."""
        value, prefix = (_whole(event), "") if self._checked.is_whole else (event.data, "/data")
        deepest = self._checked.deepest
        if deepest is not None and levels(value) > deepest:
            return [Invalid(prefix, f"more than {deepest} levels of nesting cannot be checked with this schema")]
        return self._checker.errors(value, event.body, effort or Effort(), prefix)


def errors_of(value: Any, schema: Any) -> list[Invalid]:
    """The errors of a JSON value under a schema of Stepwell."""
    return _Checker(schema).errors(value, orjson.dumps(value), Effort())


class _Checker:
    """Checks values against a schema, within the work that `effort` allows."""

    def __init__(self, schema: Any) -> None:
        self._schema, self._validator, self._cost = schema, _compile(schema), Cost(schema)

    def errors(self, value: Any, text: bytes, effort: Effort, prefix: str = "") -> list[Invalid]:
        """The errors of a value. `text` is the value as JSON, or a longer text that contains it."""
        if self._cost.is_too_much(text, value, effort):
            return [Invalid(prefix, _TOO_MUCH)]
        if self._validator.is_valid(value):
            return []
        if not self._cost.is_little(text, value, effort):
            return [self._first(value, prefix)]
        found = islice(self._validator.iter_errors(value), _MAX_ERRORS)
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
        """The validator that finds the first error quickly; None if the schema does not allow it."""
        from stepwell.event_types.first_error import Entangled, first_error_schema

        try:
            return _compile(first_error_schema(self._schema))
        except (Entangled, ValueError):  # ValueError: a reference refers to a part that was changed
            return None

    @cached_property
    def _error(self) -> type[jsonschema_rs.ValidationError]:
        import jsonschema_rs

        return jsonschema_rs.ValidationError


def _invalid(prefix: str, path: Iterable[str | int], message: str) -> Invalid:
    return Invalid(prefix + json_pointer(path), message[:_MAX_MESSAGE])


def check_schema(schema: Any) -> Checked:
    """Checks whether a schema can be used for a type. Raises BadSchema."""
    # Imported late: checks of events do not need these modules.
    from stepwell.event_types.described import describes
    from stepwell.event_types.recursion_limit import TooManyWays, deepest
    from stepwell.event_types.schema_checks import refusals

    try:
        size = len(orjson.dumps(schema))
    except TypeError as error:  # nested too deeply, a number with more than 64 bits, half a surrogate pair
        raise BadSchema([Problem((), f"cannot be stored: {error}")]) from None
    if size > MAX_SCHEMA_BYTES:
        message = f"has {size:,} bytes, more than {MAX_SCHEMA_BYTES:,}; describe less in one type"
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
    """The event as it was sent: without `v` if it has none."""
    value = event.as_json()
    if event.v is None:
        del value["v"]
    return value


def json_pointer(path: Iterable[str | int]) -> str:
    """The JSON pointer of a path (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def from_pointer(parts: Iterable[str]) -> tuple[str | int, ...]:
    """The path of a JSON pointer, which is given as the parts between the slashes."""
    return tuple(int(part) if part.isdecimal() else part.replace("~1", "/").replace("~0", "~") for part in parts)
