"""The bytes of the Faktory Work Protocol: a client sends lines, and the server replies in RESP. Pure.

https://github.com/contribsys/faktory/blob/main/docs/protocol-specification.md ("Commands and Responses"), and RESP:
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from stepwell.core.run.outcome import printable

OK = b"+OK\r\n"
NOTHING = b"$-1\r\n"  # a null bulk string
MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_FIRST_LINE_BYTES = 8 * 1024  # before the client has identified itself
_CODES = ("ERR", "MALFORMED")


class LineTooLong(Exception):
    """A line has more bytes than allowed, so the rest of the connection cannot be read."""


class LineReader:
    """Splits the bytes of a client into lines. A line may end with LF alone, as lenient clients send it."""

    def __init__(self, most: int = MAX_FIRST_LINE_BYTES) -> None:
        self.most = most  # bytes of a line
        self._bytes = bytearray()
        self._searched = 0  # up to here there is no end of a line

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def line(self) -> bytes | None:
        """The next line without its end; None if it is not complete yet. Raises LineTooLong."""
        end = self._bytes.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._bytes)
            if self._searched > self.most:
                raise LineTooLong
            return None
        if end > self.most:
            raise LineTooLong
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return line[:-1] if line.endswith(b"\r") else line

    @property
    def waiting(self) -> int:
        """The number of bytes that were received and not read yet."""
        return len(self._bytes)


def simple(text: str) -> bytes:
    """A simple string. The text must not contain line breaks."""
    return f"+{text}\r\n".encode()


def bulk(content: bytes) -> bytes:
    """A bulk string, which may contain anything."""
    return b"$%d\r\n%s\r\n" % (len(content), content)


def error(message: str, code: str = "ERR") -> bytes:
    """An error. Control characters in the message become spaces: it may quote what the client sent."""
    assert code in _CODES
    line = " ".join(printable(message.replace("\n", " ").replace("\r", " ")).split())
    return f"-{code} {line}\r\n".encode()
