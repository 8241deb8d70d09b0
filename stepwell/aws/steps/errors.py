"""The reasons why an attempt could not be started."""

from __future__ import annotations


class NeverStarts(Exception):
    """The attempt can never start. The message gives the reason."""


class NotFound(NeverStarts):
    """The step's Lambda was not found. A Lambda that was just created may be found later."""


class Busy(Exception):
    """AWS throttles, has no capacity, or is not ready. Nothing was started; a later request may succeed."""
