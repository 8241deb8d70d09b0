"""Generated documents say what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_about_the_state_machine_is_current() -> None:
    written = (DOCS / "state-machine.md").read_text("utf-8")
    assert written == runpy.run_path(str(DOCS / "generate.py"))["text"](), "run python docs/generate.py"
