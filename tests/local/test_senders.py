"""Senders of the HTTP API that disconnect, send slowly, or have no key, and what they leave behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from stepwell.api.http.body import BodyMemory, read_body
from stepwell.api.http.problem import Problem
from stepwell.api.v1.app import Lazy
from tests.servers import Server, eventually, new_key, serve, write_function


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("senders")
    write_function(folder / "f" / "f", on="hook")
    (folder / "f" / "webhooks").mkdir()
    (folder / "f" / "webhooks" / "any.yaml").write_text("event: hook\n")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serve(folder / "f", folder / "db") as server:
        yield server


@pytest.fixture(scope="module")
def key(folder: Path) -> str:
    return new_key(folder / "db")


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(path: str, key: str, length: int) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {key}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


@pytest.mark.parametrize("sent", [b"", b'{"name": ', b'{"name": "hook"}'])
@pytest.mark.parametrize("path", ["/e", "/webhooks/any", "/v1/functions", "/v1/functions/f/pause"])
def test_an_incomplete_request_sends_no_event(server: Server, key: str, path: str, sent: bytes) -> None:
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {key}"}) as http:
        before = http.get("/v1/events").json()
        with connect(server) as client:
            client.sendall(head(path, key, 100).replace(b"Host: a", b"Host: a\r\nExpect: 100-continue"))
            assert b"100 Continue" in client.recv(1000)  # the server waits for the body
            client.sendall(sent)
        assert http.get("/healthz").status_code == 200
        assert http.get("/v1/events").json() == before
        assert http.get("/v1/functions/f/routing").json()["state"] == "on"
    assert not [line for line in server.lines if line["level"] == "error" or "exception" in line]
    assert server.stderr == ""


@pytest.mark.parametrize(
    ("path", "status"),
    [("/e", 401), ("/e/wrong", 401), ("/webhooks/none", 404), ("/v1/functions", 401), ("/v1/approvals/no", 404),
     ("/approvals/no", 404), ("/v1/nothing", 404), ("/v1/runs", 405), ("/v1/functions/f/pause?a=b", 401)],
)  # fmt: skip
def test_an_unauthorised_request_is_refused_before_the_body(server: Server, path: str, status: int) -> None:
    with connect(server) as client:
        client.sendall(head(path, "sw_send_no", 4_000_000))
        assert client.recv(1000).startswith(b"HTTP/1.1 %d " % status)
    with connect(server) as client:
        client.sendall(head(path, "sw_send_no", 3).replace(b"Host: a", b"Host: a\r\nExpect: 100-continue"))
        assert client.recv(1000).startswith(b"HTTP/1.1 %d " % status)


def test_bodies_without_a_key_are_not_buffered(server: Server) -> None:
    def memory() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024

    before, clients = memory(), []
    for _ in range(50):
        client = connect(server)
        clients.append(client)
        try:
            client.sendall(head("/e", "no", 4_194_304) + b"a" * 4_000_000)
        except OSError:
            pass
    assert memory() < before + 60
    for client in clients:
        client.close()


def test_a_body_that_is_too_large_is_refused_by_its_headers(server: Server, key: str) -> None:
    for path in ("/e", "/webhooks/any", "/v1/functions/f/pause"):
        with connect(server) as client:
            client.sendall(head(path, key, 5_000_000))
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


# --- incomplete bodies -----------------------------------------------------------------------------------------------


def receiver(pieces: asyncio.Queue[Any]) -> Any:
    async def receive() -> Any:
        return await pieces.get()

    return receive


def test_the_body_that_has_taken_longest_is_dropped() -> None:
    async def main() -> None:
        memory = BodyMemory(1000)
        queues: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(3)]
        reads = [asyncio.create_task(memory.collect(receiver(q), b"x" * 400, 10_000)) for q in queues[:2]]
        await asyncio.sleep(0)
        reads.append(asyncio.create_task(memory.collect(receiver(queues[2]), b"y" * 400, 10_000)))
        with pytest.raises(Problem) as refused:
            await reads[0]
        assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "1")
        for queue in queues[1:]:
            queue.put_nowait({"type": "http.request", "body": b"z", "more_body": False})
        assert await reads[1] == b"x" * 400 + b"z"
        assert await reads[2] == b"y" * 400 + b"z"
        assert memory.used == 0

    asyncio.run(main())


def test_a_body_without_room_is_refused_and_dropped() -> None:
    async def main() -> None:
        memory = BodyMemory(1000)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        with pytest.raises(Problem) as refused:
            await memory.collect(receiver(queue), b"x" * 2000, 10_000)
        assert (refused.value.status, memory.used) == (503, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "http.disconnect"}], 400),
        ([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}], 400),
        ([{"type": "http.request", "body": b"a" * 11}], 413),
        ([{"type": "http.request", "body": b"a" * 6, "more_body": True}] * 2, 413),
    ],
)
def test_an_incomplete_body_is_refused(messages: list[Any], status: int) -> None:
    async def main() -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for message in messages:
            queue.put_nowait(message)
        with pytest.raises(Problem) as refused:
            await read_body(receiver(queue), None, 10)
        assert refused.value.status == status

    asyncio.run(main())


def test_the_openapi_document_is_generated_once() -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return b"{}"

    once = Lazy(make)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: once(), range(100))) == {b"{}"}
    assert made == [1]


def test_the_limit_of_open_files_is_raised(server: Server) -> None:
    def limits() -> list[str]:
        text = Path(f"/proc/{server.process.pid}/limits").read_text()
        return next(line for line in text.splitlines() if line.startswith("Max open files")).split()[3:5]

    assert eventually(lambda: limits()[0] == limits()[1])
