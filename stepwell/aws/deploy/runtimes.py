"""Chooses the Lambda runtime and the processor architecture of a step, by the command that starts the step.

Programs that cannot start on Lambda are rejected before anything is uploaded. The error message contains the fix.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from stepwell.project.code import StepCode

PYTHON, NODE, NATIVE = "python3.13", "nodejs22.x", "provided.al2023"
_DOCKER = "use runtime docker, which runs any image"
_INTERPRETERS = {
    "python": PYTHON,
    "python3": PYTHON,
    "python3.13": PYTHON,
    "node": NODE,
    "nodejs": NODE,
    "sh": NATIVE,
    "bash": NATIVE,
}
_SYSTEM = frozenset({"/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"})  # the same path on Lambda
_MACHINES = {62: "x86_64", 183: "arm64"}  # e_machine of an ELF header (System V ABI)
_FOREIGN = {b"\xcf\xfa\xed\xfe": "macOS", b"\xca\xfe\xba\xbe": "macOS", b"MZ": "Windows"}


class PackagingError(Exception):
    """A step cannot be packaged for AWS. The message gives the reason and the fix."""


def program_runtime(command: Sequence[str], code: StepCode) -> str:
    """The runtime on which this command runs in the step's folder. Raises PackagingError."""
    name = command[0]
    if "/" in name and name not in _SYSTEM:
        return _file_runtime(name, code)
    runtime = _INTERPRETERS.get(os.path.basename(name))  # noqa: PTH119 (no path of this machine)
    if runtime is None:
        known = ", ".join(_INTERPRETERS)
        raise PackagingError(
            f"Lambda has no program {name!r}; it has {known}; put the program in the step's folder, or {_DOCKER}"
        )
    return runtime


def handler_runtime(file: Path) -> str:
    return PYTHON if file.suffix == ".py" else NODE


def check_interpreter(runtime: str, code: StepCode) -> None:
    """Raises PackagingError if the code contains a virtual environment, which works only where it was created."""
    if runtime == PYTHON and any(file.path.startswith(".venv/") for file in code.files):
        raise PackagingError(
            "a .venv works only on the machine that created it; install dependencies with"
            f" `pip install --target .`, and exclude .venv in .stepwellignore, or {_DOCKER}"
        )


def architecture(command: Sequence[str] | None, code: StepCode, wanted: str | None) -> str:
    """The step's processor architecture: `wanted`, else that of the binaries in the code, else arm64, the cheaper one.

    Raises PackagingError if the program is built for another architecture than `wanted`.
    """
    if command and "/" in command[0] and command[0] not in _SYSTEM:
        own = _machine(code.folder / command[0])
        if own is not None and wanted is not None and own != wanted:
            raise PackagingError(f"{command[0]} is built for {own}, but the step requests {wanted}; change one of them")
    else:
        own = None
    if wanted or own:
        return wanted or own or ""
    found = {_machine(code.folder / file.path) for file in code.files if file.kind != "l"} - {None}
    return "x86_64" if found == {"x86_64"} else "arm64"


def _file_runtime(name: str, code: StepCode) -> str:
    """The runtime for a program in the step's code. Raises PackagingError."""
    relative = os.path.normpath(name)
    if relative not in {file.path for file in code.files}:
        where = "is not in the step's folder" if name.startswith("/") else "is not a file of the step's code"
        raise PackagingError(f"{name} {where}; correct the command, or {_DOCKER}")
    path = code.folder / relative
    if not path.stat().st_mode & stat.S_IXUSR:
        raise PackagingError(f"{name} is not executable; run chmod +x on it")
    start = _start(path, 256)
    if start.startswith(b"\x7fELF"):
        if _machine(path) is None:
            raise PackagingError(f"{name} is built for an unsupported processor; build it for x86_64 or arm64")
        return NATIVE
    for magic, system in _FOREIGN.items():
        if start.startswith(magic):
            raise PackagingError(f"{name} is a program for {system}; build it for Linux")
    if not start.startswith(b"#!"):
        raise PackagingError(f"{name} is neither a Linux program nor a script; add a first line such as #!/bin/sh")
    return _script_runtime(name, start[2:].partition(b"\n")[0].decode(errors="replace").split())


def _script_runtime(name: str, shebang: list[str]) -> str:
    interpreter = shebang[0] if shebang else ""
    if interpreter in _SYSTEM:
        return NATIVE
    if interpreter == "/usr/bin/env":
        words = [word for word in shebang[1:] if not word.startswith("-")]
        runtime = _INTERPRETERS.get(words[0]) if words else None
        if runtime is not None:
            return runtime
    elif runtime := _INTERPRETERS.get(os.path.basename(interpreter)):  # noqa: PTH119
        short = "python3" if runtime == PYTHON else "node"
        raise PackagingError(f"{name} begins with #!{interpreter}, which Lambda lacks; write #!/usr/bin/env {short}")
    raise PackagingError(f"{name} begins with #!{' '.join(shebang)}, but Lambda has no such interpreter; {_DOCKER}")


def _machine(path: Path) -> str | None:
    """The processor that a binary is built for; None if the file is not a binary that Lambda can run."""
    start = _start(path, 20)
    if len(start) < 20 or not start.startswith(b"\x7fELF"):
        return None
    return _MACHINES.get(int.from_bytes(start[18:20], "little" if start[5] == 1 else "big"))


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)
