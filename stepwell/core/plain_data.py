"""A decorator for immutable values on the hot path: a run creates about a hundred of them.

A frozen dataclass sets each field with `object.__setattr__`, which takes twice as long as an assignment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[T]) -> type[T]:
    """Makes a class a dataclass that is compared and hashed by value. Only the type checker prevents changes."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
