"""Requests that are answered without a task: the responses are the same as the application's."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.api.access import AnyKey, LocalOnly
from stepwell.api.asgi import App, EventSink
from stepwell.api.ingest.seeds import HEADER
from stepwell.local.http.connection import Connection
from stepwell.local.http.ingest_connection import IngestConnection
from stepwell.local.http.serving import app_of
from stepwell.local.server import LocalServer, ServerSettings, open_server
from stepwell.testing.local import put_empty_database
from tests.local.web import listening, read, run

EVENT = b'{"name": "a/b", "data": {"n": 1}}'


def post(body: bytes = EVENT, path: str = "/e/right", *headers: str, host: str = "localhost") -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def answer(app: App, protocol: type[Connection], *pieces: bytes) -> bytes:
    """All responses, until the server closes the connection after the last request."""
    async with listening(app, protocol) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        for piece in (*pieces, post(EVENT, "/e/right", "Connection: close")):
            writer.write(piece)
            await asyncio.sleep(0)
        text = await asyncio.wait_for(read(reader), 10)
        writer.close()
        return text


def on_a_server(folder: Path, work: Callable[[LocalServer, App], Any]) -> None:
    async def main() -> None:
        put_empty_database(folder / "db")
        async with open_server(ServerSettings(folder / "db")) as server:
            await work(server, app_of(server, AnyKey("right"), LocalOnly("127.0.0.1")))

    run(main())


REQUESTS = {
    "an event": [post()],
    "several events": [post(b"[%s, %s]" % (EVENT, EVENT))],
    "no events": [post(b"[]")],
    "a body in pieces": [post()[:-20], post()[-20:-3], post()[-3:]],
    "one after the other at once": [post() * 3],
    "a request behind another that is refused": [post(b"{}") + post()],
    "no JSON": [post(b"{")],
    "no body": [post(b"")],
    "wrong events": [post(b'[{"name": ""}, {"name": "x", "ts": -1}, %s]' % EVENT)],
    "a large integer": [post(b'{"name": "a", "data": {"n": 123456789012345678901}}')],
    "no key": [post(EVENT, "/e")],
    "a wrong key": [post(EVENT, "/e/wrong")],
    "a key in the header": [post(EVENT, "/e", "Authorization: Bearer right")],
    "another host": [post(host="evil.example")],
    "another site's page": [post(EVENT, "/e/right", "Origin: http://evil.example")],
    "a page of ours": [post(EVENT, "/e/right", "Origin: http://localhost:3000")],
    "a compressed body": [post(gzip.compress(EVENT, mtime=0), "/e/right", "Content-Encoding: gzip")],
    "an encoding that nobody reads": [post(EVENT, "/e/right", "Content-Encoding: br")],
    "a request that comes again": [post(EVENT, "/e/right", f"{HEADER}: 1700000000000,AAAAAAAAAAAAAA==")] * 2,
    "a CloudEvent": [post(b"{}", "/e/right", "ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t")],
    "a chunked body": [
        post(b"", "/e/right").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"
    ],
    "another method": [post().replace(b"POST", b"PUT")],
    "what a browser asks before": [b"OPTIONS /e/right HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    "another path": [post(EVENT, "/ee/right")],
    "a path with escapes": [post(EVENT, "/e/righ%74")],
    "HTTP/1.0": [post().replace(b"HTTP/1.1", b"HTTP/1.0")],
    "more than is read at once": [post(b'{"name": "a", "data": {"text": "%s"}}' % (b"x" * 20_000))],
}


@pytest.mark.parametrize("pieces", REQUESTS.values(), ids=REQUESTS)
def test_every_request_is_answered_as_by_the_application(tmp_path: Path, pieces: list[bytes]) -> None:
    answers = {}
    for protocol in (Connection, IngestConnection):

        async def work(server: LocalServer, app: App, protocol: type[Connection] = protocol) -> None:
            text = await answer(app, protocol, *pieces)
            answers[protocol] = re.sub(rb"[0-9a-f]{32}", b"ID", text), server.platform.store.events.newest

        on_a_server(tmp_path / protocol.__name__, work)
    assert answers[Connection] == answers[IngestConnection]
    assert answers[Connection][0]


def test_ordinary_requests_are_answered_directly(tmp_path: Path) -> None:
    async def work(server: LocalServer, app: App) -> None:
        asked: list[str] = []

        class Watched(IngestConnection):
            def _start_task(self, cycle: Any, app: Any) -> None:
                asked.append(cycle.scope["path"])
                super()._start_task(cycle, app)

        await answer(app, Watched, post(), post(EVENT, "/e/wrong"), post(b"{}", "/e/right?refused"))
        assert asked == ["/e/wrong", "/e/right", "/e/right"]  # also the last request, which ends the connection

    on_a_server(tmp_path, work)


def test_a_request_without_a_key_is_refused_before_the_body(tmp_path: Path) -> None:
    async def work(server: LocalServer, app: App) -> None:
        async with listening(app, IngestConnection) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(post(EVENT, "/e/wrong")[: -len(EVENT)])
            assert b" 401 " in await asyncio.wait_for(read(reader, lambda text: b"\r\n\r\n" in text), 10)
            writer.close()

    on_a_server(tmp_path, work)


def test_a_request_whose_batch_cannot_be_written_gets_503(tmp_path: Path) -> None:
    async def work(server: LocalServer, app: App) -> None:
        connection = server.platform.store.connection
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        text = await answer(app, IngestConnection, post())
        assert text.count(b"HTTP/1.1 503 ") == 2
        assert b"not accepted, try again: disk full" in text
        connection.execute("DROP TRIGGER full")
        assert (await answer(app, IngestConnection, post())).count(b"HTTP/1.1 200 ") == 2

    on_a_server(tmp_path, work)


def test_events_given_up_by_a_stopping_server_are_not_answered_as_accepted(tmp_path: Path) -> None:
    async def work(server: LocalServer, _: App) -> None:
        def gave_up(events: object) -> asyncio.Future[None]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            return future

        platform, keys = server.platform, AnyKey("right")
        sink = EventSink(platform.send, platform.intake.judge, platform.clock.now, lambda: gave_up)
        app = App(refuse_all, server.webhooks, keys, sink, None)
        text = await answer(app, IngestConnection, post())
        assert re.findall(rb"HTTP/1.1 (\d+)", text) == [b"503", b"200"]  # the application answers the last one
        assert b"try again" in text

    on_a_server(tmp_path, work)


async def refuse_all(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope["path"])


def test_disconnecting_before_the_response_leaves_no_trace(tmp_path: Path) -> None:
    async def work(server: LocalServer, app: App) -> None:
        async with listening(app, IngestConnection) as (web, address):
            _, writer = await asyncio.open_connection(*address)
            writer.write(post() + post())
            await writer.drain()
            writer.transport.abort()
            _, writer = await asyncio.open_connection(*address)
            writer.write(post())
            while server.platform.store.events.newest < 1 or len(web.server_state.connections) > 1:
                await asyncio.sleep(0.002)
            writer.close()

    on_a_server(tmp_path, work)
