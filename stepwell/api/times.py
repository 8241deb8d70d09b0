"""The query parameters `since` and `until` of lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Parameter

_LAST_MS = 253_402_300_799_999  # the end of the year 9999

BETWEEN = (
    Parameter("since", "The earliest time (inclusive): RFC 3339, or milliseconds since the epoch"),
    Parameter("until", "The latest time (exclusive): RFC 3339, or milliseconds since the epoch"),
)


def between(query: Mapping[str, str]) -> dict[str, Any]:
    """`since` and `until` in ms since the epoch. Raises Problem 400."""
    return {name: None if (text := query.get(name)) is None else _moment(name, text) for name in ("since", "until")}


def _moment(name: str, text: str) -> int:
    if re.fullmatch("[0-9]{1,15}", text):
        return min(int(text), _LAST_MS)
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped `+` arrives as a space
        if moment.tzinfo is None:
            raise ValueError(text)
        return max(0, round(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        message = f"{name}={text} is not a time; write it like 2026-11-23T10:00:00Z, or in milliseconds since the epoch"
        raise Problem(400, message) from None
