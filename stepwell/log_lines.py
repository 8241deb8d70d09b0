"""Log lines for people, on stderr and without control characters."""

from __future__ import annotations

import logging

from stepwell.core.terminal_text import one_line, visible


class LogLines(logging.Formatter):
    """Formats log records as lines for people: a message is one line, only a traceback has several."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def log_lines() -> None:
    """Prints warnings of this process on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
