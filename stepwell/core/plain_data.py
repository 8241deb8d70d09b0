"""How plain data is declared, of which a run makes a hundred objects.

A frozen dataclass sets each field by `object.__setattr__`, which takes twice as long as an assignment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[T]) -> type[T]:
    """A dataclass that compares and hashes by its values. The type checker sees to it that nobody changes it."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
