"""A connection of a client: reads commands, and answers one after another.

Silent and slow clients cannot keep others out: whoever has not said HELLO, or is in the middle of a command, has some
seconds; and if there are too many connections, those that have been silent for longest are closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, Protocol, cast

from stepwell.local.faktory.commands import Command
from stepwell.local.faktory.passwords import Challenge
from stepwell.local.faktory.session import Session
from stepwell.local.faktory.wire import error
from stepwell.local.http.connection_limit import NEVER, make_room

log = logging.getLogger("stepwell.faktory")

HELLO_S = 10.0
COMMAND_S = 30.0  # from the first to the last byte of a command
_IDLE_S = 3600.0  # after this time without a command, a connection is among the first to make room
_MUCH = 256 * 1024  # bytes that wait while a command is answered; then no more are read


class Host(Protocol):
    """What the connections of one server share."""

    connections: set[Any]

    def challenge(self) -> Challenge | None:
        """What a new client must answer; None without a password."""

    def opened(self, client: Connection) -> None:
        """The client has said HELLO."""

    def closed(self, client: Connection) -> None: ...

    async def answer(self, client: Connection, command: Command) -> bytes:
        """The reply to a command. Is cancelled if the connection ends before."""


class Connection(asyncio.Protocol):
    """`session`: the conversation. `worker`: what the host knows about the client. `answering`: the answer that is
    being made."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self.session = Session(host.challenge())
        self.worker: Any = None
        self.deadline = self._loop.time() + HELLO_S
        self._transport: asyncio.Transport | None = None
        self.answering: asyncio.Task[None] | None = None
        self._may_write = True
        self._is_paused = False  # no more bytes are read
        self._has_said_hello = False
        self._is_late_at: float | None = None  # the end of the time for the rest of a command

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # --- called by the event loop ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        _keep_alive(self._transport)
        self._host.connections.add(self)
        make_room(self._host.connections, self)
        if self.is_open:
            self._transport.write(self.session.greeting())

    def data_received(self, data: bytes) -> None:
        self.session.feed(data)
        if self.answering is None:
            self._go_on()
        is_behind = self.answering is not None or not self._may_write
        if self.is_open and is_behind and self.session.waiting > _MUCH and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()  # type: ignore[union-attr]

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        if self.answering is None:
            self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._host.connections.discard(self)
        if self.answering is not None:
            self.answering.cancel()
        if self._has_said_hello:
            self._host.closed(self)

    # --- commands --------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Answers the commands that have come, until one needs time."""
        while self.is_open and self._may_write and (item := self.session.next()) is not None:
            if isinstance(item, bytes):
                self._reply(item)
            else:
                self.deadline = NEVER
                self._is_late_at = None
                self.answering = self._loop.create_task(self._answer(item))
                return
        self._set_deadline()
        if self.is_open and self._is_paused and self._may_write:
            self._is_paused = False
            self._transport.resume_reading()  # type: ignore[union-attr]

    async def _answer(self, command: Command) -> None:
        try:
            reply = await self._host.answer(self, command)
        except Exception:
            log.exception("a command of a Faktory client failed: %s", type(command).__name__.upper())
            reply = error("internal server error; the server's log has the cause")
        finally:
            self.answering = None
        self._reply(reply)
        self._go_on()

    def _reply(self, reply: bytes) -> None:
        if self.session.hello is not None and not self._has_said_hello:
            self._has_said_hello = True
            self._host.opened(self)
        if self._transport is not None:
            self._transport.write(reply)
            if self.session.is_over:
                self._transport.close()

    # --- limits ----------------------------------------------------------------------------------------------------

    def _set_deadline(self) -> None:
        """Sets the time until which more must come. It is not moved by parts of a command."""
        if self.session.hello is None:
            return
        now = self._loop.time()
        if not self.session.waiting and self._may_write:
            self._is_late_at, self.deadline = None, now + _IDLE_S
        elif self._is_late_at is None:
            self._is_late_at = self.deadline = now + COMMAND_S

    def sweep(self, now: float) -> None:
        """Closes the connection if the client is too slow. An idle client is not."""
        is_slow = self.session.hello is None or self._is_late_at is not None
        if is_slow and now > self.deadline:
            self.give_way()

    def give_way(self) -> None:
        """Closes the connection at once, without sending what the client has not read."""
        if self._transport is not None:
            self._transport.abort()

    shutdown = give_way


def _keep_alive(transport: asyncio.Transport) -> None:
    """Lets the system find out that the client's machine is gone, and sends replies without delay."""
    client = transport.get_extra_info("socket")
    if client is not None:
        for level, option in _OPTIONS:
            client.setsockopt(level, option, 1)


_OPTIONS: tuple[tuple[int, int], ...] = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
)
