"""The sandboxes of all functions. A warm one is used again if the function is equal.

A sandbox runs one invocation at a time. It is not used again after its process, or an answer, was lost.
"""

from __future__ import annotations

import os
import threading

from stepwell.testing.account.emulator import Emulator
from stepwell.testing.lambdas.errors import entrypoint_error
from stepwell.testing.lambdas.function import CannotStart, Disk, Function
from stepwell.testing.lambdas.logs import put_lines
from stepwell.testing.lambdas.python_server import PythonServer
from stepwell.testing.lambdas.sandbox import Ended, Invocation, Sandbox

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class SandboxPool:
    """`most_idle`: how many sandboxes may be idle; beyond that, those that were idle longest are ended."""

    def __init__(self, emulator: Emulator, most_idle: int) -> None:
        self._emulator, self._most_idle = emulator, most_idle
        self._disk, self._python = Disk(), PythonServer()
        self._lock = threading.Lock()
        self._idle: list[Sandbox] = []
        self._busy: set[Sandbox] = set()
        self._drops = 0
        self.started = 0  # number of sandboxes ever started

    def run(self, function: Function, invocation: Invocation) -> tuple[Ended | None, list[str]]:
        """Runs an invocation. Returns how it ended (None if it was dropped), and the new log lines.

        The log lines are those that `flush_logs` has not put into CloudWatch before.
        """
        drops = self._drops
        try:
            sandbox = self._take(function)
        except CannotStart as reason:
            return Ended(entrypoint_error(invocation.id, str(reason)), is_error=True), []
        with self._lock:
            self._busy.add(sandbox)
            is_too_late = drops != self._drops
        if is_too_late:
            sandbox.drop()
        ended = sandbox.run(invocation)
        lines = self._flush(sandbox)
        self._put_back(sandbox, is_usable=ended is not None and sandbox.is_alive)
        return ended, lines

    def drop_running(self) -> None:
        """Kills all running invocations; they get no answer."""
        with self._lock:
            self._drops += 1
            busy = list(self._busy)
        for sandbox in busy:
            sandbox.drop()

    def forget_warm(self) -> None:
        """Removes idle sandboxes, so that the next invocations are cold starts."""
        with self._lock:
            idle, self._idle = self._idle, []
        self._remove(idle)

    def flush_logs(self) -> None:
        """Puts into CloudWatch what running invocations have printed so far. At their end this happens by itself."""
        with self._lock:
            busy = list(self._busy)
        for sandbox in busy:
            self._flush(sandbox)

    def close(self) -> None:
        self.drop_running()
        self.forget_warm()
        self._python.close()
        self._disk.close()

    # -----------------------------------------------------------------------------------------------------------------

    def _take(self, function: Function) -> Sandbox:
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index].function == function and self._idle[index].is_alive:
                    return self._idle.pop(index)
            self.started += 1
        # The id of the access key names the function that makes a request; on Lambda, the credentials of the role do.
        own = {"AWS_ACCESS_KEY_ID": function.name, "AWS_ENDPOINT_URL": self._emulator.endpoint.url}
        variables = {name: os.environ[name] for name in _CREDENTIALS} | own
        return Sandbox(function, self._disk, self._python, variables)

    def _put_back(self, sandbox: Sandbox, *, is_usable: bool) -> None:
        with self._lock:
            self._busy.discard(sandbox)
            if is_usable:
                self._idle.append(sandbox)
            surplus = self._idle[: -self._most_idle] if self._most_idle else list(self._idle)
            self._idle = self._idle[len(surplus) :]
        self._remove(surplus if is_usable else [*surplus, sandbox])

    def _remove(self, sandboxes: list[Sandbox]) -> None:
        for sandbox in sandboxes:
            sandbox.kill()
            sandbox.remove()

    def _flush(self, sandbox: Sandbox) -> list[str]:
        with self._emulator.lock:
            lines = sandbox.log.read()
            put_lines(sandbox.arn, sandbox.stream, lines)
        return lines
