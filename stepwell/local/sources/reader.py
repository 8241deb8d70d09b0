"""What a module for a kind of broker implements, so that its records become events.

A reader belongs to one source. Its methods block; they are called one at a time, in a thread of the source. They raise
any exception when the broker is gone: the reader is then closed, and a new one is made later. Records that were polled
and not committed must be delivered again, to this reader or a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stepwell.core.sources.places import Place
from stepwell.core.sources.records import Record
from stepwell.local.sources.lag import Lag


@dataclass(frozen=True, slots=True)
class Polled:
    """Records in their order, and what `commit` needs to know about them."""

    records: Sequence[Record] = ()
    token: Any = None

    @property
    def is_empty(self) -> bool:
        return not self.records and self.token is None


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What a reader is made with. `settings`: the fields of the connection, in which secrets have their values.
    `identity`: distinguishes this database's readers from those of others, and stays equal after a restart."""

    name: str
    settings: dict[str, Any] = field(repr=False)
    identity: str = ""


class CannotSeek(Exception):
    """The source cannot be read again from a place. The message has the reason."""


class ReadOnce:
    """The part of readers whose broker keeps no messages that were read: these cannot be read again."""

    no_places: str  # the reason, and what to do instead

    def position(self) -> Any:
        raise CannotSeek(self.no_places)

    def is_before(self, record: Record, position: Any) -> bool:
        return False

    def seek(self, place: Place) -> None:
        raise CannotSeek(self.no_places)


class Reader(Protocol):
    def open(self) -> None:
        """Connects. Raises an exception whose message says what is wrong."""

    def poll(self, most: int, wait_s: float) -> Polled:
        """The next records, at most `most`; none if none come within `wait_s` seconds."""

    def commit(self, polled: Polled) -> None:
        """Tells the broker that these records need not be delivered again."""

    def lag(self) -> Lag: ...

    def position(self) -> Any:
        """The place after the newest record that was polled, as JSON data. Raises CannotSeek."""

    def is_before(self, record: Record, position: Any) -> bool:
        """Whether a record comes before a `position`."""

    def seek(self, place: Place) -> None:
        """Lets the broker deliver records again from this place. Raises CannotSeek."""

    def close(self) -> None: ...
