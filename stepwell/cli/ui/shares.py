"""Parses shares as people write them: `10%`."""

from __future__ import annotations

import re

from stepwell.cli.ui.output import fail


def share(text: str) -> float:
    """Parses `10%` or `0.1` to a number between 0 and 1. Ends the command for anything else."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%|(0?\.\d+)", text.strip())
    number = (float(match[1]) / 100 if match[1] else float(match[2])) if match else 0.0
    if not 0 < number < 1:
        fail(f"{text!r} is not a share; write one like 10%, more than 0% and less than 100%", 2)
    return number
