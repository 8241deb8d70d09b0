"""Chooses the interpreter that a Python worker is forked from, or none.

A forked worker must behave like a new process. So a step with variables that take effect only when a process starts
gets a new process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from stepwell.local.runners.fork_server import ForkServer, can_fork
from stepwell.local.runners.scratch import Folder, Scratch
from stepwell.local.runners.worker_command import python_command, spawn

_PREFIXES = ("PYTHON", "LD_", "LC_", "MALLOC_", "GLIBC_")  # read at the start by the interpreter, the linker or libc
_NAMES = frozenset({"HOME", "LANG", "LANGUAGE"})
_BASE = ("PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE", "TMPDIR")  # variables that the interpreter gets too
_MOST = 16
_logger = logging.getLogger("stepwell.runners")

Key = tuple[str, str]


class Interpreters:
    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._servers: dict[Key, tuple[ForkServer, Folder]] = {}
        self.wanted: dict[Key, tuple[Mapping[str, str], Path]] = {}
        self._used_once: set[Key] = set()
        self._unforkable: set[Key] = set()
        self._can_fork = can_fork()
        self._all_gone = asyncio.Event()

    def find(
        self, python: str, code: Path, env: Mapping[str, str], own: Mapping[str, str], scripts: Path
    ) -> ForkServer | None:
        """The fork server for a worker; None if there is none, or it is not ready. `start_wanted` then starts one for
        later workers. `env` are all variables of the worker, `own` those that the step declares."""
        if not self._can_fork or any(name in _NAMES or name.startswith(_PREFIXES) for name in own):
            return None
        key = python, env["PATH"]
        if key in self._unforkable:
            return None
        if key not in self._servers:
            if not Path(python).is_relative_to(code) or key in self._used_once:
                self.wanted[key] = env, scripts
            self._used_once.add(key)  # an interpreter of the step's own code may never get a second worker
            return None
        server, _ = self._servers[key]
        return server if server.is_ready else None

    def start_wanted(self) -> None:
        """Starts missing fork servers. Call it after a worker has started, which it would slow down."""
        while self.wanted:
            key, (env, scripts) = self.wanted.popitem()
            self._start(key, env, scripts)

    def _start(self, key: Key, env: Mapping[str, str], scripts: Path) -> None:
        if len(self._servers) >= _MOST:
            self._stop_unused()  # so that there is room next time
            return
        try:
            folder = self._scratch.new()
        except OSError:  # disk full: workers start as new processes
            return
        variables = {name: env[name] for name in _BASE} | {"TMPDIR": folder.tmp}
        command = python_command(key[0], scripts / "python_fork_server.py")
        launch = partial(spawn, command, "/", variables, self._scratch.user)
        try:
            server = ForkServer(launch, partial(self._gone, key))
        except OSError:
            self._scratch.remove(folder)
            return
        self._servers[key] = server, folder
        self._all_gone.clear()

    def _stop_unused(self) -> None:
        """Stops the least recently used fork server without children."""
        unused = [server for server, _ in self._servers.values() if not server.children]
        if unused:
            min(unused, key=lambda server: server.used_at).kill()

    def _gone(self, key: Key, server: ForkServer) -> None:
        _, folder = self._servers.pop(key)
        self._scratch.remove(folder)
        if not (server.was_ready or server.is_doomed):
            self._unforkable.add(key)
            _logger.info("%s cannot be forked: handlers start as new processes", key[0])
        if not self._servers:
            self._all_gone.set()

    def sweep(self, moment: float) -> None:
        """Stops fork servers without children that were not used since then."""
        for server, _ in self._servers.values():
            if not server.children and server.used_at <= moment:
                server.kill()

    def ready_pids(self) -> list[int]:
        """The process ids of the fork servers that are ready."""
        return [server.pid for server, _ in self._servers.values() if server.is_ready]

    def __bool__(self) -> bool:
        return bool(self._servers)

    async def close(self) -> None:
        """Kills all fork servers, and waits until they are gone. There must be no workers any more."""
        for server, _ in self._servers.values():
            server.kill()
        if self._servers:
            await self._all_gone.wait()
