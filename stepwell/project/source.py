"""The result of reading a definition file: plain data, and the line and column of each value.

Definition files can come from strangers, so reading one is safe. No tag is executed, keys are always text, and
ambiguous text (a key given twice) is refused. Limits on depth and aliases keep a small text from becoming large data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepwell.core.definition.problems import Pointer
from stepwell.core.terminal_text import one_line

DEEPEST = 64
TOO_DEEP = f"is nested more than {DEEPEST} deep; nothing in a definition needs that"
HALF_A_CHARACTER = "contains half a surrogate pair, which is not a character; remove it"
EMPTY = "is empty; a definition has an id, triggers and steps"


class SourceError(ValueError):
    """The text is wrong at this line and column (both from 1).

    The message has the problem, and the cure if there is one.
    """

    def __init__(self, problem: str, line: int, column: int, cure: str = "") -> None:
        self.problem, self.message = problem, f"{problem}; {cure}" if cure else problem
        super().__init__(self.message)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Source:
    """`places`: the (line, column) of every value, from 1; for a value in an object, the place of the key.

    `written`: the original spelling of values that are not text, where it can differ: `0755` is read as the number 755.
    """

    data: Any
    places: dict[Pointer, tuple[int, int]]
    written: dict[Pointer, str] = field(default_factory=dict)

    def place(self, pointer: Pointer) -> tuple[int, int]:
        """The (line, column) of `pointer`. If it is not in the text, the place of the nearest parent."""
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
        return one_line(text.encode(errors="backslashreplace").decode())  # a file's name can contain any bytes


class LoadError(Exception):
    """A function cannot be loaded. `problems` contains all problems, in the order of the file."""

    def __init__(self, problems: list[PlacedProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def is_whole(text: str) -> bool:
    """Whether the text can be written as UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
