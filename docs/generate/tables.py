"""What the generated pages are built of: tables, and a comment that names the source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Cells may contain `|` and line breaks."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def source(what: str) -> str:
    """The comment below the heading of a generated page."""
    return f"<!-- Written by docs/generate from {what}; change that, then `make docs`. -->"
