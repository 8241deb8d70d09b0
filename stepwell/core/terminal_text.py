"""Makes text from outside safe for a terminal: it cannot move the cursor, or hide or reorder other text.

Three kinds of characters are replaced. Terminals execute control characters (C0, DEL, C1). Characters that change the
direction of writing (Unicode UAX #9) make a text look like another. Lone surrogates cannot be written at all.
"""

from __future__ import annotations

import re

_INVISIBLE = r"\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SURROGATES = r"\ud800-\udfff"
_UNSAFE = re.compile(rf"[\x00-\x08\x0b-\x1f{_INVISIBLE}{_SURROGATES}]")
_UNSAFE_IN_A_LINE = re.compile(rf"[\x00-\x08\x0a-\x1f{_INVISIBLE}{_SURROGATES}\u2028\u2029]")
_UNESCAPED = re.compile(rf"[{_INVISIBLE}]")
REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """The text with U+FFFD in place of each unsafe character. Line breaks and tabs stay."""
    return _UNSAFE.sub(REPLACEMENT, text)


def one_line(text: str) -> str:
    """The text with U+FFFD in place of each unsafe character and line break.

    For text inside a line of output: after a line break, it could imitate a line of ours.
    """
    return _UNSAFE_IN_A_LINE.sub(REPLACEMENT, text)


def escaped_json(text: str) -> str:
    """A JSON text in which unsafe characters are escaped. orjson escapes only those below U+0020."""
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
