"""The process that runs WebAssembly modules: `python wasm_worker.py FD TASK`.

`python wasm_worker.py compile FUEL MODULE` compiles a module, and writes the result to stdout. Both use nothing but the
standard library and wasmtime.

TASK is a JSON object: `code` (a folder), `module` (a path in it), `compiled` (a file, or null), `memory` (bytes) and
`fuel` (a number, or null). The module's variables are those of this process that begin with `STEP_`. So none of them
affects this process.

Protocol on the socket FD: a request is `>IQ` (length, milliseconds left) and the input. An answer is `>Ic` (length,
kind) and a text. The kinds are: x, the exit code and the bytes of memory; t, the bytes of memory and a trap; f, the
fuel is used up; s, the module cannot be started.
"""

# ruff: noqa: PTH100, PTH102, PTH120, PTH123 (plain calls: this runs for every attempt)

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wasmtime  # isort: skip
from wasmtime import (  # isort: skip (the next module removes this folder from the path)
    Config,
    Engine,
    FuncType,
    Linker,
    Memory,
    Module,
    Store,
    Trap,
    TrapCode,
    ValType,
    WasiConfig,
    WasmtimeError,
)

import python_worker as worker  # type: ignore[import-not-found]  # isort: skip

WASI = "wasi_snapshot_preview1"
PREFIX = "STEP_"
MB = 1024 * 1024
BESIDE_MEMORY = 512 * MB  # data of this process besides the module's memory
TO_COMPILE = 4096 * MB
OPEN_FILES = 256
TABLES, TABLE_ELEMENTS = 8, 1_000_000
LARGEST_INSTANCE = 64 * MB  # of what wasmtime keeps about one, besides memory and tables
ADDRESSABLE = 4096 * MB  # by a module
LARGEST_ARGUMENT = 96 * 1024  # as for programs
api: Any = getattr(wasmtime, "_bindings", None)  # wasmtime's C API: the package has no methods for some functions
INPUT = "/stepwell/input.json"  # in the sandbox
HAS_STDIN = hasattr(api, "wasi_config_set_stdin_bytes")
FILES = ("fd_prestat_get", "fd_prestat_dir_name", "fd_readdir")  # what can reach a folder, besides `path_...`


class Left(Exception):
    """The module has called `proc_exit`."""

    def __init__(self, code: int) -> None:
        self.code = code & 0xFFFFFFFF


def leave(code: int) -> None:
    """Replaces wasmtime's `proc_exit`, which refuses exit codes above 125."""
    raise Left(code)


def settings_for(fuel: object) -> Config:
    """What a module is compiled with. It can be used only with the same: see _SETTINGS of `wasm_cache.py`."""
    config = Config()
    config.consume_fuel = fuel is not None
    config.wasm_threads = False
    return config


def pool_memory(config: Config, memory: int) -> None:
    """Lets the engine map the memory of an instance once, instead of for every attempt. wasmtime resets it after each
    instance. `memory`: the limit in bytes. The pool does not change what a module is compiled to.

    https://docs.rs/wasmtime/latest/wasmtime/struct.PoolingAllocationConfig.html"""
    try:
        pool = api.wasmtime_pooling_allocation_config_new()
        for name, value in (
            ("total_core_instances", 1),
            ("max_core_instance_size", LARGEST_INSTANCE),
            ("total_memories", 1),
            ("max_memory_size", min(memory, ADDRESSABLE)),
            ("total_tables", TABLES),
            ("max_tables_per_module", TABLES),
            ("table_elements", TABLE_ELEMENTS),
            ("total_stacks", 0),
            ("total_gc_heaps", 0),
        ):
            getattr(api, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
        api.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
        api.wasmtime_pooling_allocation_config_delete(pool)
    except AttributeError:  # attempts only take longer
        pass


def limit_process(memory: int) -> None:
    """Bounds what this process can use, beside the limits that wasmtime keeps."""
    for kind, most in (
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, memory),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard < 0 else min(most, hard)
        try:
            resource.setrlimit(kind, (limit, limit))
        except (OSError, ValueError):  # some systems have no such limit
            pass
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # the kernel kills this process, not the server
            file.write("1000")
    except OSError:
        pass


def compile_module(path: str, fuel: object) -> None:
    limit_process(TO_COMPILE)
    try:
        compiled = Module.from_file(Engine(settings_for(fuel)), path).serialize()
    except WasmtimeError as error:
        sys.exit(str(error))
    with os.fdopen(1, "wb") as to:
        to.write(compiled)


class Sandbox:
    """The module, and what all attempts have in common."""

    def __init__(self, task: dict) -> None:  # type: ignore[type-arg]
        self.code, self.name, self.memory, self.fuel = (task[name] for name in ("code", "module", "memory", "fuel"))
        self.env = [(name[len(PREFIX) :], value) for name, value in os.environ.items() if name.startswith(PREFIX)]
        self.env += [("TMPDIR", "/tmp"), ("STEPWELL_INPUT", INPUT)]
        settings = settings_for(self.fuel)
        pool_memory(settings, self.memory)
        self.engine = Engine(settings)
        module = self.load(task["compiled"])
        names = [item.name or "" for item in module.imports]
        self.has_files = any(name in FILES or name.startswith("path_") for name in names) or not HAS_STDIN
        self.linker = Linker(self.engine)
        self.linker.define_wasi()
        self.linker.allow_shadowing = True
        self.linker.define_func(WASI, "proc_exit", FuncType([ValType.i32()], []), leave)
        self.linked = self.linker.instantiate_pre(module)

    def load(self, compiled: str | None) -> Module:
        if compiled is not None:
            try:
                return Module.deserialize_file(self.engine, compiled)
            except WasmtimeError:  # made by another version, or for another processor: compile it here
                pass
        return Module.from_file(self.engine, self.code + "/" + self.name)

    def run(self, content: bytes, inputs: str, tmp: str) -> tuple[bytes, str]:
        """Runs the module once. `inputs` is the folder of `input.json`, which has the same content if the module has
        files.

        Returns the kind and text of the answer."""
        store = Store(self.engine)
        memory: object = None
        try:
            store.set_limits(self.memory, TABLE_ELEMENTS, instances=1, tables=TABLES, memories=1)
            if self.fuel is not None:
                store.set_fuel(self.fuel)
            store.set_wasi(self.wasi(content, inputs, tmp))
            code = 0
            try:
                exports = self.linked.instantiate(store).exports(store)
                memory = exports["memory"]
                exports["_start"](store)
            except Left as left:
                code = left.code
            except Trap as trap:
                return self.trapped(trap, used(memory, store))
            except (WasmtimeError, KeyError) as error:
                if memory is None:
                    return b"s", f"the module cannot be started: {error}"
                return b"t", f"{used(memory, store)} {last_line(str(error))}"
            return b"x", f"{code} {used(memory, store)}"
        finally:
            store.close()

    def wasi(self, content: bytes, inputs: str, tmp: str) -> WasiConfig:
        """What the module sees: `/` is the code, `/tmp` is TMPDIR, and `/stepwell` contains the input."""
        config = WasiConfig()
        config.argv = [self.name, content.decode() if len(content) <= LARGEST_ARGUMENT else "@" + INPUT]
        config.env = self.env
        set_stdin(config, content, inputs + "/input.json")
        config.inherit_stdout()
        config.inherit_stderr()
        if not self.has_files:
            return config
        config.preopen_dir(self.code, "/", False)
        config.preopen_dir(tmp, "/tmp", True)
        config.preopen_dir(inputs, "/stepwell", False)
        return config

    def trapped(self, trap: Trap, memory: int) -> tuple[bytes, str]:
        text = str(trap)
        if self.fuel is not None and trap.trap_code == TrapCode.OUT_OF_FUEL:
            return b"f", ""
        os.write(2, text.encode("utf-8", "replace")[:16384] + b"\n")
        return b"t", f"{memory} {last_line(text)}"


def set_stdin(config: WasiConfig, content: bytes, file: str) -> None:
    """Sets what the module reads from stdin: bytes in memory, which takes half as long as a file.

    https://docs.wasmtime.dev/c-api/wasi_8h.html"""
    if not HAS_STDIN:
        config.stdin_file = file
        return
    vector = api.wasm_byte_vec_t()
    array = (ctypes.c_uint8 * len(content)).from_buffer_copy(content)
    api.wasm_byte_vec_new(ctypes.byref(vector), len(content), array)
    api.wasi_config_set_stdin_bytes(config.ptr(), ctypes.byref(vector))  # which frees the bytes


def used(memory: object, store: Store) -> int:
    """The size of the module's memory in bytes."""
    return memory.data_len(store) if isinstance(memory, Memory) else 0


def last_line(text: str) -> str:
    lines = text.split("\n\nStack")[0].strip().splitlines() or [""]
    return lines[-1].strip()[:500]


def serve(sandbox: Sandbox, channel: int, folder: str) -> None:
    """Answers the requests of the server. `folder` is TMPDIR of this process."""
    inputs, tmp = folder + "/input", folder + "/tmp"
    file = -1
    if sandbox.has_files:
        for path in (inputs, tmp):
            os.mkdir(path, 0o700)
        file = os.open(inputs + "/input.json", os.O_WRONLY | os.O_CREAT, 0o600)
    while (content := receive(channel)) is not None:
        if sandbox.has_files:
            write_input(file, content)
        kind, text = sandbox.run(content, inputs, tmp)
        worker.answer(channel, kind, text.encode("utf-8", "replace")[: worker.LONGEST_ERROR])
        if kind == b"s" or (sandbox.has_files and not worker.empty(tmp)):
            return


def receive(channel: int) -> bytes | None:
    """The input of the next attempt; None if the server is gone."""
    head = worker.receive(channel, worker.REQUEST.size)
    if len(head) < worker.REQUEST.size:
        return None
    content: bytes = worker.receive(channel, worker.REQUEST.unpack(head)[0])
    return content


def write_input(file: int, content: bytes) -> None:
    """Replaces the content of the file. To empty it first would free its blocks, which takes some disks 1 ms."""
    left = memoryview(content)
    while left:
        left = left[os.pwrite(file, left, len(content) - len(left)) :]
    os.ftruncate(file, len(content))


def open_sandbox(task: dict) -> tuple[Sandbox | None, str]:  # type: ignore[type-arg]
    """The sandbox, or None and the reason."""
    limit_process(task["memory"] + BESIDE_MEMORY)
    try:
        return Sandbox(task), ""
    except (OSError, WasmtimeError) as error:
        return None, f"the module cannot be started: {error}"


def main() -> None:
    if sys.argv[1] == "compile":
        compile_module(sys.argv[3], json.loads(sys.argv[2]))
        return
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)
    sandbox, problem = open_sandbox(json.loads(sys.argv[2]))
    if sandbox is not None:
        serve(sandbox, channel, os.environ["TMPDIR"])
    elif receive(channel) is not None:
        worker.answer(channel, b"s", problem.encode("utf-8", "replace")[: worker.LONGEST_ERROR])


if __name__ == "__main__":
    main()
