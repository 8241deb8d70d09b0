"""Reads of events, runs and users on a busy server: a separate process answers them, so that they do not compete with
the engine for the interpreter's lock.

The server can answer every read itself too. It does so for single reads, while the process starts, and after the
process has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from stepwell.api.access import Keys, KeyScope, bearer
from stepwell.local.reading.frames import Answer, Question, pack_question, take_answers
from stepwell.local.runners.process import started

log = logging.getLogger("stepwell.readers")

_PATHS = ("/v1/runs", "/v1/events", "/v1/users")
_AT_ONCE = 4  # questions sent to the process at a time; it works on two
_AGAIN_S = 1.0  # delay of a restart after the process has died
_AGAIN_IF_BROKEN_S = 60.0  # the delay if the process had never answered
_NEEDED = ("PATH", "HOME", "TZ", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")


class Readers:
    """An ASGI application: passes some reads to the reader process, and all other requests to `rest`."""

    def __init__(self, rest: ASGIApp, process: ReaderProcess, keys: Keys) -> None:
        self._rest, self._process, self._keys = rest, process, keys
        self._reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET" or not scope["path"].startswith(_PATHS):
            await self._rest(scope, receive, send)
        elif (answer := await self._ask(scope)) is not None:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await send({"type": "http.response.body", "body": answer.body})
        else:
            self._reading += 1
            try:
                await self._rest(scope, receive, send)
            finally:
                self._reading -= 1

    async def _ask(self, scope: Scope) -> Answer | None:
        """The process's answer; None if there is no process. Two reads at a time start the process."""
        if not self._process.is_up:
            if self._reading:
                self._process.start_soon()
            return None
        key = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if self._keys.scope_of(bearer(key.decode("latin-1"))) is not KeyScope.MANAGE:
            return None  # the application refuses it
        return await self._process.ask(scope["path"], scope["query_string"].decode("latin-1"))


class ReaderProcess(asyncio.Protocol):
    """The reader process, started when it is first needed, and again if it dies, until `close`."""

    _transport: asyncio.Transport

    def __init__(self, database: Path, public_url: str) -> None:
        self._database, self._public_url = database, public_url
        self._popen: subprocess.Popen[bytes] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._received = bytearray()
        self._open_questions: dict[int, asyncio.Future[Answer | None]] = {}
        self._number = 0
        self._is_closed = False
        self.is_up = False

    @property
    def pid(self) -> int | None:
        return None if self._popen is None else self._popen.pid

    async def ask(self, path: str, query: str) -> Answer | None:
        """The answer to a read; None if the process has died."""
        async with self._free:
            if not self.is_up:
                return None
            self._number = self._number % 0xFFFFFFFF + 1
            future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
            self._open_questions[self._number] = future
            self._transport.write(pack_question(Question(self._number, path, query)))
            return await future

    def start_soon(self) -> None:
        """Starts the process, unless it is starting or has just died."""
        loop = asyncio.get_running_loop()
        if self.may_start(loop.time()):
            self._not_before = loop.time() + _AGAIN_S
            self._starting = loop.create_task(self._start())

    def may_start(self, at: float) -> bool:
        """Whether a start is allowed at this time of the event loop."""
        is_wanted = self._popen is None and self._starting is None and not self._is_closed
        return is_wanted and at >= self._not_before

    async def _start(self) -> None:
        own_end, process_end = socket.socketpair()
        try:
            own_end.setblocking(False)
            self._popen = await asyncio.to_thread(self._spawn, process_end)
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=own_end)
        except OSError as error:
            log.warning("the reader process cannot be started, so the server answers reads itself: %s", error)
            own_end.close()
        finally:
            process_end.close()
            self._starting = None

    def _spawn(self, process_end: socket.socket) -> subprocess.Popen[bytes]:
        number = process_end.fileno()
        module = [sys.executable, "-P", "-m", "stepwell.local.reading.process"]
        popen = subprocess.Popen(
            [*module, str(number), str(self._database.absolute()), self._public_url],
            env={name: os.environ[name] for name in _NEEDED if name in os.environ},  # none of the server's secrets
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(number,),
        )
        started.add(popen.pid)
        return popen

    # --- the socket's callbacks ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        for answer in take_answers(self._received):
            if answer.number == 0:
                self.is_up = True
            elif not (future := self._open_questions.pop(answer.number)).done():
                future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has died or was closed: fail the open questions, and allow a restart later."""
        was_up, self.is_up = self.is_up, False
        self._received.clear()
        open_questions, self._open_questions = self._open_questions, {}
        for future in open_questions.values():
            if not future.done():
                future.set_result(None)
        popen, self._popen = self._popen, None
        if popen is not None:
            popen.kill()
            popen.wait()
            started.remove(popen.pid)
            if not was_up:
                self._not_before = asyncio.get_running_loop().time() + _AGAIN_IF_BROKEN_S
            if not self._is_closed:
                again = _AGAIN_S if was_up else _AGAIN_IF_BROKEN_S
                words = "the reader process ended with code %s; the server answers reads itself for at least %.0f s"
                log.warning(words, popen.returncode, again)

    async def close(self) -> None:
        self._is_closed = True
        if self._starting is not None:
            with contextlib.suppress(OSError):
                await self._starting
        if self._popen is not None:
            self._transport.abort()
            while self._popen is not None:
                await asyncio.sleep(0)
