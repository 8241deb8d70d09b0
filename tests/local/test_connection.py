"""Limits for a client before its request is complete, and what counts as one request."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stepwell.local.http import connection_limit
from tests.local.web import Backend, Impatient, eventually, listening, read, run, statuses, talk

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
KEEP = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_endless_headers_are_refused() -> None:
    assert statuses(talk(HEAD, b"X: ", *[b"x" * 10_000] * 1000)) == [431]
    assert statuses(talk(HEAD, *[b"X: %s\r\n" % (b"x" * 10_000)] * 1000)) == [431]


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X%d: a\r\n" % i for i in range(9000)) + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_large_headers_in_one_piece_are_refused(request_: bytes) -> None:
    assert statuses(talk(request_)) in ([431], [400])


def test_endless_trailers_are_refused() -> None:
    assert b"200 OK" not in talk(CHUNKED, b"1\r\na\r\n0\r\n", *[b"X: %s\r\n" % (b"x" * 10_000)] * 1000)


def test_a_large_body_does_not_count_as_headers() -> None:
    assert b"4000000" in talk(HEAD + b"Content-Length: 4000000\r\n\r\n", *[b"x" * 100_000] * 40)
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    assert b"4000000" in talk(CHUNKED, *[chunk] * 400, b"0\r\n\r\n")


@pytest.mark.parametrize("size", [1, 7, 17, 300])
def test_a_body_may_come_in_many_small_chunks(size: int) -> None:
    chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
    answer = talk(CHUNKED, chunk * 30_000 + b"0\r\n\r\n")
    assert statuses(answer) == [200]
    assert answer.endswith(b"%d" % (30_000 * size))


def test_the_size_of_chunk_extensions_is_limited() -> None:
    assert statuses(talk(CHUNKED, b"1;a=b\r\nx\r\n" * 20_000 + b"0\r\n\r\n")) == [200]
    assert statuses(talk(CHUNKED, *[b"1;" + b"a" * 10_000 + b"\r\nx\r\n"] * 1000, b"0\r\n\r\n")) == [431]
    assert statuses(talk(CHUNKED, b"1;", *[b"a" * 10_000] * 1000)) == [431]


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"P", b"PRI * HTTP/2.0\r\n", b"POST / HT", HEAD, HEAD + b"Content-Length: 5\r\n\r\nabc"]
)
def test_a_client_that_does_not_finish_a_request_is_disconnected(content: bytes) -> None:
    assert b"200 OK" not in talk(content, protocol=Impatient)


def test_the_time_for_a_head_is_limited() -> None:
    async def main() -> None:
        async with listening(Backend(), Impatient) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            answered = asyncio.create_task(read(reader))
            writer.write(HEAD)
            while not answered.done():
                writer.write(b"X-Slow: a\r\n")
                await asyncio.sleep(0.05)
            assert b"200" not in answered.result()
            writer.close()

    run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("framing", [b"Content-Length: 40\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_slow_body_is_accepted_while_bytes_keep_coming(framing: bytes) -> None:
    async def main() -> bytes:
        async with listening(Backend(), Impatient) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(HEAD + framing)
            for _ in range(40):  # 4 s in all, with pauses shorter than 0.3 s
                writer.write(b"x" if b"Length" in framing else b"1\r\nx\r\n")
                await asyncio.sleep(0.1)
            if b"chunked" in framing:
                writer.write(b"0\r\n\r\n")
            answer = await asyncio.wait_for(read(reader), 10)
            writer.close()
            return answer

    assert run(main()).endswith(b"40")


def test_a_client_that_does_not_read_responses_is_disconnected() -> None:
    async def main() -> None:
        async with listening(Backend(), Impatient) as (server, address):
            with socket.create_connection(address) as client:
                client.setblocking(False)
                asking = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 200
                await asyncio.get_running_loop().sock_sendall(client, asking)
                await eventually(lambda: server.server_state.connections)
                await eventually(lambda: not server.server_state.connections)

    run(main())


# --- pipelining and many clients -------------------------------------------------------------------------------------


def test_requests_may_be_sent_before_earlier_ones_are_answered() -> None:
    app = Backend()
    asking = b"".join(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % n for n in range(3000))
    last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert statuses(talk(asking + last, app=app)) == [200] * 3001
    assert [path for _, path, _ in app.seen] == [*(f"/{n}" for n in range(3000)), "/last"]


def test_requests_are_not_begun_while_responses_are_unread() -> None:
    app = Backend()

    async def main() -> None:
        async with listening(app) as (server, address):
            with socket.create_connection(address) as client:
                client.setblocking(False)
                asking = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 100_000
                sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, asking))
                await eventually(lambda: app.begun > 5)
                for _ in range(50):
                    await asyncio.sleep(0.01)
                assert app.begun < 200  # requests whose responses fit into the buffers in between
                (connection,) = server.server_state.connections
                assert len(connection.pipeline) + len(connection._rest) / 1000 < 1000  # type: ignore[union-attr]
                sending.cancel()

    run(main())


def test_disconnecting_before_the_responses_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"x"})

    async def main() -> None:
        async with listening(app) as (server, address):
            with socket.create_connection(address) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
                await eventually(lambda: server.server_state.tasks)
            gate.set()
            await eventually(lambda: not server.server_state.tasks and not server.server_state.connections)

    run(main())
    assert not caplog.records


@contextmanager
def most_connections(monkeypatch: pytest.MonkeyPatch, most: int) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(connection_limit, "most_connections", lambda: most)
        yield


def ask(address: Any) -> Awaitable[bytes]:
    async def main() -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await read(reader)
        writer.close()
        return answer

    return asyncio.wait_for(main(), 10)


@pytest.mark.parametrize("content", [b"", b"POST / HTTP/1.1\r\nHost: a\r\n", KEEP + b"Content-Length: 9\r\n\r\nabc"])
def test_silent_clients_are_disconnected_in_favour_of_new_ones(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    async def main() -> None:
        async with listening(Backend()) as (server, address):
            others = [await asyncio.open_connection(*address) for _ in range(300)]
            for _, writer in others:
                writer.write(content)
            for _ in range(30):
                assert b"200 OK" in await ask(address)
            assert len(server.server_state.connections) <= 40
            for _, writer in others:
                writer.close()

    with most_connections(monkeypatch, 40):
        run(main())


def test_a_request_that_is_being_answered_is_never_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def main() -> None:
        async with listening(app) as (server, address):
            slow = [await asyncio.open_connection(*address) for _ in range(5)]
            for _, writer in slow:
                writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await eventually(lambda: len(server.server_state.tasks) == 5)
            refused = await ask(address)
            assert b"503 Service Unavailable" in refused
            assert b"retry-after" in refused
            gate.set()
            for reader, writer in slow:
                assert b"done" in await read(reader)
                writer.close()

    with most_connections(monkeypatch, 5):
        run(main())


# --- responses before the end of the request -------------------------------------------------------------------------


def test_a_refused_request_needs_no_body() -> None:
    for framing in (b"Content-Length: 4000000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"):
        answer = talk(b"POST /refuse HTTP/1.1\r\nHost: a\r\n" + framing)
        assert statuses(answer) == [401]
        assert b"connection: close" in answer


def test_a_refusal_can_be_read_while_the_body_is_sent() -> None:
    answer = talk(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n", *[b"x" * 100_000] * 40)
    assert statuses(answer) == [401]


def test_after_a_refusal_a_short_body_is_not_read_as_a_request() -> None:
    app = Backend()
    hidden = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    asking = b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    answer = talk(asking, hidden, HEAD + b"Content-Length: 2\r\n\r\nab", app=app)
    assert statuses(answer) == [401, 200]
    assert [path for _, path, _ in app.seen] == ["/"]


def test_expect_100_continue_is_answered_or_refused() -> None:
    expects = b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
    answer = talk(b"POST /refuse HTTP/1.1\r\n" + expects + b"\r\n")
    assert statuses(answer) == [401]
    assert b"connection: close" in answer  # it is unknown whether the body follows

    async def main() -> None:
        async with listening(Backend()) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"POST / HTTP/1.1\r\n" + expects + b"Connection: close\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ab")
            assert statuses(await read(reader)) == [200]
            writer.close()

    run(asyncio.wait_for(main(), 10))


def test_a_request_may_come_byte_by_byte() -> None:
    for method in (b"POST", b"PUT", b"PATCH", b"PROPFIND"):  # each begins like the preface of HTTP/2
        sent = HEAD.replace(b"POST", method) + b"Content-Length: 2\r\n\r\nhi"
        assert statuses(talk(*(bytes([byte]) for byte in sent))) == [200]


# --- other protocols -------------------------------------------------------------------------------------------------

UPGRADES = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    b"Connection: keep-alive, upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n",
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n",
    b"Upgrade: foo\r\n",
]


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("pieces", [1, 3, 1000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upgrade_request_is_ignored(upgrade: bytes, pieces: int, framing: str) -> None:
    app, body = Backend(), b'{"order": 7}' * 1000
    head = b"POST /a HTTP/1.1\r\nHost: a\r\n" + upgrade
    if framing == "length":
        sent = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    else:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    sent += b"GET /b HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n" + HEAD + b"Content-Length: 2\r\n\r\nhi"
    size = -(-len(sent) // pieces)
    answer = talk(*(sent[at : at + size] for at in range(0, len(sent), size)), app=app)
    assert statuses(answer) == [200] * 3
    assert app.seen == [("POST", "/a", body), ("GET", "/b", b""), ("POST", "/", b"hi")]


def test_a_large_head_with_an_upgrade_is_read() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\nX: " + b"x" * 60_000
    assert statuses(talk(head + b"\r\nContent-Length: 2\r\n\r\nhi")) == [200]


def test_proxy_requests_are_refused() -> None:
    app = Backend()
    assert statuses(talk(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", app=app)) == [405]
    assert app.begun == 0


# --- invalid requests ------------------------------------------------------------------------------------------------

A = b"Host: x\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
MALFORMED = {
    "CL.TE": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.CL": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + HIDDEN,
    "TE.TE": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + HIDDEN,
    "unknown TE": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: xchunked\r\n\r\n" + HIDDEN,
    "TE not last": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE with a tab": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two CL": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef" + HIDDEN,
    "CL list": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: 5, 5\r\n\r\nabcde" + HIDDEN,
    "CL +5": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: +5\r\n\r\nabcde",
    "CL 0x5": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: 0x5\r\n\r\nabcde",
    "CL 1_0": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: 1_0\r\n\r\nabcdeabcde",
    "CL empty": b"POST / HTTP/1.1\r\n" + A + b"Content-Length:\r\n\r\nabcde",
    "CL huge": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "CL negative": b"POST / HTTP/1.1\r\n" + A + b"Content-Length: -1\r\n\r\nabc",
    "bare LF": b"GET /hidden HTTP/1.1\nHost: x\n\n",
    "bare LF in a header": b"GET /hidden HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare CR": b"GET /hidden HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
    "space before the colon": b"GET /hidden HTTP/1.1\r\nHost : x\r\n\r\n",
    "space before a name": b"GET /hidden HTTP/1.1\r\n Host: x\r\n\r\n",
    "obs-fold": b"GET /hidden HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "NUL": b"GET /hidden HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "no name": b"GET /hidden HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
    "no host": b"GET /hidden HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /hidden HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "chunk size": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabcde\r\n0\r\n\r\n",
    "chunk size +": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n0\r\n\r\n",
    "chunk size 0x": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n",
    "chunk huge": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabcde\r\n",
    "chunk too short": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n",
    "chunk LF": b"POST / HTTP/1.1\r\n" + A + b"Transfer-Encoding: chunked\r\n\r\n5\nabcde\n0\n\n",
    "version": b"GET /hidden HTTP/1.9\r\nHost: x\r\n\r\n",
    "no version": b"GET /hidden\r\n\r\n",
    "method": b"GE T /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\0" * 160,
    "nonsense": b"\0\1\2\3\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("at_once", [True, False])
def test_ambiguous_requests_are_refused_once(name: str, at_once: bool) -> None:
    app, sent = Backend(), MALFORMED[name]
    answer = talk(*([sent] if at_once else [sent[:20], *(bytes([byte]) for byte in sent[20:])]), app=app)
    assert statuses(answer) == [400]
    assert app.seen == []


def test_trailers_do_not_count_as_headers() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.extend(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    talk(CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nHost: y\r\n\r\n", app=app)
    assert seen == [b"host", b"connection", b"transfer-encoding"]


def test_requests_before_an_invalid_one_are_answered() -> None:
    app = Backend()
    answer = talk(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\0\0\0\r\n\r\n" + HIDDEN, app=app
    )
    assert statuses(answer) == [200, 200]
    assert [path for _, path, _ in app.seen] == ["/1", "/2"]
