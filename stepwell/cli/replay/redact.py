"""`--redact`: values of an event that must not leave where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REDACTED = "[redacted]"
Path = Sequence[str]


def read_paths(options: Sequence[str]) -> list[Path]:
    """Paths like `data.card.number`, several in one text if commas part them; `*` is every entry of a list or object.
    Raises ValueError, whose message says what is expected."""
    paths: list[Path] = [tuple(path.strip().split(".")) for text in options for path in text.split(",") if path.strip()]
    for path in paths:
        if path[0] not in ("data", "user") or len(path) < 2 or not all(path):
            raise ValueError(
                f"{'.'.join(path)!r} is no path into an event; write one like data.card.number or user.email"
            )
    return paths


def redact(event: dict[str, Any], paths: Sequence[Path]) -> None:
    """Replace what these paths lead to; where one leads to nothing, nothing happens."""
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
