"""Optional libraries: which are installed, and how threads import them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType

_IMPORTING = threading.Lock()


def is_installed(module: str) -> bool:
    """Whether a module can be imported. The module itself is not imported, only packages that contain it."""
    if module in sys.modules:  # some, such as kombu, replace themselves by an object for which `find_spec` raises
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def load(module: str) -> ModuleType:
    """Imports a library, one thread at a time.

    kombu and celery replace themselves while they are imported. Another thread could see them half done, because
    Python's own lock is then the old module's."""
    with _IMPORTING:
        return importlib.import_module(module)
