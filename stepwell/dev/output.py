"""Writes the output of `stepwell dev`: lines for people, or one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from stepwell.terminal import Terminal, print_line


class Output:
    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Terminal()
        self._held: list[str] | None = None  # lines to print together

    def line(self, kind: str, text: str, **fields: Any) -> None:
        """Prints `text` (markup of rich, already escaped), or the fields as JSON."""
        if self._as_json:
            print_line({"kind": kind, **fields})
        elif self._held is not None:
            self._held.append(text)
        else:
            self._console.print_markup(text)

    def table(self, table: Table, more: str = "") -> None:
        """Prints a table and a line below it; nothing if the output is JSON."""
        if not self._as_json:
            self._console.print(table)
            if more:
                self._console.print(more)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Lines within this context are printed with one write, because writes to a terminal are slow."""
        self._held = []
        try:
            yield
        finally:
            lines, self._held = self._held, None
            if lines:
                self._console.print_markup("\n".join(lines))
