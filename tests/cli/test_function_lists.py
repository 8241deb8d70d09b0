"""The lists of functions."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from stepwell.cli.ui.tables import function_lines, function_table
from tests.servers import cli, dev, write_function


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


def test_all_functions_are_listed_also_if_the_api_answers_several_pages(tmp_path: Path) -> None:
    for n in range(60):
        write_function(tmp_path / "functions" / f"f{n}", f"f{n}")
    with dev(tmp_path / "functions", tmp_path / "db") as server:
        listed = json.loads(cli("functions", "--json", STEPWELL_URL=server.url).stdout)
    assert {function["id"] for function in listed} == {f"f{n}" for n in range(60)}
