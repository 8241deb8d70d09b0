"""A step's WebAssembly module is found and checked when the function is loaded, without a WebAssembly runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.project.load import LoadError, load
from tests.wasm import modules

GOOD = b"\0asm\1\0\0\0"
WASI = '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))'


def text(source: str) -> bytes:
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    return bytes(wasmtime.wat2wasm(f"(module {source})"))


def write(folder: Path, files: dict[str, bytes], path: str = "file://step", **runtime: Any) -> Path:
    definition = {
        "id": "f",
        "triggers": [{"event": "go"}],
        "steps": {"a": {"path": path, "runtime": {"type": "wasm", **runtime}}},
    }
    (folder / "stepwell.json").write_text(json.dumps(definition))
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def problem(folder: Path) -> str:
    with pytest.raises(LoadError) as refused:
        load(folder)
    (found,) = refused.value.problems
    return found.message


@pytest.mark.parametrize(
    ("names", "path", "module", "found"),
    [
        (["step/main.wasm", "step/other.wasm"], "file://step", None, "main.wasm"),
        (["step/only.wasm", "step/readme.txt"], "file://step", None, "only.wasm"),
        (["step/main.wasm", "step/build/other.wasm"], "file://step", "build/other.wasm", "build/other.wasm"),
        (["step/it.wasm", "step/other.wasm"], "file://step/it.wasm", None, "it.wasm"),
    ],
)
def test_the_module_is_found(tmp_path: Path, names: list[str], path: str, module: str | None, found: str) -> None:
    content = modules.prints(b"1")
    function = load(write(tmp_path, dict.fromkeys(names, content), path, module=module))
    assert function.normalised()["steps"]["a"]["runtime"] == {"type": "wasm", "module": found}


@pytest.mark.parametrize(
    ("names", "path", "module", "expected"),
    [
        (["step/readme.txt"], "file://step", None, "found no main.wasm in"),
        (
            ["step/a.wasm", "step/b.wasm"],
            "file://step",
            None,
            "several modules (a.wasm, b.wasm); name one with `module`",
        ),
        (["step/a.wasm"], "file://step", "b.wasm", "there is no file b.wasm in"),
        (["step/main.py"], "file://step/main.py", None, "main.py is not a .wasm file"),
    ],
)
def test_a_step_without_a_module_is_refused(
    tmp_path: Path, names: list[str], path: str, module: str | None, expected: str
) -> None:
    assert expected in problem(write(tmp_path, dict.fromkeys(names, b"x"), path, module=module))


def test_a_command_of_wasi_preview_1_is_accepted(tmp_path: Path) -> None:
    source = f'{WASI} (memory (export "memory") 1) (func (export "_start"))'
    assert load(write(tmp_path, {"step/main.wasm": text(source)})).modules == {"a": "main.wasm"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('(memory (export "memory") 1)', "exports no function _start, so it is a library"),
        ('(func (export "_start"))', "does not export its memory"),
        ('(import "env" "abort" (func)) (func (export "_start"))', "imports env.abort, and steps have only wasi_snap"),
        ('(import "wasi_unstable" "fd_write" (func))', "imports wasi_unstable.fd_write"),
        ('(import "wasi_snapshot_preview1" "memory" (memory 1))', "imports memory, which is not a function"),
        (
            '(memory (export "memory") 8000) (func (export "_start"))',
            "needs 500 MB at the start, more than its maximum",
        ),
    ],
)
def test_a_module_that_cannot_run_is_refused(tmp_path: Path, source: str, expected: str) -> None:
    assert expected in problem(write(tmp_path, {"step/main.wasm": text(source)}))


def test_a_large_module_is_accepted_if_its_memory_is_large_enough(tmp_path: Path) -> None:
    content = text('(memory (export "memory") 8000) (func (export "_start"))')
    load(write(tmp_path, {"step/main.wasm": content}, memory=500))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a WebAssembly module"),
        (b"#!/bin/sh\n", "is not a WebAssembly module"),
        (b"\0asm\x0d\0\1\0", "is a component (WASI preview 2), and a step is a module"),
        (b"\0asm\2\0\0\0", "has a version of WebAssembly that is not supported"),
        (GOOD, "exports no function _start"),
        (GOOD + b"\2", "is damaged"),
        (GOOD + b"\2\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "is damaged"),
        (GOOD + b"\2\xff\xff\xff\x7f", "is damaged"),
        (GOOD + b"\2\x05\xff\xff\xff\x7fx", "is damaged"),
        (GOOD + b"\7\x01\x05", "is damaged"),
        (GOOD + b"\1\xff\xff\xff\xff\x0f", "exports no function _start"),  # a section that ends after the file
    ],
)
def test_bytes_that_are_no_module_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in problem(write(tmp_path, {"step/main.wasm": content}))
