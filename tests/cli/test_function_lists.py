"""The lists of functions for people."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from stepwell.cli.ui.tables import function_lines, function_table


def test_functions_are_listed_with_the_number_of_waits_found_by_name() -> None:
    shown: dict[str, Any] = {"id": "f", "name": "F", "version": 1, "triggers": [], "steps": {}, "versions": []}

    def printed(content: Any) -> str:
        console = Console(file=io.StringIO(), width=200)
        console.print(content)
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    some, none = {**shown, "waits_by_name": 12_000}, {**shown, "waits_by_name": None}
    assert "waits by name" in printed(function_table([some, none]))
    assert "12,000" in printed(function_table([some, none]))
    assert "12,000 open waits are found by event name alone" in printed(function_lines(some))
    assert "waits by name" not in printed(function_table([none]))
    assert "open waits" not in printed(function_lines(none))
