"""Points in time that expressions give: CEL timestamps, RFC 3339 texts, and milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH, _MS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_MUST_BE = "a time is a timestamp, an RFC 3339 text such as '2026-12-24T18:00:00Z', or milliseconds since 1970"


class NoMoment(ValueError):
    """The value is not a point in time. The message says what it is and what it must be."""


def moment_of(value: Any, kind: str) -> int:
    """The milliseconds since the epoch of an expression's value, rounded up. `kind`: the value's type, for people.

    Raises NoMoment.
    """
    if isinstance(value, datetime):
        return _milliseconds(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, float):
        raise NoMoment(f"the value is {value}; {_MUST_BE}")
    if not isinstance(value, str):
        raise NoMoment(f"the value is {kind}; {_MUST_BE}")
    try:
        if _RFC_3339.fullmatch(value):
            return _milliseconds(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        pass
    raise NoMoment(f"the value is the text {value[:100]!r}; {_MUST_BE}")


def _milliseconds(moment: datetime) -> int:
    return -((_EPOCH - moment) // _MS)
