"""Mutants that do not count, because no test can find them. `equivalent.toml` lists them with the reasons."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from mutants.operators import Mutant

FILE = Path(__file__).parent / "equivalent.toml"


@dataclass(frozen=True, slots=True)
class Equivalent:
    function: str
    was: str
    becomes: str
    reason: str

    def is_of(self, mutant: Mutant) -> bool:
        """Whether the entry describes this mutant. The path does not matter; a renamed or changed function does."""
        return (self.function, self.was, self.becomes) == (mutant.function, mutant.was, mutant.becomes)


def read_equivalents(file: Path = FILE) -> list[Equivalent]:
    return [Equivalent(**entry) for entry in tomllib.loads(file.read_text("utf-8")).get("mutant", [])]


def reason_of(mutant: Mutant, equivalents: list[Equivalent]) -> str | None:
    return next((entry.reason for entry in equivalents if entry.is_of(mutant)), None)
