"""Prints to the terminal safely: texts from outside cannot contain control characters or markup.

All output of the package goes through this module. In a string with markup, pass texts from outside through `shown`; in
`Text`, or with `markup=False`, they need nothing. The console replaces control characters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import orjson
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment, Segments
from rich.text import Text

from stepwell.core.terminal_text import escaped_json, one_line, visible


class Terminal(Console):
    """A console that replaces control characters in everything that it renders: texts, tables, trees, progress bars."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)
        if "width" not in options:
            self._width = None  # else Rich keeps the COLUMNS of now for all commands of this process

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and (text := visible(segment.text)) != segment.text:
                segment = Segment(text, segment.style)
            yield segment

    def print_markup(self, text: str) -> None:
        """Prints lines with markup without wrapping. Equals `print` with `soft_wrap`, but takes a quarter of the
        time."""
        rendered = self.render_str(text)
        rendered.expand_tabs()
        self.print(Segments(rendered.render(self, end="\n")), soft_wrap=True)


def shown(value: object) -> str:
    """Escapes a value from outside for a line with markup."""
    return escape(one_line(str(value)))


def styled(*parts: str | Text | tuple[str, str]) -> Text:
    """One line of text from parts, each a text or a pair of text and style. Line breaks in parts are replaced."""
    return Text.assemble(*(_one_line(part) for part in parts))


def _one_line(part: str | Text | tuple[str, str]) -> str | Text | tuple[str, str]:
    if isinstance(part, tuple):
        return one_line(part[0]), part[1]
    return one_line(part) if isinstance(part, str) else part


def print_line(data: Any) -> None:
    """Prints one line of JSON on stdout."""
    sys.stdout.write(escaped_json(orjson.dumps(data, default=str).decode()) + "\n")
    sys.stdout.flush()
