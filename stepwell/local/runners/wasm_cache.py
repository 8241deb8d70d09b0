"""Compiled WebAssembly modules: made once for a module and a version of wasmtime, and kept in a private folder.

A compiled module is native code. So a file in the cache is used only if no one but the server's user could write it.
A module is compiled in a process of its own, with limited memory and time, since compiling reads untrusted bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import stat
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

from stepwell.core.run.outcome import printable
from stepwell.local.runners.job import CannotRun
from stepwell.local.system.step_user import StepUser, python_for
from stepwell.project.extras import missing_for_wasm

FOLDER = ".compiled"  # in the folder of steps' code
_SETTINGS = "1"  # changes when `settings_for` of wasm_worker.py changes
_SUFFIX = ".cwasm"
_DAY_S = 24 * 3600.0
_UNUSED_S = 30 * _DAY_S  # files that were not used for so long are removed
_LONGEST_S = 120.0
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_INSTALL = "WebAssembly steps need wasmtime, which is not installed"
_SCRIPT = Path(__file__).with_name("wasm_worker.py")

Stamp = tuple[int, int, int]


class CompiledModules:
    def __init__(self, folder: Path | None, user: StepUser | None = None) -> None:
        """`folder` is made when it is needed; None, or if it cannot be made: a temporary one. `user` is the user that
        steps run as, if not the server's."""
        self._given, self._user = folder, user
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._known: dict[tuple[str, bool], tuple[Stamp, Path, Stamp]] = {}
        self._lock = threading.Lock()

    def find(self, module: Path, *, has_fuel: bool) -> Path | None:
        """The compiled module, if it is known and unchanged. Fast."""
        known = self._known.get((str(module), has_fuel))
        if known is None:
            return None
        source, compiled, stamp = known
        return compiled if source == _stamp(module) and stamp == _stamp(compiled) else None

    def make(self, module: Path, *, has_fuel: bool) -> Path:
        """The compiled module, compiled if needed. Call it in a thread. Raises CannotRun, OSError."""
        _check_installed(self._user)
        with self._lock:
            if found := self.find(module, has_fuel=has_fuel):
                return found
            folder = self._make_folder()
            compiled = folder / f"{_digest(module)}-{_environment(has_fuel)}{_SUFFIX}"
            if not _is_private(compiled):
                self._compile(module, compiled, has_fuel)
                _remove_unused(folder)
            with contextlib.suppress(OSError):
                if time.time() - compiled.lstat().st_mtime > _DAY_S:  # not each time, since other processes see it
                    os.utime(compiled)
            source, stamp = _stamp(module), _stamp(compiled)
            assert source is not None
            assert stamp is not None
            self._known[str(module), has_fuel] = source, compiled, stamp
            return compiled

    def _make_folder(self) -> Path:
        folder = self._given
        if folder is None or not _make_writable(folder):
            self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="stepwell-wasm-")
            folder = Path(self._temporary.name)
        if self._user is not None:
            folder.chmod(0o711)  # files are opened by their names
        value = folder.lstat()
        if not stat.S_ISDIR(value.st_mode) or value.st_uid != os.geteuid() or value.st_mode & _OTHERS_MAY_WRITE:
            raise CannotRun(f"others may write to {folder}; remove it, so that it is made again")
        return folder

    def close(self) -> None:
        """Removes a temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def _compile(self, module: Path, to: Path, has_fuel: bool) -> None:
        fuel = json.dumps(1 if has_fuel else None)
        command = [sys.executable, "-I", str(_SCRIPT), "compile", fuel, str(module)]
        descriptor, new = tempfile.mkstemp(dir=to.parent, prefix=".new-")  # with the mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                _run(command, file.fileno(), module.name)
                os.fchmod(file.fileno(), 0o600 if self._user is None else 0o644)
            os.replace(new, to)  # noqa: PTH105
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise


def _make_writable(folder: Path) -> bool:
    """Makes the folder if needed. Returns whether this user can write to it."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.access(folder, os.W_OK)


def _is_private(file: Path) -> bool:
    """Whether the file exists, and only this process's user could write it."""
    try:
        value = file.lstat()
    except OSError:
        return False
    is_own = stat.S_ISREG(value.st_mode) and value.st_uid == os.geteuid() and value.st_nlink == 1
    return is_own and not value.st_mode & _OTHERS_MAY_WRITE


def _remove_unused(folder: Path) -> None:
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - file.lstat().st_mtime > _UNUSED_S:
                file.unlink()


@cache
def _check_installed(user: StepUser | None) -> None:
    """Raises CannotRun if the Python that runs modules has no wasmtime."""
    if (missing := missing_for_wasm()) is not None:
        raise CannotRun(missing)
    if user is None or (python := python_for(user)) == sys.executable:
        return
    command = [python, "-I", "-c", "import wasmtime"]
    if subprocess.run(command, capture_output=True, check=False, cwd="/", **user.popen).returncode:
        raise CannotRun(f"{_INSTALL} for {python} of the user {user.name}; run {python} -m pip install wasmtime")


def _run(command: list[str], stdout: int, name: str) -> None:
    """Runs the compiler. Raises CannotRun with the reason, OSError."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "LANG": "C.UTF-8"},
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{name} was not compiled within {_LONGEST_S:g} s; make the module smaller") from None
    if done.returncode:
        problem = printable(done.stderr[-2000:].decode("utf-8", "replace")).strip()
        raise CannotRun(f"{name} cannot be compiled: {problem or f'exit code {done.returncode}'}")


def _stamp(file: Path) -> Stamp | None:
    """What changes when a file is written, replaced or opened to others."""
    try:
        value = os.lstat(file)
    except OSError:
        return None
    return value.st_ino, value.st_mtime_ns, value.st_mode


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@cache
def _environment(has_fuel: bool) -> str:
    """A hash of all that a compiled module depends on besides the module."""
    parts = (_SETTINGS, importlib.metadata.version("wasmtime"), platform.machine(), _processor(), str(has_fuel))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The features of the processor; empty if the system does not list them."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith(("flags", "Features")):
                return line
    return ""
