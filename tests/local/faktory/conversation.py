"""A local server with a Faktory port in this process, and a client that speaks the protocol byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson

from stepwell.api.access import AnyKey
from stepwell.core.definition.definition import parse_definition
from stepwell.local.engine.clock import Clock
from stepwell.local.faktory.options import FaktoryOptions
from stepwell.local.faktory.passwords import password_hash
from stepwell.local.faktory.serving import faktory_serving
from stepwell.local.http.listening import listen
from stepwell.local.http.serving import app_of
from stepwell.local.http.tls import Certificate
from stepwell.local.server import LocalServer, ServerSettings, open_server
from stepwell.testing.local import put_empty_database

Json = dict[str, Any]
DEADLINE_S = 20.0
BASE = "http://stepwell.test"


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def greeting(self) -> Json:
        line = await self._reader.readline()
        assert line.startswith(b"+HI "), line
        found: Json = orjson.loads(line[4:])
        return found

    async def ask(self, command: str) -> str | None:
        """Sends a command, and returns the content of the reply; None for a null reply."""
        self.send(command + "\r\n")
        return await self.reply()

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def reply(self) -> str | None:
        async with asyncio.timeout(DEADLINE_S):
            line = (await self._reader.readline()).decode()
            if line[:1] != "$":
                assert line[:1] in ("+", "-"), line
                return line.rstrip("\r\n").removeprefix("+")
            size = int(line[1:])
            return None if size < 0 else (await self._reader.readexactly(size + 2))[:-2].decode()

    async def fetch(self, *queues: str) -> Json | None:
        reply = await self.ask(f"FETCH {' '.join(queues)}")
        return None if reply is None else orjson.loads(reply)

    async def job(self, *queues: str) -> Json:
        """The next job, which must come."""
        for _ in range(5):
            if (job := await self.fetch(*queues)) is not None:
                return job
        raise AssertionError("no job came")

    async def is_closed(self) -> bool:
        """Whether the server closes the connection. What it still sends is skipped."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while await self._reader.read(65536):
                    pass
            except ConnectionResetError:
                pass
            return True

    async def end(self) -> None:
        assert await self.ask("END") == "OK"
        assert await self.is_closed()
        self.writer.close()

    def vanish(self) -> None:
        """Ends the connection as a killed process does."""
        self.writer.transport.abort()


class Faktory:
    """A started server. `http` calls the HTTP API."""

    def __init__(self, server: LocalServer, port: int, http: httpx.AsyncClient) -> None:
        self.server, self.port, self.http = server, port, http
        self.platform = server.platform
        self._clients: list[Client] = []

    async def connect(self, *, tls: ssl.SSLContext | None = None) -> Client:
        """A connection without a HELLO."""
        name = "localhost" if tls else None
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name))
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Ends all connections."""
        for client in self._clients:
            client.vanish()
        for client in self._clients:
            with suppress(OSError):
                await client.writer.wait_closed()

    async def client(self, password: str = "", tls: ssl.SSLContext | None = None, **hello: Any) -> Client:
        """A connection of a client that has said HELLO."""
        client = await self.connect(tls=tls)
        greeting = await client.greeting()
        if password:
            hello["pwdhash"] = password_hash(password, greeting["s"], greeting["i"])
        assert await client.ask(f"HELLO {orjson.dumps({'v': 2, **hello}).decode()}") == "OK"
        return client

    async def worker(self, wid: str = "worker-1") -> Client:
        return await self.client(wid=wid, hostname="here", pid=1, labels=["test"])

    async def is_empty(self, table: str) -> bool:
        (count,) = self.platform.store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return bool(count == 0)

    async def advance(self, ms: int) -> None:
        """Moves the clock forward, and lets the timers on the way fire."""
        self.platform.clock.advance(ms)
        self.platform.batches.schedule()
        await self.platform.batches.write_all()

    async def deploy(self, id: str = "f", on: str = "go", **steps: Json) -> None:
        """Deploys a function. Without `steps`, it has one step, for workers of the queue `default`."""
        steps = steps or {"a": job_step()}
        definition = parse_definition({"id": id, "triggers": [{"event": on}], "steps": steps}).normalised()
        await self.platform.registration.register(definition, {}, {}, "f.json")

    async def send(self, name: str = "go", **event: Any) -> str:
        answer = await self.http.post("/e/key", json={"name": name, **event})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["ids"][0])

    async def runs(self, event: str) -> list[Json]:
        answer = await self.http.get(f"/v1/events/{event}/runs")
        found: list[Json] = answer.json()["data"] if answer.status_code == 200 else []
        return found

    async def is_step(self, event: str, status: str) -> bool:
        """Whether step a of the only run has this status."""
        return [run["steps"]["a"]["status"] for run in await self.runs(event)] == [status]

    async def run(self, event: str, status: str = "completed") -> Json:
        """The only run of an event, when it has this status."""
        return await until(lambda: self._run(event, status))

    async def _run(self, event: str, status: str) -> Json | None:
        return next((run for run in await self.runs(event) if run["status"] == status), None)


async def until(find: Callable[[], Coroutine[None, None, Any]]) -> Any:
    """Calls `find` until the result is true, and returns it."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await find()):
            await asyncio.sleep(0.005)
        return found


def job_step(jobtype: str = "Job", queue: str = "default", **fields: Any) -> Json:
    return {"runtime": {"type": "faktory", "jobtype": jobtype, "queue": queue}, **fields}


@asynccontextmanager
async def faktory(
    folder: Path, *, password: str = "", certificate: Certificate | None = None, clock: Clock | None = None
) -> AsyncIterator[Faktory]:
    put_empty_database(folder / "stepwell.db")
    settings = ServerSettings(folder / "stepwell.db", serves_faktory=True, public_url=BASE)
    listener = listen("127.0.0.1", 0)
    options = FaktoryOptions(listener, password, certificate)
    async with open_server(settings, clock) as server, faktory_serving(server, options) as around:
        transport = httpx.ASGITransport(app_of(server, AnyKey(None), around=around))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            it = Faktory(server, listener.getsockname()[1], http)
            try:
                yield it
            finally:
                await it.close()


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await main()

    asyncio.run(limited())
