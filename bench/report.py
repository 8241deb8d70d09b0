"""Writes the results as a table, to the terminal and into README.md, beside published numbers of other products."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from server import BenchError

NONE = "–"
Numbers = dict[str, float]

COLUMNS = ("", "Stepwell", "Restate", "Celery", "DBOS", "Inngest", "AWS")
# What is measured, where it is in the results, how it is formatted, and the other products' numbers, by COLUMNS.
ROWS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    ("ready after, s", "start", "ready_s", "{:.2f}", ("0.25", NONE, NONE, "0.12", NONE)),
    ("W1 runs/s", "W1", "runs_per_s", "{:,.0f}", ("502", "290", "111", "73", "28")),
    ("W1 latency, ms", "W1", "median_ms", "{:.1f}", ("6.0", "6.4", "9", "452", "123")),
    ("W1 latency, p99", "W1", "p99_ms", "{:.1f}", ()),
    ("W1 latency to answer, ms", "W1", "seen_ms", "{:.1f}", ()),
    ("W1 memory, MB", "W1", "server_mb", "{:.0f}", (NONE, NONE, NONE, "394", NONE)),
    ("W1 memory, all processes", "W1", "all_mb", "{:.0f}", ()),
    ("W1p runs/s", "W1p", "runs_per_s", "{:,.0f}", ()),
    ("W1p latency, ms", "W1p", "median_ms", "{:.1f}", ()),
    ("W1p latency, p99", "W1p", "p99_ms", "{:.1f}", ()),
    ("W2 single events/s", "W2", "single_per_s", "{:,.0f}", ("3,900", NONE, NONE, "4,860", NONE)),
    ("W2 batched events/s", "W2", "batched_per_s", "{:,.0f}", (NONE, NONE, NONE, "8,760", NONE)),
    ("W2 memory, MB", "W2", "server_mb", "{:.0f}", ()),
    ("W1-full runs/s", "W1-full", "runs_per_s", "{:,.0f}", ()),
    ("W1-full runs/s, change", "W1-full", "runs_per_s_change", "{:+.0%}", ()),
    ("W1-full latency, ms", "W1-full", "median_ms", "{:.1f}", ()),
    ("W1-full latency, change", "W1-full", "median_ms_change", "{:+.0%}", ()),
    ("W1-full memory, MB", "W1-full", "server_mb", "{:.0f}", ()),
)


def rows(results: dict[str, Numbers]) -> list[tuple[str, ...]]:
    """The rows of the table that were measured, with one cell for each of COLUMNS."""
    peers = len(COLUMNS) - 2
    return [
        (title, form.format(results[workload][key]), *(published or (NONE,) * peers))
        for title, workload, key, form, published in ROWS
        if key in results.get(workload, {})
    ]


def machine() -> dict[str, str | int]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    today = datetime.now(UTC).date().isoformat()
    return {"cpu": model, "cores": os.cpu_count() or 1, "python": platform.python_version(), "date": today}


def in_readme(readme: str, results: dict[str, Numbers], about: dict[str, str | int]) -> str:
    """The README's text with these results between the marks."""
    lines = [
        f"| {' | '.join(cells)} |" for cells in (COLUMNS, ("---",) + ("--:",) * (len(COLUMNS) - 1), *rows(results))
    ]
    where = f"Stepwell on {about['cores']} cores of {about['cpu']}, Python {about['python']}, {about['date']}."
    return put_between(readme, "results", f"{where}\n\n" + "\n".join(lines))


def put_between(readme: str, name: str, content: str) -> str:
    """The README's text with this content between the marks with this name. Raises BenchError."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found_start, rest = readme.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise BenchError(f"README.md needs the lines {start} and {end}")
    return f"{before}{start}\n{content}\n{end}{after}"


def show(results: dict[str, Numbers]) -> None:
    table = Table(*COLUMNS, header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for cells in rows(results):
        table.add_row(*cells)
    Console().print(table)
