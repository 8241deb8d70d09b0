"""Makes `None` immortal on interpreters where it is not (before Python 3.12).

The CEL library (0.1.3, its newest release) gives away a reference to `None` that it does not own for each null that it
returns. Until Python 3.11, `None` has an ordinary reference count, of some thousands: ordinary events use it up, and at
zero the interpreter aborts the process. From 3.12 on, `None` is immortal (PEP 683).
"""

from __future__ import annotations

import sys

IMMORTAL = sys.maxsize // 2
"""As far from zero as from overflow. A process that drops, or takes, a billion references a second reaches neither of
them within a century."""


def make_none_immortal() -> None:
    """Set the reference count of `None` to IMMORTAL, where references to it are counted."""
    if sys.version_info >= (3, 12):
        return
    import ctypes

    # An object begins with its count and its type; builds that trace references have two more pointers before them.
    offset = object.__basicsize__ - 2 * ctypes.sizeof(ctypes.c_ssize_t)
    ctypes.c_ssize_t.from_address(id(None) + offset).value = IMMORTAL
