"""The script that shows the life of a function runs without an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parent.parent / "examples" / "lifecycle" / "demo.py"


def test_a_canary_that_fails_is_rolled_back_and_its_failed_runs_are_replayed() -> None:
    """The script checks each result: the refused event, the split by user, the rollback, the replay, the timeline."""
    shown = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, timeout=200, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "400 /data/amount" in shown.stdout
    assert "no user saw both" in shown.stdout
    assert "Fisher's exact test" in shown.stdout
    assert shown.stdout.endswith("That is the life of a function.\n")
