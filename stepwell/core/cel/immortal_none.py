"""Makes `None` immortal on interpreters where it is not (before Python 3.12).

The CEL library (0.1.3, the newest release) releases a reference to `None` that it does not own for each null that it
returns. Up to Python 3.11, `None` has an ordinary reference count of a few thousand. Ordinary events use it up, and at
zero the interpreter aborts the process. From Python 3.12, `None` is immortal (PEP 683).
"""

from __future__ import annotations

import sys

IMMORTAL = sys.maxsize // 2
"""Halfway between zero and overflow: a billion references more or fewer per second reach neither within a century."""


def make_none_immortal() -> None:
    """Sets the reference count of `None` to IMMORTAL. Does nothing from Python 3.12."""
    if sys.version_info >= (3, 12):
        return
    import ctypes

    # An object begins with the count and the type. Builds with reference tracing have two more pointers before them.
    offset = object.__basicsize__ - 2 * ctypes.sizeof(ctypes.c_ssize_t)
    ctypes.c_ssize_t.from_address(id(None) + offset).value = IMMORTAL
