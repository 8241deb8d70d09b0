"""Measures what becomes more expensive as there is more of it, with a real `stepwell dev`, at three sizes of each
thing.

python bench/growth.py                        # every row, up to half an hour; exit code 1 if an aim is missed
python bench/growth.py --quick                # small sizes, to see whether it works
python bench/growth.py --only waits,chain --json growth.json
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import growth_data
import growth_events
import growth_runs
import growth_steps
import typer
from growth_row import Result, Row, measure, ratio
from report import machine, put_between
from rich import box
from rich.console import Console
from rich.table import Table
from server import BenchError

README = Path(__file__).resolve().with_name("README.md")
_GROUPS = (growth_steps, growth_events, growth_runs, growth_data)
ROWS = {row.name: row for group in _GROUPS for row in group.ROWS}


def chosen(only: str) -> list[Row]:
    """The rows with these names. Raises BenchError."""
    names = [name.strip() for name in only.split(",")]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise BenchError(f"{', '.join(unknown)}: unknown; rows are {', '.join(ROWS)}")
    return [ROWS[name] for name in names]


def show(row: Row, sizes: tuple[int, ...], results: list[Result], *, with_aims: bool, console: Console) -> None:
    table = Table(row.grows, "", *(f"{size:,}" for size in sizes), "x", "aim", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[2:-1]:
        column.justify = "right"
    for result in results:
        figure = result.figure
        style = "red" if with_aims and not result.is_met else ""
        values = (_rounded(value) for value in result.values)
        aim = str(figure.aim) if with_aims else ""
        table.add_row(figure.title, figure.unit, *values, f"{ratio(result.values):.2f}", aim, style=style)
    console.print(table)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def as_json(row: Row, sizes: tuple[int, ...], results: list[Result]) -> dict[str, Any]:
    figures = [
        {
            "key": result.figure.key,
            "title": result.figure.title,
            "unit": result.figure.unit,
            "values": list(result.values),
            "ratio": ratio(result.values),
            "aim": str(result.figure.aim),
            "is_met": result.is_met,
        }
        for result in results
    ]
    return {"name": row.name, "grows": row.grows, "sizes": list(sizes), "figures": figures}


def as_markdown(documents: list[dict[str, Any]], about: dict[str, str | int]) -> str:
    """The table for README.md."""
    lines = [
        f"Stepwell on {about['cores']} cores of {about['cpu']}, Python {about['python']}, {about['date']}.",
        "",
        "| row | figure | sizes | | | | x | aim |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    for row in documents:
        name, sizes = f"`{row['name']}`", " / ".join(f"{size:,}" for size in row["sizes"])
        for figure in row["figures"]:
            values = " | ".join(map(_rounded, figure["values"]))
            times = "–" if figure["values"][0] == 0 else f"{figure['ratio']:.2f}"
            aim = figure["aim"] + ("" if figure["is_met"] else " (missed)")
            lines.append(f"| {name} | {figure['title']}, {figure['unit']} | {sizes} | {values} | {times} | {aim} |")
            name = sizes = ""  # only in the first line of a row
    return "\n".join(lines)


def main(
    only: Annotated[str, typer.Option(help="Rows, separated by commas.")] = ",".join(ROWS),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file, as JSON.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use small sizes, one round and no aims, to see whether everything works.")
    ] = False,
    write_readme: Annotated[bool, typer.Option("--write-readme", help="Put the table into bench/README.md.")] = False,
) -> None:
    """Measures what becomes more expensive as it grows. "x" is the value at the largest size divided by the one at the
    smallest.

    Exit code 1 if an aim is missed. Aims apply only to the full sizes."""
    console, bar, documents, missed = Console(), Console(stderr=True), [], 0
    try:
        if write_readme and (quick or len(chosen(only)) < len(ROWS)):
            raise BenchError("--write-readme needs all rows: leave out --quick and --only")
        for row in chosen(only):
            sizes, rounds = (row.quick, 1) if quick else (row.sizes, row.rounds)
            with tempfile.TemporaryDirectory(prefix="stepwell-growth-") as folder, bar.status("") as status:
                results = measure(row, sizes, rounds, Path(folder), status.update)
            show(row, sizes, results, with_aims=not quick, console=console)
            documents.append(as_json(row, sizes, results))
            missed += sum(not quick and not result.is_met for result in results)
        if write_readme:
            README.write_text(put_between(README.read_text(), "growth", as_markdown(documents, machine())))
    except BenchError as error:
        bar.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    finally:
        if json_file is not None:
            document = {"machine": machine(), "quick": quick, "rows": documents}
            json_file.write_text(json.dumps(document, indent=2) + "\n")
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
