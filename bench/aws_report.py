"""Writes the bill as tables, to the terminal and into docs/operate/cost.md. Each table has a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from aws_dollars import Bill, Results, Rows
from aws_peer_tables import assumed_table, months_table, peer_prices_table, peers_table, prices_table
from aws_tables import (
    bill_table,
    flat_table,
    growth_table,
    idle_table,
    options_table,
    paths_table,
    payload_table,
    savings_table,
    services_table,
    steps_table,
    storage_table,
    traffic_table,
    waiting_table,
)
from rich import box
from rich.console import Console
from rich.table import Table

TABLES: dict[str, tuple[str, Callable[[Bill], Rows]]] = {
    "bill": ("What will my bill be? $ a month", bill_table),
    "traffic": ("By traffic", traffic_table),
    "services": ("$ per million, by service; in batches of ten, and of one", services_table),
    "payload": ("By payload, $ per million runs", payload_table),
    "waiting": ("By waiting time, $ per million runs", waiting_table),
    "storage": ("What is kept", storage_table),
    "idle": ("Standing still", idle_table),
    "steps": ("Your steps' own Lambdas, $", steps_table),
    "savings": ("What you can still save", savings_table),
    "options": ("Options", options_table),
    "peers": ("Beside others", peers_table),
    "months": ("Beside others, by the month", months_table),
    "assumed": ("What is assumed of others", assumed_table),
    "growth": ("With the number of steps", growth_table),
    "flat": ("With what else is there", flat_table),
    "paths": ("CPU time, and requests that wait for one another", paths_table),
    "prices": ("AWS' prices, us-east-1", prices_table),
    "peer_prices": ("Others' prices", peer_prices_table),
}


def show(bill: Bill) -> None:
    console = Console()
    for title, rows_of in TABLES.values():
        head, *rows = rows_of(bill)
        table = Table(*head, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*(cell.replace("**", "") for cell in row))
        console.print(table)


def in_docs(text: str, bill: Bill) -> str:
    """The page's text with all tables between their marks. Raises ValueError if the page has no mark for a table."""
    written: set[str] = set()

    def table(found: re.Match[str]) -> str:
        name = found[1]
        written.add(name)
        content = _counted(bill.results) if name == "counted" else _markdown(TABLES[name][1](bill))
        return f"<!-- table: {name} -->\n{content}\n<!-- end -->"

    page = re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)
    if missing := {*TABLES, "counted"} - written:
        raise ValueError(
            f"docs/operate/cost.md has no place for {', '.join(sorted(missing))}: <!-- table: NAME -->, <!-- end -->"
        )
    return page


def _counted(results: Results) -> str:
    return f"Counted on {results['day']}; CPU times: {results['machine']}."


def _markdown(rows: Rows) -> str:
    head, *others = rows
    line: Callable[[Sequence[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    columns = list(zip(*others, strict=True))
    marks = ["--:" if all(re.match(r"\**[\d–]|not possible", cell) for cell in cells) else "---" for cells in columns]
    return "\n".join([line(head), line(["---", *marks[1:]]), *map(line, others)])
