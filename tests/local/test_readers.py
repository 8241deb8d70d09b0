"""Reads in a process of their own: the answers are the same, whatever happens to the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.api.access import AnyKey
from stepwell.api.v1.app import create_reads_app
from stepwell.local.engine.erasure import erase
from stepwell.local.reading.frames import Question, pack_answer, pack_question, take_answers, take_questions
from stepwell.local.reading.process import NICE
from stepwell.local.reading.readers import ReaderProcess, Readers
from stepwell.local.store.users import read_person
from stepwell.local.users import LocalUsers
from tests.local.scripted import Scripted, scripted, until
from tests.local.web import run

URL = "http://127.0.0.1:8288"
FIRST, SECOND = Question(1, "/v1/runs", "limit=1"), Question(2, "/v1/events/é", "")


class Rest:
    """The server's own application. Counts its answers, and can be held."""

    def __init__(self, it: Scripted, folder: Path) -> None:
        self.answered = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        users = LocalUsers(folder / "db", lambda person: pytest.fail("a read erases"))
        self._app = create_reads_app(users, lambda: it.platform.links, AnyKey("right"))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.answered += 1
        await self.go_on.wait()
        await self._app(scope, receive, send)


class Site:
    def __init__(self, it: Scripted, rest: Rest, process: ReaderProcess) -> None:
        self.it, self.rest, self.process = it, rest, process
        self._app = Readers(rest, process, AnyKey("right"))

    async def get(self, target: str, key: str = "right", method: str = "GET") -> tuple[int, Any]:
        path, _, query = target.partition("?")
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
        await self._app({**scope, "root_path": "", "http_version": "1.1", "scheme": "http"}, receive, send)
        return messages[0]["status"], orjson.loads(messages[1]["body"])

    async def become_busy(self) -> None:
        """Reads twice at the same time, so that the process is started."""
        self.rest.go_on.clear()
        reads = [asyncio.create_task(self.get("/v1/runs")) for _ in range(2)]
        await until(lambda: self.rest.answered >= 2)
        self.rest.go_on.set()
        await asyncio.gather(*reads)
        await until(lambda: self.process.is_up)
        self.rest.answered = 0


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    async with scripted(folder) as it:
        await it.deploy()
        process = ReaderProcess(folder / "db", URL)
        try:
            yield Site(it, Rest(it, folder), process)
        finally:
            await process.close()


def test_a_single_read_needs_no_process(tmp_path: Path) -> None:
    async def test() -> None:
        async with site(tmp_path) as value:
            for _ in range(3):
                assert await value.get("/v1/runs") == (200, {"data": [], "next": None})
            assert value.process.pid is None

    run(test())


def test_parallel_reads_are_answered_by_a_process_with_the_same_result(tmp_path: Path) -> None:
    async def test() -> None:
        async with site(tmp_path) as value:
            event = await value.it.send(user={"id": "ann"}, data={"text": "é"})
            await value.it.platform.until_idle()
            (run_id,) = [run.run.id for run in value.it.runs()]
            asked = [
                "/v1/runs", "/v1/runs?limit=1&status=completed", f"/v1/runs/{run_id}", "/v1/runs/unknown",
                "/v1/runs?limit=0", "/v1/runs?nothing=1", f"/v1/events/{event}", f"/v1/events/{event}/runs/",
                "/v1/events?user=ann", "/v1/users/timeline?id=ann", "/v1/users/ann", "/v1/runs/a/b/c",
            ]  # fmt: skip
            before = [await value.get(target) for target in asked]
            assert [status for status, _ in before] == [200, 200, 200, 404, 400, 400, 200, 200, 200, 200, 200, 404]
            await value.become_busy()
            assert [await value.get(target) for target in asked] == before
            assert value.rest.answered == 0

    run(test())


def test_an_accepted_event_is_visible_to_the_next_read(tmp_path: Path) -> None:
    async def test() -> None:
        async with site(tmp_path) as value:
            await value.become_busy()
            for _ in range(100):
                event = await value.it.send()
                status, page = await value.get(f"/v1/runs?event={event}")
                assert (status, [item["event_id"] for item in page["data"]]) == (200, [event])
            assert value.rest.answered == 0

    run(test())


def test_a_read_without_a_key_is_refused_by_the_server_itself(tmp_path: Path) -> None:
    async def test() -> None:
        async with site(tmp_path) as value:
            await value.become_busy()
            status, body = await value.get("/v1/runs", key="wrong")
            assert (status, body["status"]) == (401, 401)
            assert value.rest.answered == 1

    run(test())


def test_when_the_process_dies_the_server_answers_and_another_one_is_started(tmp_path: Path) -> None:
    async def test() -> None:
        async with site(tmp_path) as value:
            await value.become_busy()
            first = value.process.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)  # so that it cannot answer before it dies
            reads = [asyncio.create_task(value.get("/v1/runs")) for _ in range(10)]
            await asyncio.sleep(0)
            os.kill(first, signal.SIGKILL)
            assert await asyncio.gather(*reads) == [(200, {"data": [], "next": None})] * 10
            assert value.rest.answered == 10
            while value.process.pid in (None, first):
                await asyncio.gather(value.get("/v1/runs"), value.get("/v1/runs"))
            await until(lambda: value.process.is_up)

    run(test())


def test_a_process_that_cannot_answer_is_not_restarted_repeatedly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        process = ReaderProcess(tmp_path / "no-database", URL)
        process.start_soon()
        await until(lambda: "ended with code" in caplog.text)
        assert (process.is_up, process.pid) == (False, None)
        assert await process.ask("/v1/runs", "") is None
        assert not process.may_start(asyncio.get_running_loop().time() + 30)
        assert process.may_start(asyncio.get_running_loop().time() + 61)

    run(test())


def test_after_an_erasure_the_process_shows_no_erased_data(tmp_path: Path) -> None:
    async def test() -> None:
        async with site(tmp_path) as value:
            await value.it.send(user={"id": "ann", "email": "ann@example.com"})
            await value.it.platform.until_idle()
            await value.become_busy()
            assert "ann" in str(await value.get("/v1/runs"))
            person = read_person(value.it.platform.store.connection, "ann")
            assert person is not None
            await erase(value.it.platform, person)
            _, page = await value.get("/v1/runs")
            assert page["data"][0]["user"] is None
            assert page["data"][0]["output"] == {"a": None}
            assert value.rest.answered == 0

    run(test())


def test_the_process_gets_nothing_of_the_servers_environment_that_it_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMENT_KEY", "hidden")

    async def test() -> None:
        async with site(tmp_path) as value:
            await value.become_busy()
            with contextlib.suppress(PermissionError):  # its memory is hidden, but root may read it
                assert b"hidden" not in Path(f"/proc/{value.process.pid}/environ").read_bytes()

    run(test())


def test_the_process_has_a_lower_priority_than_the_server(tmp_path: Path) -> None:
    """Also where Linux groups processes by session, and uses a process's own nice value within the group only."""

    async def test() -> None:
        own = Path("/proc/self/autogroup")
        before = own.read_text() if own.exists() else ""
        async with site(tmp_path) as value:
            await value.become_busy()
            pid = value.process.pid
            assert pid is not None
            assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICE
            if before:  # only on Linux with such groups
                assert Path(f"/proc/{pid}/autogroup").read_text().endswith(f"nice {NICE}\n")
                assert own.read_text() == before

    run(test())


def test_the_process_ends_when_the_server_ends(tmp_path: Path) -> None:
    async def test() -> None:
        async with scripted(tmp_path):
            own_end, process_end = socket.socketpair()
            arguments = [str(process_end.fileno()), str(tmp_path / "db"), URL]
            command = [sys.executable, "-m", "stepwell.local.reading.process", *arguments]
            with subprocess.Popen(command, pass_fds=(process_end.fileno(),)) as process:
                process_end.close()
                await asyncio.to_thread(own_end.recv, 100)  # the process is ready
                own_end.close()
                assert await asyncio.to_thread(process.wait, 20) == 0

    run(test())


def test_nothing_is_left_of_it_after_the_server_has_ended(tmp_path: Path) -> None:
    async def test() -> None:
        async with site(tmp_path) as value:
            await value.become_busy()
            pid = value.process.pid
        assert not Path(f"/proc/{pid}").exists()

    run(test())


def test_frames_are_read_from_pieces_of_any_size() -> None:
    questions = b"".join(map(pack_question, (FIRST, SECOND)))
    answers = pack_answer(1, 200, [(b"a", b"b:c"), (b"d", b"")], b"x" * 1000) + pack_answer(2, 404, (), b"")
    for size in (1, 7, 5000):
        received, found = bytearray(), []
        for start in range(0, len(questions), size):
            received += questions[start : start + size]
            found += take_questions(received)
        assert found == [FIRST, SECOND]
        got: list[Any] = []
        for start in range(0, len(answers), size):
            received += answers[start : start + size]
            got += take_answers(received)
        assert got == [(1, 200, [(b"a", b"b:c"), (b"d", b"")], b"x" * 1000), (2, 404, [], b"")]
