"""Bodies that were sent compressed (`content-encoding`, RFC 9110, 8.4): what they unfold to is bounded."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from stepwell.api.http.problem import Problem

ACCEPTED = "gzip, deflate"
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # zlib tells them apart by their headers
_RAW = -zlib.MAX_WBITS  # what some senders call deflate


def decoded_body(headers: Mapping[str, str], body: bytes, most: int) -> bytes:
    """The body without its content encoding; names of headers are in small letters. Raises Problem 400 if it is not
    what its header says, 413 if it has more than `most` bytes then, 415 for an encoding that is not read here."""
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        message = f"the content encoding {encoding[:50]!r} is not read here; send {ACCEPTED}, or the body as it is"
        raise Problem(415, message, {"accept-encoding": ACCEPTED})
    try:
        if encoding == "deflate" and not _is_zlib(body):
            return _inflated(body, _RAW, most)
        return _inflated(body, _GZIP_OR_ZLIB, most)
    except zlib.error as error:
        raise Problem(400, f"the body is not {encoding}, as its content-encoding says: {error}") from None


def _is_zlib(body: bytes) -> bool:
    """By the header that RFC 1950 gives it: a method, and a checksum."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0


def _inflated(body: bytes, form: int, most: int) -> bytes:
    """All that it unfolds to; gzip may have several parts, each a stream of its own (RFC 1952, 2.2)."""
    pieces, size = [], 0
    while body:
        stream = zlib.decompressobj(form)
        piece = stream.decompress(body, most - size + 1)
        size += len(piece)
        if size > most:
            raise Problem(413, f"a request may have {most:,} bytes, also once it is decompressed; send several")
        if not stream.eof:
            raise zlib.error("it ends too early")
        pieces.append(piece)
        body = stream.unused_data.lstrip(b"\0") if form == _GZIP_OR_ZLIB else b""
    return b"".join(pieces)
