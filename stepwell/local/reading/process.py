"""The reader process of a busy server: `python -m stepwell.local.reading.process FD DATABASE PUBLIC_URL`.

It opens the database read-only, and answers questions from the server's socket. It ends when the socket closes, which
also happens when the server dies. The server has checked the API key of each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import uvloop
from starlette.types import ASGIApp, Message

from stepwell.api.access import AnyKey
from stepwell.api.v1.app import create_reads_app
from stepwell.core.events.users import Person
from stepwell.core.run.approvals import Links
from stepwell.core.signing import single_key
from stepwell.local.database.keys import link_secret
from stepwell.local.reading.frames import Question, pack_answer, take_questions
from stepwell.local.system.prctl import hide_memory, lower_priority
from stepwell.local.users import LocalUsers

NICE = 10  # steps and the engine get the CPU first


class Questions(asyncio.Protocol):
    """Receives questions and sends the application's answers."""

    _transport: asyncio.Transport

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._received = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_over = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.write(pack_answer(0, 0, (), b""))

    def data_received(self, data: bytes) -> None:
        self._received += data
        for question in take_questions(self._received):
            task = asyncio.create_task(self._answer(question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over.set()

    async def _answer(self, question: Question) -> None:
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        with contextlib.suppress(Exception):  # the application has already sent a 500
            await self._app(_scope(question), _receive_empty_body, send)
        status = messages[0]["status"] if messages else 500
        headers = messages[0].get("headers", ()) if messages else ()
        body = b"".join(message.get("body", b"") for message in messages[1:])
        self._transport.write(pack_answer(question.number, status, headers, body))


def _scope(question: Question) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": question.path,
        "raw_path": question.path.encode(),
        "query_string": question.query.encode("latin-1"),
        "root_path": "",
        "headers": [],
    }


async def _receive_empty_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _refuse_to_erase(person: Person) -> NoReturn:
    raise AssertionError("this process only reads")


async def answer(channel: socket.socket, database: Path, public_url: str) -> None:
    users = LocalUsers(database, _refuse_to_erase)
    links = Links(public_url, single_key(link_secret(users.connection)))
    questions = Questions(create_reads_app(users, lambda: links, AnyKey()))
    gc.freeze()
    await asyncio.get_running_loop().create_unix_connection(lambda: questions, sock=channel)
    await questions.is_over.wait()


def main() -> None:
    number, database, public_url = sys.argv[1:]
    lower_priority(NICE)
    hide_memory()
    channel = socket.socket(fileno=int(number))
    channel.set_inheritable(False)
    channel.setblocking(False)
    uvloop.run(answer(channel, Path(database), public_url))
    os._exit(0)  # without waiting for reads in progress


if __name__ == "__main__":
    main()
