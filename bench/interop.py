"""Measures how Stepwell works with other systems: their brokers, their workers, and WebAssembly.

Each section is a module `interop_<name>.py` with a function `measure(quick: bool) -> list[Row]`. A section whose
program or package is missing is skipped with the reason. A lost or doubled record is an error.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from measured import Missing, Row
from report import machine
from rich import box
from rich.console import Console
from rich.table import Table
from server import BenchError

HERE = Path(__file__).resolve().parent
SECTIONS = sorted(file.stem.removeprefix("interop_") for file in HERE.glob("interop_*.py"))


def main(
    only: Annotated[str, typer.Option(help=f"Sections, separated by commas: {','.join(SECTIONS)}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Measure little, to see whether it works.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
) -> None:
    names = only.split(",") if only else SECTIONS
    if unknown := set(names) - set(SECTIONS):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    console, rows = Console(), list[tuple[str, Row]]()
    for name in names:
        try:
            rows += [(name, row) for row in importlib.import_module(f"interop_{name}").measure(quick)]
        except Missing as missing:
            console.print(f"{name}: skipped: {missing}", style="yellow", markup=False, soft_wrap=True)
        except BenchError as error:
            Console(stderr=True).print(f"error: {name}: {error}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
    console.print(_table(rows))
    if json_file is not None:
        results = [{"section": name, **asdict(row)} for name, row in rows]
        json_file.write_text(json.dumps({"machine": machine(), "quick": quick, "results": results}, indent=2) + "\n")


def _table(rows: list[tuple[str, Row]]) -> Table:
    table = Table("", "", "", "compared with", box=box.SIMPLE)
    table.columns[2].justify = "right"
    for name, row in rows:
        table.add_row(name, row.what, f"{row.value:,.0f} {row.unit}", row.reference)
    return table


if __name__ == "__main__":
    typer.run(main)
