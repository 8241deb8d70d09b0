"""Small WebAssembly modules for tests, written in the text format. No compiler is needed besides wasmtime's own.

The functions of WASI preview 1: https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest

_IMPORTS = {
    "fd_write": "i32 i32 i32 i32",
    "fd_read": "i32 i32 i32 i32",
    "args_sizes_get": "i32 i32",
    "args_get": "i32 i32",
    "environ_sizes_get": "i32 i32",
    "environ_get": "i32 i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
    "sock_accept": "i32 i32 i32",
    "poll_oneoff": "i32 i32 i32 i32",
    "fd_fdstat_get": "i32 i32",
}
_BUFFER, _TEXT = 65536, 1024  # places in the module's memory
CODE, TMPDIR, INPUT = 3, 4, 5  # descriptors of the folders of the sandbox

# Writes `$size` bytes at `$at` to a descriptor, and reads from a descriptor; 0 at the end.
_WORDS = """
  (func $write (param $fd i32) (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $size))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $read (param $fd i32) (result i32)
    (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 65536))
    (drop (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))
  (func $copy (param $fd i32) (local $size i32)
    (block $end (loop $again
      (br_if $end (i32.eqz (local.tee $size (call $read (local.get $fd)))))
      (call $write (i32.const 1) (i32.const 65536) (local.get $size)) (br $again))))
  (func $digits (param $number i32)
    (i32.store8 (i32.const 15) (i32.const 101))
    (i32.store8 (i32.const 16) (i32.add (i32.const 48) (i32.div_u (local.get $number) (i32.const 10))))
    (i32.store8 (i32.const 17) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
    (call $write (i32.const 1) (i32.const 15) (i32.const 3)))
"""


@cache
def module(
    body: str, text: bytes = b"", *, pages: int = 64, extra: str = "", imports: tuple[str, ...] = tuple(_IMPORTS)
) -> bytes:
    """A module whose `_start` is `body`. `text` is in the memory at 1024. `imports` includes fd_write and fd_read."""
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    imported = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {_IMPORTS[name]}) (result i32)))\n'
        for name in imports
    )
    escaped = "".join(f"\\{byte:02x}" for byte in text)
    source = f"""(module {imported}
      (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
      (memory (export "memory") {pages}) (data (i32.const {_TEXT}) "{escaped}") {_WORDS} {extra}
      (func (export "_start") (local $i i32) {body}))"""
    return bytes(wasmtime.wat2wasm(source))


def write(text: bytes, fd: int = 1, at: int = 0) -> str:
    return f"(call $write (i32.const {fd}) (i32.const {_TEXT + at}) (i32.const {len(text)}))"


def prints(stdout: bytes = b"", stderr: bytes = b"", code: int = 0, then: str = "") -> bytes:
    """Prints these texts and exits."""
    body = write(stdout) + write(stderr, 2, len(stdout)) + then
    return module(body + (f"(call $proc_exit (i32.const {code}))" if code else ""), stdout + stderr)


def prints_row(rows: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """Prints the stdout and stderr of a row, and exits with its code. The first variable, such as ROW=3, chooses it."""
    body, text = f"{_variables()} (local.set $i (i32.load8_u (i32.const {_BUFFER + 4})))", b""
    for number, (stdout, stderr, code) in enumerate(rows):
        body += f"(if (i32.eq (local.get $i) (i32.const {ord('0') + number})) (then "
        body += write(stdout, at=len(text)) + write(stderr, 2, len(text) + len(stdout))
        body += f"(call $proc_exit (i32.const {code}))))"
        text += stdout + stderr
    return module(body, text)


def _variables() -> str:
    """Reads the environment variables, each followed by a zero byte, into the buffer."""
    sizes = "(drop (call $environ_sizes_get (i32.const 0) (i32.const 4))) (local.set $i (i32.load (i32.const 4)))"
    return sizes + f"(drop (call $environ_get (i32.const 8192) (i32.const {_BUFFER})))"


def _print_buffer() -> str:
    return f"(call $write (i32.const 1) (i32.const {_BUFFER}) (local.get $i))"


def prints_variables() -> bytes:
    """Prints the environment variables, each followed by a zero byte."""
    return module(_variables() + _print_buffer())


def _arguments() -> str:
    sizes = "(drop (call $args_sizes_get (i32.const 0) (i32.const 4))) (local.set $i (i32.load (i32.const 4)))"
    return sizes + f"(drop (call $args_get (i32.const 8192) (i32.const {_BUFFER}))) {_print_buffer()}"


def prints_arguments() -> bytes:
    """Prints the arguments, each followed by a zero byte."""
    return module(_arguments())


def prints_stdin() -> bytes:
    return module("(call $copy (i32.const 0))")


def prints_inputs() -> bytes:
    """Prints the arguments, stdin and the file with the input, separated by zero bytes."""
    path = b"input.json"
    zero = f"(call $write (i32.const 1) (i32.const {_TEXT + len(path)}) (i32.const 1))"
    file = _open(INPUT, 0, len(path), 0, 2) + "(call $copy (i32.load (i32.const 32)))"
    return module(_arguments() + "(call $copy (i32.const 0))" + zero + file, path + bytes(1))


def opens(*files: tuple[int, bytes, bool], exclusive: bool = False) -> bytes:
    """Opens files of folders, with the right to write those that may be made, and prints error numbers: `e00e63`.

    Then accepts a connection on the first descriptor that a program could have inherited."""
    body, text = "", b""
    for folder, path, is_new in files:
        flags, rights = is_new + 4 * exclusive, 2 | (64 if is_new else 0)
        body += _open(folder, len(text), len(path), flags, rights, "(call $digits ")
        text += path
    return module(body + "(call $digits (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 32)))", text)


def opens_nothing() -> bytes:
    """A module that cannot open files. Prints an error number for the descriptor of each folder."""
    body = "".join(
        f"(call $digits (call $fd_fdstat_get (i32.const {fd}) (i32.const 32)))" for fd in (CODE, TMPDIR, INPUT)
    )
    return module(body, imports=("fd_write", "fd_read", "fd_fdstat_get"))


def remembers() -> bytes:
    """Prints a byte of the memory, of requested memory and of a text, and then changes all three."""
    places = (_BUFFER, 1_100_000, _TEXT)
    body = "(drop (memory.grow (i32.const 32)))"
    for place in places:
        body += f"(call $digits (i32.load8_u (i32.const {place}))) (i32.store8 (i32.const {place}) (i32.const 77))"
    return module(body, bytes([7]), pages=16)


def _open(folder: int, at: int, size: int, flags: int, rights: int, result: str = "(drop ") -> str:
    return (
        f"{result}(call $path_open (i32.const {folder}) (i32.const 0) (i32.const {_TEXT + at}) (i32.const {size})"
        f" (i32.const {flags}) (i64.const {rights}) (i64.const {rights}) (i32.const 0) (i32.const 32)))"
    )


def loops() -> bytes:
    return module("(loop $again (br $again))")


def sleeps() -> bytes:
    """Waits for an hour in a call of WASI, so not in code of the module."""
    clock = "(i32.store (i32.const 2048) (i32.const 0)) (i32.store8 (i32.const 2056) (i32.const 0))"
    length = "(i32.store (i32.const 2064) (i32.const 1)) (i64.store (i32.const 2072) (i64.const 3600000000000))"
    poll = "(drop (call $poll_oneoff (i32.const 2048) (i32.const 4096) (i32.const 1) (i32.const 0)))"
    return module(clock + length + poll)


def prints_endlessly(fd: int = 1) -> bytes:
    text = b"y" * 1023 + b"\n"
    return module(f"(loop $again {write(text, fd)} (br $again))", text)


def allocates(prints: bytes = b"") -> bytes:
    """Requests memory until there is no more, uses all of it, and then prints a text, or traps."""
    return module(
        "(block $end (loop $again (local.set $i (memory.grow (i32.const 16)))"
        " (br_if $end (i32.eq (local.get $i) (i32.const -1)))"
        " (memory.fill (i32.mul (local.get $i) (i32.const 65536)) (i32.const 1) (i32.const 1048576)) (br $again)))"
        + (write(prints) if prints else "unreachable"),
        prints,
    )


def traps() -> bytes:
    return module("unreachable")


def divides_by_zero() -> bytes:
    return module("(drop (i32.div_u (i32.const 1) (local.get $i)))")


def recurses() -> bytes:
    return module("(call $deeper)", extra="(func $deeper (call $deeper))")
