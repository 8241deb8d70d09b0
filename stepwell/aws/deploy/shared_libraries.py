"""Makes shared libraries smaller, for packages and layers: a Lambda loads them at each cold start."""

from __future__ import annotations

import struct

_TABLE, _ENTRIES = struct.Struct("<Q"), struct.Struct("<HH")
_SEGMENT = struct.Struct("<8xQ16xQ")  # the offset in the file, and the size there


def without_symbols(library: bytes) -> bytes:
    """A shared library without what follows its segments: sections that only debuggers and linkers read. Other files
    stay as they are. https://man7.org/linux/man-pages/man5/elf.5.html"""
    if library[:6] != b"\x7fELF\2\1":  # 64 bits, little-endian
        return library
    table, size, count = *_TABLE.unpack_from(library, 32), *_ENTRIES.unpack_from(library, 54)
    end = max(sum(_SEGMENT.unpack_from(library, table + i * size)) for i in range(count))
    head = bytearray(library[:end])
    _TABLE.pack_into(head, 40, 0)  # where the sections are
    _ENTRIES.pack_into(head, 60, 0, 0)  # how many there are, and which one has their names
    return bytes(head)
