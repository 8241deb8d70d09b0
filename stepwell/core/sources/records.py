"""Records of other queues: what every broker has in common."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

CLOUDEVENT_PREFIXES = ("ce_", "ce-", "cloudevents:", "cloudevents_")  # of headers with attributes of a CloudEvent
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Record(NamedTuple):
    """A record (a message, an entry) of another queue.

    `id`: equal at each delivery, and different from those of all other records of the source. `body`: None if the
    record has none, as a tombstone of Kafka. `headers`: names in lower case. `place`: further variables of expressions,
    such as `topic`. `at`: the time (ms) that the broker gives. `problem`: why the record cannot be read.
    """

    id: str
    body: bytes | None
    headers: Mapping[str, str] = _NOTHING
    place: Mapping[str, Any] = _NOTHING
    at: int | None = None
    problem: str = ""

    def stored(self) -> bytes:
        """The record as JSON, for the quarantine."""
        body = None if self.body is None else base64.b64encode(self.body).decode()
        rest = {"headers": dict(self.headers), "place": dict(self.place), "at": self.at, "problem": self.problem}
        return orjson.dumps({"id": self.id, "body": body, **rest}, default=str)

    @classmethod
    def of_stored(cls, text: bytes) -> Record:
        fields = orjson.loads(text)
        body = fields["body"]
        return cls(
            fields["id"],
            None if body is None else base64.b64decode(body),
            fields["headers"],
            fields["place"],
            fields["at"],
            fields["problem"],
        )


def header_text(value: bytes | str | None) -> str:
    """The text of a header, which brokers deliver as bytes. Bytes that are not UTF-8 are escaped."""
    if value is None:
        return ""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
