"""Finds the WebAssembly module of a step, and checks that it is a WASI preview 1 command. Needs no WebAssembly runtime.

The binary format: https://webassembly.github.io/spec/core/binary/modules.html. What a command exports:
https://github.com/WebAssembly/WASI/blob/main/legacy/application-abi.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stepwell.core.run.module_outcome import DEFAULT_MEMORY
from stepwell.project.code import CodeError, StepCode

NAME = "main.wasm"
_WASI = "wasi_snapshot_preview1"
_MAGIC = b"\0asm"
_MODULE, _COMPONENT = b"\1\0\0\0", b"\x0d\0\1\0"
_IMPORTS, _MEMORIES, _EXPORTS = 2, 5, 7  # ids of sections
_FUNCTION, _MEMORY = 0, 2  # kinds of imports and exports
_PAGE = 64 * 1024
_LARGEST_SECTION = 16 * 1024 * 1024
_BUILD = "build it for WASI preview 1, for example with GOOS=wasip1 GOARCH=wasm go build, or the target wasm32-wasip1"


def find_module(code: StepCode, wanted: str | None) -> str:
    """The path of the step's module in the code. `wanted` is the field `module`. Raises CodeError."""
    names = {file.path for file in code.files}
    if code.file is not None:
        if not code.file.endswith(".wasm"):
            raise CodeError(f"{code.folder / code.file} is not a .wasm file; {_BUILD}")
        return code.file
    if wanted is not None:
        if wanted not in names:
            raise CodeError(f"there is no file {wanted} in {code.folder}; build it, or correct `module`")
        return wanted
    found = sorted(name for name in names if name.endswith(".wasm") and "/" not in name)
    if NAME in found:
        return NAME
    if len(found) == 1:
        return found[0]
    if found:
        raise CodeError(f"{code.folder} has several modules ({', '.join(found[:5])}); name one with `module`")
    raise CodeError(f"found no {NAME} in {code.folder}; {_BUILD}")


def check_module(file: Path, memory: int | None) -> None:
    """Checks that the file is a command that `memory` MB are enough to start. Raises CodeError with the fix."""
    try:
        with file.open("rb") as content:
            _check(content, file.name, memory or DEFAULT_MEMORY)
    except _Damaged:
        raise CodeError(f"{file.name} is damaged: its sections cannot be read; {_BUILD}") from None


def _check(content: BinaryIO, name: str, memory: int) -> None:
    magic, version = content.read(4), content.read(4)
    if magic != _MAGIC:
        raise CodeError(f"{name} is not a WebAssembly module; {_BUILD}")
    if version == _COMPONENT:
        raise CodeError(f"{name} is a component (WASI preview 2), and a step is a module; {_BUILD}")
    if version != _MODULE:
        raise CodeError(f"{name} has a version of WebAssembly that is not supported; {_BUILD}")
    exports: dict[str, int] = {}
    for section, reader in _sections(content):
        if section == _IMPORTS:
            _check_imports(reader, name)
        elif section == _MEMORIES:
            _check_memory(reader, name, memory)
        else:
            exports = dict(_exports(reader))
    if exports.get("_start") != _FUNCTION:
        raise CodeError(f"{name} exports no function _start, so it is a library; build a program with a main function")
    if exports.get("memory") != _MEMORY:
        raise CodeError(f"{name} does not export its memory, which WASI needs; {_BUILD}")


def _check_imports(reader: _Reader, name: str) -> None:
    for _ in range(reader.number()):
        module, field = reader.text(), reader.text()
        if module != _WASI:
            raise CodeError(f"{name} imports {module[:100]}.{field[:100]}, and steps have only {_WASI}; {_BUILD}")
        if reader.byte() != _FUNCTION:
            raise CodeError(f"{name} imports {field[:100]}, which is not a function of {_WASI}; {_BUILD}")
        reader.number()


def _check_memory(reader: _Reader, name: str, memory: int) -> None:
    for _ in range(reader.number()):
        reader.byte()  # flags
        if (smallest := reader.number() * _PAGE) > memory * 1024 * 1024:
            raise CodeError(
                f"{name} needs {smallest / 1024 / 1024:g} MB at the start, more than its maximum of {memory} MB;"
                " raise `memory` in the runtime"
            )
        return  # a second memory is refused when the module is compiled


def _exports(reader: _Reader) -> Iterator[tuple[str, int]]:
    for _ in range(reader.number()):
        name, kind = reader.text(), reader.byte()
        reader.number()
        yield name, kind


# --- the binary format -----------------------------------------------------------------------------------------------


class _Damaged(Exception):
    """The module ends too early, or a number is not valid."""


@dataclass(slots=True)
class _Reader:
    """Reads the content of a section."""

    content: bytes
    at: int = 0

    def byte(self) -> int:
        self.at += 1
        if self.at > len(self.content):
            raise _Damaged
        return self.content[self.at - 1]

    def number(self) -> int:
        """An unsigned number in LEB128, of at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                return value
        raise _Damaged

    def text(self) -> str:
        size = self.number()
        if size > len(self.content) - self.at:
            raise _Damaged
        self.at += size
        return self.content[self.at - size : self.at].decode("utf-8", "replace")


def _sections(content: BinaryIO) -> Iterator[tuple[int, _Reader]]:
    """The sections that are checked. Others, such as the code, are skipped."""
    while kind := content.read(1):
        head = _Reader(content.read(10))
        size = head.number()
        content.seek(head.at - len(head.content), 1)
        if kind[0] not in (_IMPORTS, _MEMORIES, _EXPORTS):
            content.seek(size, 1)
            continue
        text = content.read(min(size, _LARGEST_SECTION))
        if len(text) < size:
            raise _Damaged
        yield kind[0], _Reader(text)
