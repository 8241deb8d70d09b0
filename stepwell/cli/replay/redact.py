"""`--redact`: replaces values of events that must not be copied to another server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REDACTED = "[redacted]"
Path = Sequence[str]


def read_paths(options: Sequence[str]) -> list[Path]:
    """Parses paths like `data.card.number`, separated by commas; `*` means every entry of a list or object.

    Raises ValueError with a message for the user.
    """
    paths: list[Path] = [tuple(path.strip().split(".")) for text in options for path in text.split(",") if path.strip()]
    for path in paths:
        if path[0] not in ("data", "user") or len(path) < 2 or not all(path):
            raise ValueError(
                f"{'.'.join(path)!r} is not a path into an event; write one like data.card.number or user.email"
            )
    return paths


def redact(event: dict[str, Any], paths: Sequence[Path]) -> None:
    """Replaces the values at these paths, in place. Paths that do not exist in the event are ignored."""
    for path in paths:
        _redact(event, path)


def _redact(value: Any, path: Path) -> None:
    first, rest = path[0], path[1:]
    for key in _keys(value, first):
        if rest:
            _redact(value[key], rest)
        else:
            value[key] = REDACTED


def _keys(value: Any, name: str) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value) if name == "*" else [name] if name in value else []
    if isinstance(value, list) and name == "*":
        return range(len(value))
    return []
