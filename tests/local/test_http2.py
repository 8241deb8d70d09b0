"""HTTP/2 for normal clients, and for clients that attack the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from stepwell.local.http.http2 import Http2Connection
from stepwell.local.http.http2_frames import Frames, TooMuch
from stepwell.local.http.preface import PREFACE
from tests.local.web import Backend, eventually, listening, read, run, statuses, talk
from tests.servers import Server, new_key, serve, write_function

Headers = list[tuple[bytes, bytes]]


class Client:
    """A client by the library `h2`, which does not validate what it sends. `events` are received from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **settings: int) -> None:
        self.reader, self.writer = reader, writer
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        values = {h2.settings.SettingCodes[name]: value for name, value in settings.items()}
        self.h2.local_settings = h2.settings.Settings(initial_values=values)
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.is_closed = False

    def headers(self, method: bytes = b"POST", path: bytes = b"/", *more: tuple[bytes, bytes]) -> Headers:
        return [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), *more]

    def begin(self, *more: tuple[bytes, bytes], method: bytes = b"POST", path: bytes = b"/", ends: bool = False) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.headers(method, path, *more), end_stream=ends)
        return stream

    async def send(self, frames: bytes = b"") -> None:
        self.writer.write(self.h2.data_to_send() + frames)
        try:
            await self.writer.drain()
        except ConnectionError:
            self.is_closed = True

    async def until(self, holds: Callable[[], Any], *, reads_all: bool = True) -> None:
        while not holds():
            try:
                data = await self.reader.read(65536)
            except ConnectionError:
                data = b""
            if not data:
                self.is_closed = True
                assert holds(), self.events
                return
            for event in self.h2.receive_data(data):
                self.events.append(event)
                if isinstance(event, h2.events.DataReceived) and reads_all:
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            await self.send()

    def of(self, kind: type[Any], stream: int | None = None) -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None))
        ]

    def status(self, stream: int) -> int | None:
        for event in self.of(h2.events.ResponseReceived, stream):
            return int(dict(event.headers)[b":status"])
        return None

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.of(h2.events.DataReceived, stream))

    async def answer(self, stream: int) -> tuple[int | None, bytes]:
        await self.until(lambda: self.of(h2.events.StreamEnded, stream))
        return self.status(stream), self.body(stream)

    async def code(self) -> ErrorCodes | int | None:
        """The error code with which the connection ended."""
        await self.until(lambda: self.is_closed)
        return next((item.error_code for item in self.of(h2.events.ConnectionTerminated)), None)


@asynccontextmanager
async def connected(app: Any = None, **settings: int) -> AsyncIterator[Client]:
    async with listening(app or Backend()) as (server, address):
        client = Client(*await asyncio.open_connection(*address), **settings)
        client.server = server  # type: ignore[attr-defined]
        await client.send()
        try:
            yield client
        finally:
            client.writer.close()


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_hundred_requests_with_bodies_share_a_connection() -> None:
    async def main() -> None:
        async with connected() as client:
            streams = [client.begin(path=b"/%d" % n) for n in range(100)]
            for _ in range(10):
                for n, stream in enumerate(streams):
                    client.h2.send_data(stream, b"x" * n)
                await client.send()
            for stream in streams:
                client.h2.end_stream(stream)
            await client.send()
            for n, stream in enumerate(streams):
                assert await client.answer(stream) == (200, b"%d" % (10 * n))

    run(main())


def test_bodies_and_responses_may_be_larger_than_the_window() -> None:
    async def main() -> None:
        async with connected(INITIAL_WINDOW_SIZE=1000) as client:
            stream, left = client.begin(path=b"/large"), 4_000_000
            while left:
                size = min(left, client.h2.local_flow_control_window(stream), 16_384)
                if not size:
                    before = len(client.of(h2.events.WindowUpdated))
                    await client.until(lambda before=before: len(client.of(h2.events.WindowUpdated)) > before)  # type: ignore[misc]
                    continue
                client.h2.send_data(stream, b"x" * size)
                await client.send()
                left -= size
            client.h2.end_stream(stream)
            await client.send()
            assert await client.answer(stream) == (200, b"x" * 100_000)

    run(main())


def test_trailers_are_read_but_not_as_headers() -> None:
    async def main() -> None:
        app = Backend()
        async with connected(app) as client:
            stream = client.begin()
            client.h2.send_data(stream, b"abc")
            client.h2.send_headers(stream, [(b"authorization", b"Bearer x")], end_stream=True)
            await client.send()
            assert await client.answer(stream) == (200, b"3")

    run(main())


def test_head_has_no_body() -> None:
    async def main() -> None:
        async with connected() as client:
            stream = client.begin(method=b"HEAD", path=b"/large", ends=True)
            await client.send()
            assert await client.answer(stream) == (200, b"")
            (answer,) = client.of(h2.events.ResponseReceived, stream)
            assert (b"content-length", b"100000") in answer.headers

    run(main())


@pytest.mark.parametrize("length", [b"2", b"4", b"-3", b"three", b"3, 3"])
def test_a_body_of_a_wrong_length_is_refused(length: bytes) -> None:
    async def main() -> None:
        app = Backend()
        async with connected(app) as client:
            stream = client.begin((b"content-length", length))
            client.h2.send_data(stream, b"abc", end_stream=True)
            await client.send()
            await client.until(lambda: client.is_closed or client.of(h2.events.StreamReset))
        assert app.seen == []

    run(main())


def test_an_early_refusal_does_not_affect_other_streams() -> None:
    async def main() -> None:
        async with connected() as client:
            refused = client.begin(path=b"/refuse")
            await client.send()
            assert await client.answer(refused) == (401, b"no")
            for _ in range(100):
                client.h2.send_data(refused, b"x" * 10_000)
                await client.send()
            client.h2.end_stream(refused)
            other = client.begin(ends=True)
            await client.send()
            assert await client.answer(other) == (200, b"0")

    run(main())


def test_expect_100_continue_is_answered() -> None:
    async def main() -> None:
        async with connected() as client:
            stream = client.begin((b"expect", b"100-continue"))
            await client.send()
            await client.until(lambda: client.of(h2.events.InformationalResponseReceived, stream))
            client.h2.send_data(stream, b"abc", end_stream=True)
            await client.send()
            assert await client.answer(stream) == (200, b"3")
            refused = client.begin((b"expect", b"100-continue"), path=b"/refuse")
            await client.send()
            assert await client.answer(refused) == (401, b"no")
            assert not client.of(h2.events.InformationalResponseReceived, refused)

    run(main())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")], 400),
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a"), (b"host", b"b")], 400),
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"a"), (b":authority", b"a")], 400),
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"http://b/"), (b":authority", b"a")], 400),
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/\xff"), (b":authority", b"a")], 400),
        ([(b":method", b"CONNECT"), (b":authority", b"a:443")], 405),
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b"host", b"a")], 200),
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a%20b?c=d"), (b":authority", b"a")], 200),
    ],
)
def test_a_request_needs_an_authority_and_a_path(headers: Headers, status: int) -> None:
    async def main() -> None:
        async with connected() as client:
            client.h2.send_headers(1, headers, end_stream=True)
            await client.send()
            await client.until(lambda: client.is_closed or client.of(h2.events.StreamEnded))
            assert client.status(1) in ((status,) if status == 200 else (status, None))  # `h2` itself refuses some

    run(main())


@pytest.mark.parametrize(
    "header",
    [(b"transfer-encoding", b"chunked"), (b"connection", b"close"), (b"Upper", b"x"), (b":late", b"x"),
     (b"a", b"b\r\nc: d"), (b"a", b"\0"), (b"", b"x")],
)  # fmt: skip
def test_headers_that_requests_must_not_have_are_refused(header: tuple[bytes, bytes]) -> None:
    async def main() -> None:
        app = Backend()
        async with connected(app) as client:
            client.begin(header, ends=True)
            await client.send()
            await client.until(lambda: client.is_closed or client.of(h2.events.StreamReset))
        assert app.seen == []

    run(main())


def test_the_preface_may_come_byte_by_byte() -> None:
    async def main() -> None:
        async with listening(Backend()) as (_, address):
            client = Client(*await asyncio.open_connection(*address))
            stream = client.begin(ends=True)
            for byte in client.h2.data_to_send():
                client.writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert await client.answer(stream) == (200, b"0")
            client.writer.close()

    run(main())


def test_data_that_only_resembles_the_preface_is_http_1() -> None:
    assert statuses(talk(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n")) == [400]
    assert statuses(talk(b"PRI /a HTTP/1.1\r\nHost: a\r\n\r\n")) == [400]


# --- the end of a connection -----------------------------------------------------------------------------------------


def test_a_stopping_server_answers_current_requests_and_refuses_new_ones() -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def main() -> None:
        async with connected(app) as client:
            server = client.server  # type: ignore[attr-defined]
            stream = client.begin(ends=True)
            await client.send()
            await eventually(lambda: server.server_state.tasks)
            server.should_exit = True
            await client.until(lambda: client.of(h2.events.ConnectionTerminated))
            (goaway,) = client.of(h2.events.ConnectionTerminated)
            assert (goaway.error_code, goaway.last_stream_id) == (ErrorCodes.NO_ERROR, stream)
            gate.set()
            data = await read(client.reader)  # after GOAWAY, `h2` as a client reads nothing
            assert b"done" in data

    run(main())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Http2Connection, "silence_s", 0.3)


@pytest.mark.usefixtures("impatient")
def test_a_silent_client_is_disconnected() -> None:
    async def main() -> None:
        async with connected() as client:
            await client.until(lambda: client.is_closed)

    run(main())


@pytest.mark.usefixtures("impatient")
def test_a_slow_body_is_accepted_and_a_stalled_one_is_not() -> None:
    async def main() -> None:
        async with connected() as client:
            slow, still = client.begin(), client.begin()
            for _ in range(25):
                client.h2.send_data(slow, b"x")
                await client.send()
                await asyncio.sleep(0.1)
            client.h2.end_stream(slow)
            await client.send()
            assert await client.answer(slow) == (200, b"25")
            await client.until(lambda: client.of(h2.events.StreamReset, still))

    run(main())


@pytest.mark.usefixtures("impatient")
def test_a_client_that_takes_no_response_is_disconnected() -> None:
    async def main() -> None:
        async with connected(INITIAL_WINDOW_SIZE=10) as client:
            streams = [client.begin(path=b"/large", ends=True) for _ in range(20)]
            await client.send()
            await client.until(lambda: len(client.of(h2.events.StreamReset)) == len(streams), reads_all=False)
            server = client.server  # type: ignore[attr-defined]
            assert not server.server_state.tasks

    run(main())


# --- attacks ---------------------------------------------------------------------------------------------------------


def frames(frame: Frame, times: int) -> bytes:
    return frame.serialize() * times


FLOODS = {
    "PING": PingFrame(0, opaque_data=b"01234567"),
    "SETTINGS": SettingsFrame(0, settings={4: 1000}),
    "PRIORITY": PriorityFrame(1, stream_weight=3),
    "WINDOW_UPDATE": WindowUpdateFrame(0, window_increment=1),
    "empty DATA": DataFrame(1, data=b""),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_the_number_of_frames_without_effect_is_limited(kind: str) -> None:
    async def main() -> None:
        async with connected() as client:
            client.begin()
            await client.send()
            for _ in range(100):
                if client.is_closed:
                    break
                await client.send(frames(FLOODS[kind], 1000))
            assert await client.code() in (ErrorCodes.ENHANCE_YOUR_CALM, None)  # None: discarded before it was read

    run(main())


def test_small_body_pieces_are_accepted_until_there_are_very_many() -> None:
    async def main() -> None:
        async with connected() as client:
            stream = client.begin()
            for _ in range(12):
                await client.send(frames(DataFrame(stream, data=b"x" * 17), 1000))
            await client.send(DataFrame(stream, data=b"", flags=["END_STREAM"]).serialize())
            assert await client.answer(stream) == (200, b"204000")

    run(main())
    received = Frames(lambda: 0.0)  # no time passes, so the number does not depend on the machine
    received.add(PREFACE + frames(DataFrame(1, data=b"x"), 50_001))
    assert received.take() == PREFACE
    for _ in range(50_000):
        assert received.take()
    with pytest.raises(TooMuch) as raised:
        received.take()
    assert raised.value.code is ErrorCodes.ENHANCE_YOUR_CALM


def test_the_rate_of_reset_streams_is_limited() -> None:
    async def main() -> None:
        app = Backend()
        async with connected(app) as client:
            for _ in range(20):
                for _ in range(100):
                    stream = client.begin()
                    client.h2.reset_stream(stream)
                await client.send()
            assert await client.code() in (ErrorCodes.ENHANCE_YOUR_CALM, None)
            assert app.begun <= 300

    run(main())


def test_streams_beyond_the_limit_are_refused_and_the_others_are_answered() -> None:
    async def main() -> None:
        async with connected() as client:
            client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
            streams = [client.begin() for _ in range(150)]  # before the client has read the server's settings
            await client.send()
            await client.until(lambda: len(client.of(h2.events.StreamReset)) == 50)
            assert {item.error_code for item in client.of(h2.events.StreamReset)} == {ErrorCodes.REFUSED_STREAM}
            client.h2.end_stream(streams[0])
            await client.send()
            assert await client.answer(streams[0]) == (200, b"0")

    run(main())


@pytest.mark.parametrize("size", [0, 1, 1000, 16_384])
def test_the_size_of_a_header_block_is_limited(size: int) -> None:
    async def main() -> None:
        async with connected() as client:
            block = HeadersFrame(1, data=b"")
            await client.send(block.serialize())
            for _ in range(200):
                if client.is_closed:
                    break
                await client.send(frames(ContinuationFrame(1, data=b"\0" * size), 10))
            assert await client.code() not in (ErrorCodes.NO_ERROR,)

    run(main())


def test_headers_that_are_large_after_decompression_are_refused() -> None:
    async def main() -> None:
        app = Backend()
        async with connected(app) as client:
            client.begin(*[(b"x", b"y" * 3000)] * 100, ends=True)  # 3 KB on the wire
            await client.send()
            assert await client.code() in (ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.PROTOCOL_ERROR, None)
        assert app.begun == 0

    run(main())


def test_a_frame_that_is_too_large_is_refused_by_its_header() -> None:
    async def main() -> None:
        async with connected() as client:
            await client.send(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
            assert await client.code() == ErrorCodes.FRAME_SIZE_ERROR

    run(main())


@pytest.mark.parametrize("sent", [b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n" * 10, RstStreamFrame(7).serialize() * 3])
def test_invalid_data_after_the_preface_ends_the_connection(sent: bytes) -> None:
    async def main() -> None:
        app = Backend()
        async with listening(app) as (server, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(PREFACE + SettingsFrame(0).serialize() + sent)
            await read(reader)
            writer.close()
            await eventually(lambda: not server.server_state.connections)
        assert app.begun == 0

    run(main())


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def main() -> None:
        async with listening(Backend()) as (server, address):
            with socket.create_connection(address) as client:
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, PREFACE + SettingsFrame(0).serialize())
                ping = frames(PingFrame(0, opaque_data=b"01234567"), 900)
                sending = asyncio.create_task(loop.sock_sendall(client, ping))
                await eventually(sending.done)
                (connection,) = server.server_state.connections
                assert connection._transport.get_write_buffer_size() < 1_000_000  # type: ignore[union-attr]

    run(main())


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("http2")
    write_function(folder / "f" / "f", on="hook")
    (folder / "f" / "webhooks").mkdir()
    (folder / "f" / "webhooks" / "any.yaml").write_text("event: hook\n")
    with serve(folder / "f", folder / "db") as server:
        server.key = new_key(folder / "db")  # type: ignore[attr-defined]
        yield server


def test_the_whole_api_works_over_http_2(server: Server) -> None:
    key = server.key  # type: ignore[attr-defined]
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(http1=False, http2=True, base_url=server.url, headers=headers) as http:
        sent = http.post("/e", json=[{"name": "hook", "data": {"n": n}} for n in range(500)])
        assert (sent.status_code, sent.http_version, len(sent.json()["ids"])) == (200, "HTTP/2", 500)
        made = http.post("/webhooks/any", json={"order": 7})
        assert made.status_code == 200
        (event_id,) = made.json()["ids"]
        assert http.get(f"/v1/events/{event_id}").json()["data"] == {"order": 7}
        assert http.get("/v1/runs?limit=5").status_code == 200
        assert http.head("/healthz").status_code == 200
        assert http.get("/openapi.json").json()["openapi"] == "3.1.0"
        assert http.post("/v1/functions/f/pause", json={"drop": True}).json()["state"] == "dropping"
        assert http.post("/e", content=b"x" * 5_000_000).status_code == 413
        assert http.post("/e/wrong", content=b"x" * 3_000_000).status_code == 401
        assert http.post("/webhooks/none", content=b"x" * 3_000_000).status_code == 404
    assert server.stderr == ""
    assert not [line for line in server.lines if line["level"] == "error"]
