"""Splits received HTTP/2 data into frames and limits them, before `h2` parses them.

`h2` buffers frames of any announced size, and does not limit how often a client sends frames that have no effect.
"""

from __future__ import annotations

from collections.abc import Callable

from h2.errors import ErrorCodes

from stepwell.local.http.preface import PREFACE
from stepwell.local.http.rate_limit import Allowance

MOST_HEADER_BYTES = 64 * 1024  # of a compressed header block

_HEAD_BYTES = 9  # of a frame's header: length, type, flags, stream (RFC 9113, 4.1)
_MOST_FRAME_BYTES = 16_384
_SMALL_PIECE = 256  # bytes of a DATA frame
_DATA, _HEADERS, _RST_STREAM, _CONTINUATION = 0, 1, 3, 9
_END_STREAM = 1


class TooMuch(Exception):
    """The client has exceeded a limit. `code` is the error code of the connection's end."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code.name)
        self.code = code


class Frames:
    """Received data, taken frame by frame."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._received = bytearray()
        self._is_preface_read = False
        self._header_bytes = 0
        self.resets = Allowance(now, burst=200, per_s=20)
        self._idle = Allowance(now, burst=1000, per_s=100)  # PING, SETTINGS, WINDOW_UPDATE and similar frames
        self._small_pieces = Allowance(now, burst=50_000, per_s=5_000)

    def add(self, data: bytes) -> None:
        self._received += data

    def clear(self) -> None:
        self._received.clear()

    def take(self) -> bytes | None:
        """The preface first, then the next frame; None if it is incomplete. Raises TooMuch."""
        received = self._received
        if not self._is_preface_read:
            size = len(PREFACE)
        elif len(received) < _HEAD_BYTES:
            return None
        else:
            size = _HEAD_BYTES + int.from_bytes(received[:3], "big")
            if size > _HEAD_BYTES + _MOST_FRAME_BYTES:
                raise TooMuch(ErrorCodes.FRAME_SIZE_ERROR)
        if len(received) < size:
            return None
        frame = bytes(received[:size])
        del received[:size]
        if self._is_preface_read and not self._is_allowed(frame[3], frame[4], size - _HEAD_BYTES):
            raise TooMuch(ErrorCodes.ENHANCE_YOUR_CALM)
        self._is_preface_read = True
        return frame

    def allow_for_request(self) -> None:
        """Allows the frames, such as WINDOW_UPDATE, that usually accompany a request."""
        self._idle.give(10)

    def _is_allowed(self, kind: int, flags: int, size: int) -> bool:
        if kind == _HEADERS:
            self._header_bytes = size
        elif kind == _CONTINUATION:
            self._header_bytes += size
            return self._header_bytes <= MOST_HEADER_BYTES and self._idle.take()
        elif kind == _RST_STREAM:
            return self.resets.take()
        elif kind != _DATA or (size == 0 and not flags & _END_STREAM):
            return self._idle.take()
        elif size < _SMALL_PIECE:
            return self._small_pieces.take()
        return True
