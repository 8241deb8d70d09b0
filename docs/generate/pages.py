"""The generated pages, each under its place in docs/."""

from __future__ import annotations

from pathlib import Path

import state_machine

ROOT = Path(__file__).parents[1]


def pages() -> dict[str, str]:
    """The text of each generated page, by its path below docs/."""
    return {"internals/state-machine.md": state_machine.page()}
