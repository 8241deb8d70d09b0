"""The folder of what is made once and used by many commands: $STEPWELL_CACHE or ~/.cache/stepwell."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """The folder, which may not exist. Raises RuntimeError if this user has no home folder."""
    own = os.environ.get("STEPWELL_CACHE")
    general = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(general, "stepwell")


def modules_cache() -> Path | None:
    """The folder of compiled WebAssembly modules, for servers whose database is temporary. None: there is none."""
    try:
        return cache() / "wasm"
    except RuntimeError:
        return None
