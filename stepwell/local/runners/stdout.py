"""Collects a program's output with bounded memory. Every byte ends up in the output or in the log."""

from __future__ import annotations

from stepwell.core.run.outcome import ParsedOutput, read_last_line, read_stdout, too_large
from stepwell.local.runners.job import Log

_LARGEST = 1024 * 1024  # of a text that may be an output: stored JSON is shorter, without spaces and escapes


class StdoutReader:
    """Takes stdout in pieces. Of a text that is too long for an output, only the last line may be the output."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._text = bytearray()
        self._size = 0
        self._is_long = False  # `_text` contains only the last line that is not blank, and what follows it
        self._is_broken = False  # the beginning of that line is gone

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        self._text += piece
        if self._is_long or len(self._text) > _LARGEST:
            self._is_long = True
            self._keep_last_line()

    def finish(self) -> ParsedOutput:
        text = bytes(self._text)
        if not self._is_long:
            return read_stdout(text)
        report = None if self._is_broken else read_last_line(text)
        if report is None:
            self._log("stdout", text)
            return too_large(self._size)
        return report

    def _keep_last_line(self) -> None:
        text = self._text
        end = len(text.rstrip())
        start = text.rfind(b"\n", 0, end) + 1
        newline = text.find(b"\n", end)
        if newline >= 0:
            del text[newline + 1 :]
        if start:
            self._is_broken = False
        elif len(text) > _LARGEST:
            self._is_broken = True
            start = len(text)
        if start:
            self._log("stdout", bytes(text[:start]))
            del text[:start]
