"""A step that does nothing."""

from __future__ import annotations


def only(event: object, context: object) -> dict[str, bool]:
    return {"done": True}
