"""The results of aws_cost.py as tables, in the terminal and in docs/cost.md; and what they are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from aws_prices import DURABLE, INNGEST, STANDARD, Usage, dollars, express, total
from rich import box
from rich.console import Console
from rich.table import Table

MARK, END_MARK = "<!-- results -->", "<!-- end of results -->"
Results = dict[str, Any]
Rows = list[list[str]]

AIMS: tuple[tuple[str, Callable[[Results], bool]], ...] = (
    ("three steps cost at most $12 per million runs", lambda r: total(_its(r, "three steps")) <= 12),
    (
        "an event that starts nothing costs at most $4.50 per million",
        lambda r: total(_its(r, "an event that starts nothing")) <= 4.5,
    ),
    (
        "at most three requests in a row between an outcome and the next step's start",
        lambda r: all(its["to_next_step"] <= 3 for its in r["workloads"].values()),
    ),
    (
        "`advance` takes at most 3 ms of CPU for an outcome, besides requests to AWS",
        lambda r: r["workloads"]["three steps, unbatched"]["advance_engine_ms"] <= 3,
    ),
    (
        "1,000 parallel steps join with at most 100 writes of the run",
        lambda r: r["growth"]["parallel"][999]["writes_of_run"] <= 100,
    ),
)


def _its(results: Results, workload: str) -> Usage:
    usage: Usage = results["workloads"][workload]["usage"]
    return usage


# --- tables ----------------------------------------------------------------------------------------------------------


def _costs(results: Results) -> Rows:
    workloads = results["workloads"]
    bills = [dollars(its["usage"]) for its in workloads.values()]
    rows = [["", *workloads]]
    rows += [[service, *(f"{bill[service]:.2f}" for bill in bills)] for service in bills[0]]
    return [*rows, ["**total**", *(f"**{sum(bill.values()):.2f}**" for bill in bills)]]


def _paths(results: Results) -> Rows:
    rows = [["", "requests in a row: event to step", "outcome to step", "CPU ms: ingest", "route", "advance"]]
    for name, its in results["workloads"].items():
        cpu = [f"{its['cpu_ms'].get(handler, 0):.1f}" for handler in ("ingest", "route", "advance")]
        rows.append([name, str(its["to_first_step"]), str(its["to_next_step"]), *cpu])
    return rows


def _growth(results: Results) -> Rows:
    rows = [["steps", "$ per million runs", "write units", "read units", "writes of the run's item"]]
    for steps, usage in results["growth"]["sequence"].items():
        rows.append([f"{steps} in sequence", *_growth_cells(usage), str(steps + 1)])
    for steps, its in results["growth"]["parallel"].items():
        rows.append([f"{steps} in parallel, joined", *_growth_cells(its["usage"]), str(its["writes_of_run"])])
    return rows


def _growth_cells(usage: Usage) -> list[str]:
    return [f"{total(usage):,.2f}", f"{usage.write_units:,.1f}", f"{usage.read_units:,.1f}"]


def _flat(results: Results) -> Rows:
    titles = list(results["flat"]["go"])
    rows = [["DynamoDB, $ per million", *titles]]
    texts = {"go": "an event that starts one step, and its run", "paid": "an event that waits might want"}
    return rows + [[texts[name], *(f"{its[t]:.2f}" for t in titles)] for name, its in results["flat"].items()]


def _idle(results: Results) -> Rows:
    return [["while nothing happens", "$ a month"], *([k, f"{v:.2f}"] for k, v in results["idle"].items())]


def _comparison(results: Results) -> Rows:
    return [
        ["three steps", "$ per million runs"],
        ["Stepwell", f"{total(_its(results, 'three steps')):.2f}"],
        ["Stepwell, `ingest: direct`", f"{total(_its(results, 'three steps, `ingest: direct`')):.2f}"],
        ["Step Functions Standard", f"{STANDARD:.0f}"],
        ["Step Functions Express, runs of 1 s, at most 5 min", f"{express(1):.2f}"],
        ["Step Functions Express, runs of 60 s", f"{express(60):.2f}"],
        ["Lambda durable functions", f"{DURABLE:.0f}"],
        ["Inngest", f"{INNGEST:.0f}"],
    ]


TABLES: tuple[tuple[str, Callable[[Results], Rows]], ...] = (
    ("Dollars per million", _costs),
    ("Beside others", _comparison),
    ("Requests that wait for one another, and CPU time", _paths),
    ("With the number of steps", _growth),
    ("With what else is there", _flat),
    ("Standing still", _idle),
)


def show(results: Results) -> None:
    console = Console()
    for title, rows_of in TABLES:
        head, *rows = rows_of(results)
        table = Table(*head, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*(cell.replace("**", "") for cell in row))
        console.print(table)


def in_docs(text: str, results: Results) -> str:
    """The page's text with these results between its marks."""
    before, mark, rest = text.partition(MARK)
    _, end, after = rest.partition(END_MARK)
    if not (mark and end):
        raise ValueError(f"docs/cost.md needs the lines {MARK} and {END_MARK}")
    day = datetime.now(UTC).date().isoformat()
    parts = [f"## {title}\n\n{_markdown(rows_of(results))}" for title, rows_of in TABLES]
    return f"{before}{MARK}\nCounted on {day}.\n\n" + "\n\n".join(parts) + f"\n{END_MARK}{after}"


def _markdown(rows: Rows) -> str:
    head, *others = rows
    line: Callable[[Sequence[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(head), line(["---", *["--:"] * (len(head) - 1)]), *map(line, others)])
