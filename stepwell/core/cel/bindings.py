"""The values that expressions are evaluated with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from stepwell.core.cel import parse_json
from stepwell.core.cel.ast import Path
from stepwell.core.cel.errors import value_problem
from stepwell.core.cel.library import activation
from stepwell.core.cel.scope import Scope
from stepwell.core.cel.sizes import json_of
from stepwell.core.cel.values import keep_paths, without_nul

_LARGE = 16 * 1024  # bytes as JSON
_NO_PLACE = dict.fromkeys(Scope.RECORD.value)
_UNKNOWN = 1 << 60  # bytes; the length of values that cannot be written as JSON


@dataclass(frozen=True, slots=True)
class Value:
    """The value of an expression, as plain JSON data. `problem` is set if there is no value."""

    value: Any
    problem: str | None = None


class Text(Protocol):
    """An expression whose value is a JSON text."""

    def value(self, bindings: Bindings, /) -> Value: ...


class Bound(NamedTuple):
    """The values of some variables, ready for the CEL library. `length`: bytes as JSON."""

    activation: Any
    values: dict[str, Any]
    length: int


class Bindings:
    """The values of all variables, as plain JSON data. All expressions about one event share one object.

    The CEL library copies every value that it receives, so it receives only the variables that an expression names.
    """

    def __init__(
        self,
        event: dict[str, Any],
        steps: dict[str, Any] | None = None,
        errors: dict[str, Any] | None = None,
        response: Any = None,
        async_event: dict[str, Any] | None = None,
    ) -> None:
        self._values = {
            "event": event,
            "user": event.get("user") or {},
            "data": event.get("data") or {},
            "steps": steps or {},
            "errors": errors or {},
            "response": response,
            "async": async_event,
            "signature": None,
        }
        self._unread: dict[str, str] = {}  # why a variable of `parse_json` has no value, by variable
        self._parsed: dict[str, Any] = {}  # values of JSON texts, by text
        self._bound: dict[tuple[Any, ...], Bound] = {}

    @classmethod
    def of_request(cls, body: Any, headers: dict[str, Any], query: dict[str, Any]) -> Bindings:
        """The variables for an expression about a webhook request (`Scope.WEBHOOK`)."""
        bindings = cls({})
        bindings._values |= {"body": body, "headers": headers, "query": query}
        return bindings

    @classmethod
    def of_record(cls, body: Any, headers: dict[str, Any], place: Mapping[str, Any]) -> Bindings:
        """The variables for an expression about a record of a source (`Scope.RECORD`)."""
        bindings = cls({})
        bindings._values |= {**_NO_PLACE, **place, "body": body, "headers": headers}
        return bindings

    @classmethod
    def of_wait(cls, known: dict[str, Any], async_event: dict[str, Any]) -> Bindings:
        """The variables for the `match` of a wait: the run's values that the wait stored (`known`), and the event."""
        bindings = cls({})
        bindings._values |= {**known, "async": async_event}
        return bindings

    def with_signature(self, text: str) -> Bindings:
        """A copy that adds the signature requested by a challenge, for an expression of `Scope.CHALLENGE`."""
        bindings = Bindings({})
        bindings._values = self._values | {"signature": text}
        return bindings

    def with_parsed(self, texts: Sequence[Text]) -> Bindings:
        """A copy that adds the parsed values of `texts`, the arguments of `parse_json`."""
        bindings = Bindings({})
        bindings._values, bindings._parsed = dict(self._values), self._parsed
        for variable, text in zip(parse_json.VARIABLES, texts, strict=False):
            found = text.value(bindings)
            try:
                bindings._values[variable] = parse_json.json_value(found.value, self._parsed)
            except ValueError as error:
                bindings._unread[variable] = found.problem or str(error)
        return bindings

    def plain_text(self, path: Path) -> str | None:
        """The text at a path, as the library would return it. None if there is no such text."""
        value: Any = self._values
        for name in path:
            if type(value) is not dict:
                return None
            value = value.get(name)
        return value if type(value) is str and "\0" not in value else None

    def problem(self, text: str) -> str:
        """The reason why there is no value. `text`: the library's error."""
        unread = parse_json.NAMED.search(text)
        return (unread and self._unread.get(unread[0])) or value_problem(text)

    def activation(self, variables: tuple[str, ...], paths: tuple[Path, ...] = ()) -> Bound:
        """The given variables, converted for the library.

        Conversion takes time for every value. Of large variables, only the parts at `paths` are converted.
        """
        found = self._bound.get(variables) or (self._bound.get(paths) if paths else None)
        if found is None:
            key: tuple[Any, ...] = variables
            values = {name: self._values[name] for name in variables if name not in self._unread}
            text = json_of(values)
            if paths and (text is None or len(text) > _LARGE):
                key, values = paths, keep_paths(values, paths)
                text = json_of(values)
            # The library ends a text at the first NUL: "ada\0eve" would be equal to "ada".
            has_nul = text is None or b"\\u0000" in text
            taken = activation(without_nul(values) if has_nul else values)
            found = self._bound[key] = Bound(taken, values, _UNKNOWN if text is None else len(text))
        return found
