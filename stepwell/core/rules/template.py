"""Texts with CEL expressions in {{ }}, as the `event` of a rule."""

from __future__ import annotations

MAX_EVENT = 2048  # characters of a rule's `event`


def template(text: str) -> tuple[str, ...]:
    """The texts of a template, and between them the expressions in {{ }}. Raises ValueError if one is not closed."""
    parts: list[str] = []
    while True:
        before, opened, rest = text.partition("{{")
        parts.append(before)
        if not opened:
            return tuple(parts)
        end = _end(rest)
        if end is None:
            raise ValueError("a {{ has no }}; write an expression as in github/{{ headers['x-github-event'] }}")
        parts.append(rest[:end].strip())
        text = rest[end + 2 :]


def _end(text: str) -> int | None:
    """The offset of the }} that ends an expression. A }} inside a text or at the end of nested maps does not count."""
    quote, depth = "", 0
    for i, character in enumerate(text):
        if quote:
            if character == quote and text[i - 1] != "\\":
                quote = ""
        elif character in "'\"":
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                return i if text[i + 1 : i + 2] == "}" else None
            depth -= 1
    return None
