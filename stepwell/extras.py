"""Which optional libraries are installed."""

from __future__ import annotations

import importlib.util
import sys


def is_installed(module: str) -> bool:
    """Whether a module can be imported. The module itself is not imported, only packages that contain it."""
    if module in sys.modules:  # some, such as kombu, replace themselves by an object for which `find_spec` raises
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
