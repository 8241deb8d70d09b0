"""Text from outside on its way to a terminal: nothing in it may move the cursor, hide or reorder what stands there.

Replaced are control characters (C0, DEL, C1), which terminals obey; those that change the direction of writing (Unicode
UAX #9), which make text look like another; and halves of characters (surrogates), which cannot be written at all.
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
    """The text with U+FFFD for each character that a terminal must not get; its lines and tabs stay."""
    return _UNSAFE.sub(REPLACEMENT, text)


def one_line(text: str) -> str:
    """The same for what stands in a line of ours, where a line break would begin a line that looks like ours."""
    return _UNSAFE_IN_A_LINE.sub(REPLACEMENT, text)


def escaped_json(text: str) -> str:
    """A JSON text in which they are escapes. orjson escapes only those below a space."""
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
