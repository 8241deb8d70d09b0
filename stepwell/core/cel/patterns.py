"""Estimates the cost of the patterns of `matches()` from their text. Syntax and engine are RE2's.

Each estimate is an upper bound. RE2 follows all paths through a pattern at once. If there are few combinations of
paths, RE2 caches each one, and a character costs a few nanoseconds. If there are too many, RE2 follows every path
again: the cost of a character then grows with the length of the pattern, where `x{3}` counts as `xxx`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import log2

_FEW = 10  # up to so many choices, RE2 caches all combinations
_MOST = 1_000_000
_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x\{[^}]*\}|x..|[0-7]{1,3}|.)", re.DOTALL)
_PROPERTY = re.compile(r"\\[pP]\{?\^?(\w+)")  # general categories (L, Lu) have hundreds of ranges, scripts a few
_CLASS = re.compile(r"\[\^?\]?(?:\[:[^\]]*:\]|\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:P?<[^>]*>|[a-zA-Z-]*[:)]))?")
_REPEAT = re.compile(r"(?:[*+?]|\{(\d+)(,(\d*))?\})\??")
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PatternCost:
    """The cost of a pattern, in nanoseconds.

    `compiling` is spent on each match, `character` on each character. `first` is added for each of the first `new`
    characters: each of these can lead to a combination of paths that RE2 has to store.
    """

    compiling: float
    character: float
    first: float
    new: float

    def of(self, matches: float, characters: float) -> float:
        """The cost of a number of matches that read `characters` characters in total."""
        new = min(characters, self.new * matches)
        return self.compiling * matches + self.character * characters + self.first * new


@dataclass(slots=True)
class _Part:
    """A part of a pattern.

    `length`: with repetitions written out. `choices`: how many choices (of two paths each) are open at a time.
    `compiling`: nanoseconds. `is_optional`: it can match the empty text. `is_tangled`: it repeats an optional part.
    """

    length: float = 0
    choices: float = 0
    compiling: float = 0
    is_optional: bool = False
    is_tangled: bool = False

    def add(self, other: _Part) -> None:
        self.length = min(self.length + other.length, _MOST)
        self.choices = min(self.choices + other.choices, _MOST)
        self.compiling += other.compiling
        self.is_optional |= other.is_optional
        self.is_tangled |= other.is_tangled

    def repeat(self, least: int, most: int) -> None:
        self.length = min(self.length * most, _MOST)
        self.choices = min(self.choices * most + 1, _MOST)
        self.compiling *= most if most == least else 4 * most
        self.is_tangled |= self.is_optional and most > 1
        self.is_optional |= least == 0


@lru_cache(maxsize=1024)
def pattern_cost(pattern: str) -> PatternCost:
    """The cost of a pattern that RE2 accepts."""
    whole = _part_of(pattern)
    character = 5.0 if whole.choices <= _FEW else 150 + (25 if whole.is_tangled else 6) * whole.length
    return PatternCost(5_000 + whole.compiling, character, 12 * whole.length, 2 * whole.length)


def _part_of(pattern: str) -> _Part:
    """A whole pattern as one part, read from left to right."""
    groups, alternatives = [_Part()], [1]
    last = _Part()  # the part to which a following repetition applies
    at = 0
    while at < len(pattern):
        if quoted := _QUOTED.match(pattern, at):
            at, last = quoted.end(), _Part(len(quoted[1]), 0, 400 * len(quoted[1]))
        elif repeat := _REPEAT.match(pattern, at):
            at = repeat.end()
            groups[-1].add(_times(last, repeat))
            last = _Part()
            continue
        elif pattern[at] == "(":
            opening = _GROUP.match(pattern, at)
            at = opening.end() if opening else at + 1
            if opening is None or not opening[0].endswith(")"):  # `(?i)` only sets flags and is not a group
                groups[-1].add(last)
                groups.append(_Part())
                alternatives.append(1)
                last = _Part()
            continue
        elif pattern[at] == ")" and len(groups) > 1:
            groups[-1].add(last)
            at, last = at + 1, groups.pop()
            last.choices += log2(alternatives.pop())
            continue
        elif pattern[at] == "|":
            at, alternatives[-1] = at + 1, alternatives[-1] + 1
            groups[-1].add(last)
            last = _Part()
            continue
        else:
            groups[-1].add(last)
            at, last = _atom(pattern, at)
            continue
        groups[-1].add(last)
        last = _Part()
    groups[-1].add(last)
    return _joined(groups, alternatives)


def _joined(groups: list[_Part], alternatives: list[int]) -> _Part:
    """The outermost group, after adding the groups that were not closed."""
    while len(groups) > 1:
        inner = groups.pop()
        groups[-1].add(inner)
    groups[0].choices += sum(map(log2, alternatives))
    return groups[0]


def _times(last: _Part, repeat: re.Match[str]) -> _Part:
    if repeat[1] is None:
        last.repeat(1 if repeat[0][0] == "+" else 0, 1)
    else:
        least = int(repeat[1])
        last.repeat(least, max(1, int(repeat[3]) if repeat[3] else least + bool(repeat[2])))
    return last


def _atom(pattern: str, at: int) -> tuple[int, _Part]:
    """One character, escape or class: where it ends, and the part."""
    if pattern[at] == "[" and (found := _CLASS.match(pattern, at)):
        text = found[0]
        is_wide = text.startswith("[^") or not text.isascii()
    elif pattern[at] == "\\" and (found := _ESCAPE.match(pattern, at)):
        text = found[0]
        if text[1] not in "pPdDsSwWC":
            return found.end(), _Part(0 if text[1] in "bBAz" else 1, 0, 400)
        is_wide = text[1] in "DSWC"
    elif pattern[at] == ".":
        return at + 1, _Part(3, 1, 2_500)
    else:
        return at + 1, _Part(1, 0, 400)
    compiling = sum(3_000_000 if len(name) <= 2 else 200_000 for name in _PROPERTY.findall(text))
    return found.end(), _Part(3 if is_wide or compiling else 1, 1, compiling or (2_500 if is_wide else 500))
