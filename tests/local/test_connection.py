"""What a client may take of a server before its request is complete."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from stepwell.local.connection import Connection


class Impatient(Connection):
    request_s = 0.05


async def app(scope: Any, receive: Any, send: Any) -> None:
    size, message = 0, {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        size += len(message.get("body", b""))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


@asynccontextmanager
async def connected(protocol: type[Connection]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, http=protocol, lifespan="off", ws="none", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            server.should_exit = True
            await serving


def exchange(*pieces: bytes, protocol: type[Connection] = Connection) -> bytes:
    """What the server answers until it closes the connection."""

    async def main() -> bytes:
        async with connected(protocol) as (reader, writer):

            async def send() -> None:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()

            sending = asyncio.create_task(send())
            answer = await asyncio.wait_for(_read(reader), 10)
            await asyncio.gather(sending, return_exceptions=True)
            return answer

    return asyncio.run(main())


async def _read(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    try:
        while piece := await reader.read(65536):
            answer += piece
    except ConnectionError:
        pass
    return answer


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"


def test_headers_without_end_are_refused() -> None:
    assert b"400 Bad Request" in exchange(HEAD, b"X: ", *[b"x" * 10_000] * 1000)
    assert b"400 Bad Request" in exchange(HEAD, *[b"X: %s\r\n" % (b"x" * 10_000)] * 1000)


def test_trailers_without_end_are_refused() -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    assert b"200 OK" not in exchange(chunked, *[b"X: %s\r\n" % (b"x" * 10_000)] * 1000)


def test_a_large_body_is_no_header() -> None:
    head = HEAD + b"Content-Length: 4000000\r\n\r\n"
    assert b"4000000" in exchange(head, *[b"x" * 100_000] * 40)
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    assert b"4000000" in exchange(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 400, b"0\r\n\r\n")


@pytest.mark.parametrize("said", [b"", b"POST / HT", HEAD, HEAD + b"Content-Length: 5\r\n\r\nabc"])
def test_who_does_not_finish_a_request_is_disconnected(said: bytes) -> None:
    assert b"200 OK" not in exchange(said, protocol=Impatient)
