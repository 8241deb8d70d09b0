"""The values that expressions are evaluated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from stepwell.core.cel import parse_json
from stepwell.core.cel.ast import Path
from stepwell.core.cel.errors import value_problem
from stepwell.core.cel.library import activation
from stepwell.core.cel.sizes import json_of
from stepwell.core.cel.values import only, without_nul

_LARGE = 16 * 1024  # bytes as JSON
_UNKNOWN = 1 << 60  # bytes, of what is no JSON


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression gives, as plain JSON data. `problem` says why there is no value."""

    value: Any
    problem: str | None = None


class Text(Protocol):
    """An expression that gives a JSON text."""

    def value(self, bindings: Bindings, /) -> Value: ...


class Bound(NamedTuple):
    """Values of variables. `length`: as JSON, in bytes."""

    activation: Any
    values: dict[str, Any]
    length: int


class Bindings:
    """The values of the variables, plain JSON data; expressions about one event share one.

    The library copies what it is given, so that a value is handed over only if an expression names its variable.
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
        self._unread: dict[str, str] = {}  # variables of `parse_json` without a value, and why
        self._parsed: dict[str, Any] = {}  # by text
        self._bound: dict[tuple[Any, ...], Bound] = {}

    @classmethod
    def of_request(cls, body: Any, headers: dict[str, Any], query: dict[str, Any]) -> Bindings:
        """The variables of a webhook's request, for expressions of `Scope.WEBHOOK`."""
        bindings = cls({})
        bindings._values |= {"body": body, "headers": headers, "query": query}
        return bindings

    @classmethod
    def of_wait(cls, known: dict[str, Any], async_event: dict[str, Any]) -> Bindings:
        """The variables of a wait's `match`: those that it stored of its run (`known`), and the incoming event."""
        bindings = cls({})
        bindings._values |= {**known, "async": async_event}
        return bindings

    def with_signature(self, text: str) -> Bindings:
        """The same with the signature that a challenge asks for, for an expression of `Scope.CHALLENGE`."""
        bindings = Bindings({})
        bindings._values = self._values | {"signature": text}
        return bindings

    def with_parsed(self, texts: Sequence[Text]) -> Bindings:
        """The same with the values of the JSON texts that `parse_json` is called with."""
        bindings = Bindings({})
        bindings._values, bindings._parsed = dict(self._values), self._parsed
        for variable, text in zip(parse_json.VARIABLES, texts, strict=False):
            found = text.value(bindings)
            try:
                bindings._values[variable] = parse_json.json_value(found.value, self._parsed)
            except ValueError as error:
                bindings._unread[variable] = found.problem or str(error)
        return bindings

    def problem(self, text: str) -> str:
        """Why there is no value, from the library's error."""
        unread = parse_json.NAMED.search(text)
        return (unread and self._unread.get(unread[0])) or value_problem(text)

    def activation(self, variables: tuple[str, ...], paths: tuple[Path, ...] = ()) -> Bound:
        """The variables as the library takes them. It converts all that it gets, so of large variables it gets only
        what `paths` lead to, if there are any."""
        found = self._bound.get(variables) or (self._bound.get(paths) if paths else None)
        if found is None:
            key: tuple[Any, ...] = variables
            values = {name: self._values[name] for name in variables if name not in self._unread}
            text = json_of(values)
            if paths and (text is None or len(text) > _LARGE):
                key, values = paths, only(values, paths)
                text = json_of(values)
            # The library would end a text at a NUL, so that "ada\0eve" were "ada".
            has_nul = text is None or b"\\u0000" in text
            taken = activation(without_nul(values) if has_nul else values)
            found = self._bound[key] = Bound(taken, values, _UNKNOWN if text is None else len(text))
        return found
