"""Reads definitions written in strict JSON (RFC 8259), with the line and column of every value."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any

from stepwell.core.definition.problems import Pointer
from stepwell.project.source import DEEPEST, EMPTY, HALF_A_CHARACTER, TOO_DEEP, Source, SourceError, is_whole

_BLANK = re.compile(r"[ \t\r\n]*")
_STRINGS = json.JSONDecoder()
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = {"true": True, "false": False, "null": None}


def parse_json(text: str) -> Source:
    """Reads strict JSON. Raises SourceError."""
    return _Json(text).document()


class _Json:
    """A recursive-descent parser of RFC 8259. In every method, `self.at` is the index of the next unread character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines = [0, *(newline.end() for newline in re.finditer("\n", text))]
        self.places: dict[Pointer, tuple[int, int]] = {}
        self.written: dict[Pointer, str] = {}

    def document(self) -> Source:
        if not self.peek():
            raise self.error(EMPTY)
        self.places[()] = self.place(self.at)
        data = self.value(())
        if self.peek():
            raise self.error("has more text after its end; remove it")
        return Source(data, self.places, self.written)

    def value(self, pointer: Pointer) -> Any:
        if len(pointer) > DEEPEST:
            raise self.error(TOO_DEEP)
        match self.peek():
            case "{":
                return self.object(pointer)
            case "[":
                return self.array(pointer)
            case '"':
                return self.string()
        if number := _NUMBER.match(self.text, self.at):
            start, self.at = self.at, number.end()
            self.written[pointer] = number[0]
            if number[1] or number[2]:
                return float(number[0])
            if len(number[0]) > 400:
                raise self.error("is a number of more than 400 digits", start)
            return int(number[0])
        if (word := _WORD.match(self.text, self.at)) and word[0] in _WORDS:
            self.at = word.end()
            return _WORDS[word[0]]
        raise self.error(f"expected a value, not {self.found()}")

    def object(self, pointer: Pointer) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self.at += 1
        while self.another("}", bool(result)):
            start = self.at
            if self.peek() != '"':
                raise self.error(f"expected a key in double quotes, not {self.found()}")
            key = self.string()
            if key in result:
                raise self.error(f"has the key {key[:100]!r} twice; keep one of them", start)
            self.places[(*pointer, key)] = self.place(start)
            if self.peek() != ":":
                raise self.error(f"expected `:` after the key {key[:100]!r}, not {self.found()}")
            self.at += 1
            result[key] = self.value((*pointer, key))
        return result

    def array(self, pointer: Pointer) -> list[Any]:
        result: list[Any] = []
        self.at += 1
        while self.another("]", bool(result)):
            here = (*pointer, len(result))
            self.places[here] = self.place(self.at)
            result.append(self.value(here))
        return result

    def another(self, end: str, begun: bool) -> bool:
        """Whether there is one more entry before `end`. Leaves `self.at` at the entry's first character."""
        if self.peek() == end:
            self.at += 1
            return False
        if begun:
            if self.peek() != ",":
                raise self.error(f"expected `,` or `{end}`, not {self.found()}")
            comma = self.at
            self.at += 1
            if self.peek() == end:
                raise self.error(f"has a `,` before `{end}`; remove it", comma)
        return True

    def string(self) -> str:
        try:
            text, self.at = _STRINGS.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            problem = error.msg.removesuffix(" at").removesuffix(" starting").lower()
            raise self.error(f"is not valid JSON: {problem}", error.pos) from None
        if not is_whole(text):
            raise self.error(HALF_A_CHARACTER)
        return str(text)

    def peek(self) -> str:
        """The next character that is not blank, or "" at the end of the text."""
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at
        return self.text[self.at : self.at + 1]

    def found(self) -> str:
        if word := _WORD.match(self.text, self.at):
            return f"`{word[0][:40]}`"
        return f"`{self.peek()}`" if self.peek() else "the end of the file"

    def place(self, at: int) -> tuple[int, int]:
        line = bisect_right(self.lines, at)
        return line, at - self.lines[line - 1] + 1

    def error(self, message: str, at: int | None = None) -> SourceError:
        return SourceError(message, *self.place(self.at if at is None else at))
