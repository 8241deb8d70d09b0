"""Why an attempt could not be started."""

from __future__ import annotations


class NeverStarts(Exception):
    """Trying again would not help; the message says why."""


class NotFound(NeverStarts):
    """There is no such Lambda. One that was made a moment ago may be found later."""


class Busy(Exception):
    """Throttled, without capacity, or not ready: for certain nothing was started, and later it may be."""
