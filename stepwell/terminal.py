"""The one way to a terminal: what is printed here holds no control characters but our own, piped or not.

One rule: a text from outside is shown as the text that it is. In a string with markup it is written by `shown`; in
`Text`, or with `markup=False`, as it is; the console replaces the rest.
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
    """A console that replaces what a terminal must not get in all that is rendered: texts, tables, trees, progress."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and (text := visible(segment.text)) != segment.text:
                segment = Segment(text, segment.style)
            yield segment

    def print_markup(self, text: str) -> None:
        """Lines with markup, however long each is: what `print` writes with `soft_wrap`, in a quarter of its time."""
        value = self.render_str(text)
        value.expand_tabs()
        self.print(Segments(value.render(self, end="\n")), soft_wrap=True)


def shown(value: object) -> str:
    """A value from outside as a part of a line with markup."""
    return escape(one_line(str(value)))


def shown_lines(value: object) -> str:
    """The same for a text that may have lines of its own, as a cell of a table."""
    return escape(visible(str(value)))


def styled(*parts: str | Text | tuple[str, str]) -> Text:
    """One line of these parts, each a text or a text with its style; none of them can begin another."""
    return Text.assemble(*(_one_line(part) for part in parts))


def _one_line(part: str | Text | tuple[str, str]) -> str | Text | tuple[str, str]:
    if isinstance(part, tuple):
        return one_line(part[0]), part[1]
    return one_line(part) if isinstance(part, str) else part


def print_line(data: Any) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(escaped_json(orjson.dumps(data, default=str).decode()) + "\n")
    sys.stdout.flush()
