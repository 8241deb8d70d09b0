"""One sandbox of a Lambda: a process, and the Runtime API from which it gets one invocation after the other.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. An invocation ends once: by the answer, by the death of
the process, at the deadline, or without an answer when it is dropped. Later answers are refused.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

import time_machine

from stepwell.testing.lambdas.errors import MAX_RESPONSE, exit_error, response_too_large, timeout_error
from stepwell.testing.lambdas.function import CannotStart, Disk, Function, command, environment, is_forked, wrapper
from stepwell.testing.lambdas.logs import SandboxLog
from stepwell.testing.lambdas.processes import kill_all_with
from stepwell.testing.lambdas.python_server import Order, Process, PythonServer, WrappedFork
from stepwell.testing.lambdas.runtime_api import RuntimeApi

INIT_S = 60.0  # Lambda allows 10 s, but test machines are slower


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of an invocation. `payload`: JSON, or any text that the runtime sent."""

    payload: bytes
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Invocation:
    payload: bytes
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class _Running:
    invocation: Invocation
    began: float | None = None  # when the runtime received it
    result: Ended | None = None  # if it is over: None means dropped
    over: threading.Event = field(default_factory=threading.Event)


class Sandbox:
    """Only one thread may call `run`; other methods can be called from any thread."""

    def __init__(self, function: Function, disk: Disk, python: PythonServer, variables: dict[str, str]) -> None:
        """Starts the process. `variables`: additional environment variables. Raises CannotStart."""
        self.function = function
        self.stream = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._final: Ended | None = None  # the result of all invocations once the process is dead
        self._next: SimpleQueue[_Running | None] = SimpleQueue()
        self._is_ready = threading.Event()
        self._is_dead = self._is_dropped = self._is_gone = False
        self._created, self._init_ms = time.monotonic(), 0.0
        self._folder = disk.new_folder()
        self.log = SandboxLog(self._folder / "log")
        self.log.write(f"INIT_START Runtime Version: {function.runtime}")
        self._api = RuntimeApi(self)
        try:
            self._process = self._start(disk, python, variables)
        except BaseException:
            self._api.close()
            self.log.close()
            raise
        threading.Thread(target=self._watch, daemon=True).start()

    def _start(self, disk: Disk, python: PythonServer, variables: dict[str, str]) -> Process:
        function, task, opt = self.function, disk.task(self.function), disk.opt(self.function)
        tmp = self._folder / "tmp"
        tmp.mkdir()
        env = {**variables, **environment(function, task, opt, tmp, self.stream, self._api.address)}
        arguments = command(function, task, opt)
        found = wrapper(function, opt)
        if is_forked(function, task):
            if found is None:
                return python.start(function.handler, task, env, self.log.file)
            return WrappedFork(python, found, Order(arguments[1:], function.handler, task, env, self.log.file))
        try:
            return subprocess.Popen(
                arguments,
                cwd=task,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=self.log.file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            program = f"/opt/{Path(arguments[0]).name}" if opt in Path(arguments[0]).parents else arguments[0]
            raise CannotStart(f"Error: fork/exec {program}: {(error.strerror or '').lower()}") from None

    # --- methods for the host ----------------------------------------------------------------------------------------

    @property
    def arn(self) -> str:
        return self.function.arn

    @property
    def is_alive(self) -> bool:
        return not self._is_dead

    def run(self, invocation: Invocation) -> Ended | None:
        """Runs an invocation. Returns None if it was dropped."""
        running = _Running(invocation)
        with self._lock:
            self._running = running
            if self._is_dropped:
                return None
            if self._final is not None:
                running.result = self._final
                running.over.set()
        self._next.put(running)
        is_ready = self._is_ready.is_set() or self._is_ready.wait(INIT_S)
        if not running.over.wait(self.function.timeout if is_ready else 0):
            late = timeout_error(invocation.id, self.function.timeout)
            if self._end(Ended(late, is_error=True)):
                self.kill()
                now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"
                self.log.write(f"{now} {invocation.id} Task timed out after {self.function.timeout:.2f} seconds")
        if running.result is not None:
            self._write_end(running)
        return running.result

    def drop(self) -> None:
        """Kills the process. The running invocation gets no answer."""
        self._is_dropped = True
        self._end(None)
        self.kill()

    def kill(self) -> None:
        self._is_dead = True
        if self._is_gone:
            return  # the pid may belong to another process by now
        kill_all_with(f"AWS_LAMBDA_LOG_STREAM_NAME={self.stream}", self._process.pid)

    # --- methods for the Runtime API ---------------------------------------------------------------------------------

    def next(self) -> tuple[str, int, bytes] | None:
        """Waits for an invocation. Returns the id, the deadline in ms since the epoch, and the payload.

        Returns None if no invocation will come.
        """
        if not self._is_ready.is_set():
            self._init_ms = (time.monotonic() - self._created) * 1000
            self._is_ready.set()
        running = self._next.get()
        if running is None:
            return None
        self._write_start(running)
        now = time_machine.escape_hatch.time.time_ns() // 1_000_000  # real time: processes do not see the test's clock
        return running.invocation.id, now + self.function.timeout * 1000, running.invocation.payload

    def answered(self, invocation_id: str, payload: bytes, *, is_error: bool) -> bool:
        """Ends the invocation with an answer. Returns False if it is not running, or not any more."""
        running = self._running
        if running is None or running.invocation.id != invocation_id:
            return False
        if len(payload) > MAX_RESPONSE:
            payload, is_error = response_too_large(len(payload)), True
        return self._end(Ended(payload, is_error))

    def failed_to_start(self, payload: bytes) -> None:
        with self._lock:
            self._final = Ended(payload, is_error=True)
        self._end(self._final)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, result: Ended | None) -> bool:
        with self._lock:
            running = self._running
            if running is None or running.over.is_set():
                return False
            running.result = result
            running.over.set()
            return True

    def _watch(self) -> None:
        code = self._process.wait()
        self.kill()  # also kills processes that the dead one has left behind
        self._is_gone = True
        self._api.close()
        with self._lock:
            running = self._running
            if self._final is None:
                request_id = str(uuid.uuid4()) if running is None else running.invocation.id
                self._final = Ended(exit_error(request_id, code), is_error=True)
        self._end(self._final)
        self._is_ready.set()
        self._next.put(None)

    def remove(self) -> None:
        """Deletes the files. Call it when the process is dead and the log was read."""
        self.log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- the log -----------------------------------------------------------------------------------------------------

    def _write_start(self, running: _Running) -> None:
        running.began = time.monotonic()
        self.log.write(f"START RequestId: {running.invocation.id} Version: $LATEST")

    def _write_end(self, running: _Running) -> None:
        if running.began is None:  # the process died before it received the invocation
            self._write_start(running)
        ms = (time.monotonic() - (running.began or 0)) * 1000
        text = running.invocation.id
        init, self._init_ms = self._init_ms, 0.0
        self.log.write(
            f"END RequestId: {text}",
            f"REPORT RequestId: {text}\tDuration: {ms:.2f} ms\tBilled Duration: {ms + 1:.0f} ms\t"
            f"Memory Size: {self.function.memory} MB\t" + (f"Init Duration: {init:.2f} ms\t" if init else ""),
        )
