"""Settings of connections: `${NAME}` in a text stands for a secret, whose value is never stored or shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RULE = frozenset({"name", "type", "event", "id", "data", "user", "ts", "if", "body", "batch"})


class MissingSecret(Exception):
    """A secret that a source names is not set."""


def connection_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a source that are about the connection, as they are stored."""
    return {field: value for field, value in raw.items() if field not in _RULE}


def secret_names(raw: Mapping[str, Any]) -> set[str]:
    """The names of the secrets in the settings of a source."""
    return {name for text in _texts(connection_of(raw)) for name in REFERENCE.findall(text)}


def resolved(raw: Mapping[str, Any], secret: Callable[[str], str | None]) -> dict[str, Any]:
    """The settings of a source's connection, with the values of secrets. Raises MissingSecret."""

    def value_of(found: re.Match[str]) -> str:
        value = secret(found[1])
        if value is None:
            raise MissingSecret(f"the secret {found[1]} is not set; set the environment variable {found[1]}")
        return value

    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            return REFERENCE.sub(value_of, value)
        if isinstance(value, dict):
            return {key: replaced(item) for key, item in value.items()}
        return [replaced(item) for item in value] if isinstance(value, list) else value

    settings: dict[str, Any] = replaced(connection_of(raw))
    return settings


def without_secrets(text: str, raw: Mapping[str, Any], secret: Callable[[str], str | None]) -> str:
    """A text, such as an error message of a client library, in which the values of the source's secrets are masked."""
    for name in secret_names(raw):
        if value := secret(name):
            text = text.replace(value, f"${{{name}}}")
    return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
