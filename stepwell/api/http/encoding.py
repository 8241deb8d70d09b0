"""Decompresses request bodies (`content-encoding`, RFC 9110, 8.4), up to a limit of size."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from stepwell.api.http.problem import Problem

ACCEPTED = "gzip, deflate"
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # zlib detects which of the two it is
_RAW = -zlib.MAX_WBITS  # some senders use "deflate" for streams without a zlib header


def decoded_body(headers: Mapping[str, str], body: bytes, most: int) -> bytes:
    """The body without content encoding. Header names must be in lower case.

    Raises Problem 400 if the body does not have the encoding of the header, 413 if the result has more than `most`
    bytes, and 415 for an unsupported encoding.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        message = f"the content encoding {encoding[:50]!r} is not supported; use {ACCEPTED}, or none"
        raise Problem(415, message, {"accept-encoding": ACCEPTED})
    try:
        if encoding == "deflate" and not _is_zlib(body):
            return _inflated(body, _RAW, most)
        return _inflated(body, _GZIP_OR_ZLIB, most)
    except zlib.error as error:
        raise Problem(
            400, f"the body is not valid {encoding}, which the content-encoding header names: {error}"
        ) from None


def _is_zlib(body: bytes) -> bool:
    """Checks the zlib header of RFC 1950: the compression method and a checksum."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0


def _inflated(body: bytes, form: int, most: int) -> bytes:
    """The decompressed bytes. A gzip body may consist of several streams (RFC 1952, 2.2)."""
    pieces, size = [], 0
    while body:
        stream = zlib.decompressobj(form)
        piece = stream.decompress(body, most - size + 1)
        size += len(piece)
        if size > most:
            raise Problem(413, f"the decompressed request has more than {most:,} bytes; send several requests")
        if not stream.eof:
            raise zlib.error("the data ends too early")
        pieces.append(piece)
        body = stream.unused_data.lstrip(b"\0") if form == _GZIP_OR_ZLIB else b""
    return b"".join(pieces)
