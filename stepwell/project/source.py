"""What reading a definition file gives: plain data, and where in the text each value stands.

One rule: text is data. No tag is executed, keys are always text, nothing that is ambiguous (a key given twice) is
accepted, and neither depth nor aliases can make a small text large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepwell.core.definition.problems import Pointer
from stepwell.core.terminal_text import one_line

DEEPEST = 64
TOO_DEEP = f"is nested more than {DEEPEST} deep; nothing in a definition needs that"
HALF_A_CHARACTER = "holds half a surrogate pair, which is no character; remove it"
EMPTY = "is empty; a definition has an id, triggers and steps"


class SourceError(ValueError):
    """The text is not what it should be, at this line and column (both from 1): the problem, and its cure."""

    def __init__(self, problem: str, line: int, column: int, cure: str = "") -> None:
        self.problem, self.message = problem, f"{problem}; {cure}" if cure else problem
        super().__init__(self.message)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Source:
    """`places`: the (line, column) of every value, from 1: of its key in an object, of itself in a list. `written`: how
    values that are no text are written, where the value does not tell: `0755` is the number 755."""

    data: Any
    places: dict[Pointer, tuple[int, int]]
    written: dict[Pointer, str] = field(default_factory=dict)

    def place(self, pointer: Pointer) -> tuple[int, int]:
        """Where `pointer` stands; where its nearest parent stands if it is not in the text."""
        while pointer and pointer not in self.places:
            pointer = pointer[:-1]
        return self.places.get(pointer, (1, 1))


@dataclass(frozen=True, slots=True)
class PlacedProblem:
    file: Path
    line: int
    column: int
    pointer: Pointer
    message: str

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.message}"
        return one_line(text.encode(errors="backslashreplace").decode())  # a file's name may be any bytes


class LoadError(Exception):
    """A function cannot be loaded; `problems` holds everything that is wrong, in the order of the file."""

    def __init__(self, problems: list[PlacedProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def is_whole(text: str) -> bool:
    """Whether the text can be written as UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
