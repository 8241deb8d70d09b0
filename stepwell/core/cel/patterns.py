"""What the patterns of `matches()` cost, as their text tells. Their syntax and their engine are RE2's.

One rule: an estimate is a bound from above. RE2 follows all ways through a pattern at once. As long as few combinations
of ways can occur, it remembers each (some ns a character); where there are too many, it follows every way anew, so that
a character costs as much as the pattern is long, counted repetitions written out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import log2

_FEW = 10  # choices of which RE2 remembers all combinations
_MOST = 1_000_000
_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x\{[^}]*\}|x..|[0-7]{1,3}|.)", re.DOTALL)
_PROPERTY = re.compile(r"\\[pP]\{?\^?(\w+)")  # letters (L, Lu) have hundreds of ranges, a script has some
_CLASS = re.compile(r"\[\^?\]?(?:\[:[^\]]*:\]|\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:P?<[^>]*>|[a-zA-Z-]*[:)]))?")
_REPEAT = re.compile(r"(?:[*+?]|\{(\d+)(,(\d*))?\})\??")
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PatternCost:
    """In nanoseconds: to compile it, which is done for each match, to look at one character, and at one of the first
    `new` ones, of which each can lead to a combination of ways that has to be written down."""

    compiling: float
    character: float
    first: float
    new: float

    def of(self, matches: float, characters: float) -> float:
        """What so many matches take that look at so many characters in all."""
        new = min(characters, self.new * matches)
        return self.compiling * matches + self.character * characters + self.first * new


@dataclass(slots=True)
class _Part:
    """`length`: with repetitions written out; `choices`: how many are open at a time (two ways each); `compiling`: ns.
    `is_optional`: it may match nothing; `is_tangled`: it repeats what holds such a part."""

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
    """Of a pattern that RE2 accepts."""
    whole = _part_of(pattern)
    character = 5.0 if whole.choices <= _FEW else 150 + (25 if whole.is_tangled else 6) * whole.length
    return PatternCost(5_000 + whole.compiling, character, 12 * whole.length, 2 * whole.length)


def _part_of(pattern: str) -> _Part:
    """The cost of a whole pattern, read from left to right."""
    groups, alternatives = [_Part()], [1]
    last = _Part()  # what a repetition repeats
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
            if opening is None or not opening[0].endswith(")"):  # else it sets flags, and holds nothing
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
    """The outermost group, with those in it that no parenthesis closed."""
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
    """One character, escape or class, and where it ends."""
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
