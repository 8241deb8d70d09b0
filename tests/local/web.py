"""A web server with an application that reports what it received, for tests of the wire protocol."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from stepwell.local.http.connection import Connection
from stepwell.local.http.tls import Certificate
from stepwell.local.http.web_server import WebServer

T = TypeVar("T")


class Impatient(Connection):
    silence_s = 0.3


class Backend:
    """Answers with the size and path of each request. Refuses some requests without reading the body."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        if scope["path"] == "/refuse":
            await self._answer(send, 401, b"no")
            return
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
        self.seen.append((scope["method"], scope["path"], body))
        answer = b"x" * 100_000 if scope["path"] == "/large" else b"%d" % len(body)
        await self._answer(send, 200, answer)

    async def _answer(self, send: Any, status: int, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def run(main: Coroutine[Any, Any, T], within: float = 30) -> T:
    """Runs a coroutine on the kind of event loop that the server uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, within))


@asynccontextmanager
async def listening(
    app: Any, protocol: type[Connection] = Connection, certificate: Certificate | None = None
) -> AsyncIterator[tuple[WebServer, Any]]:
    server = WebServer(app, 1, protocol, certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0)
        try:
            yield server, listener.getsockname()
        finally:
            server.should_exit = True
            await serving


def talk(
    *pieces: bytes,
    app: Any = None,
    protocol: type[Connection] = Connection,
    until: Callable[[bytes], bool] = lambda answer: False,
) -> bytes:
    """The server's responses until it closes the connection, or until the condition holds."""

    async def main() -> bytes:
        async with listening(app or Backend(), protocol) as (_, address):
            reader, writer = await asyncio.open_connection(*address)

            async def send() -> None:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()

            sending = asyncio.create_task(send())
            answer = await asyncio.wait_for(read(reader, until), 10)
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
            return answer

    return run(main())


async def read(reader: asyncio.StreamReader, until: Callable[[bytes], bool] = lambda answer: False) -> bytes:
    answer = b""
    try:
        while not until(answer) and (piece := await reader.read(65536)):
            answer += piece
    except ConnectionError:
        pass
    return answer


async def eventually(holds: Callable[[], Any], within: float = 10) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
