"""What the sections of `interop.py` return and raise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A number that was measured. `reference`: what it is compared with, for example the same without Stepwell."""

    what: str
    value: float
    unit: str
    reference: str = ""


class Missing(Exception):
    """A program or a package that a section needs is not installed. The message says how to install it."""
