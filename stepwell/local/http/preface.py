"""Detects a client's HTTP version: HTTP/2 begins with a preface (RFC 9113, 3.4), HTTP/1.1 with a request."""

from __future__ import annotations

from enum import Enum, auto

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Version(Enum):
    UNKNOWN = auto()  # not enough bytes yet
    HTTP_1 = auto()
    HTTP_2 = auto()


def version_of(received: bytes) -> Version:
    """The version of a connection, given all bytes received so far."""
    if not PREFACE.startswith(received[: len(PREFACE)]):
        return Version.HTTP_1
    return Version.HTTP_2 if len(received) >= len(PREFACE) else Version.UNKNOWN
