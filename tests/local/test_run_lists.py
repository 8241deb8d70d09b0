"""Lists of runs: their cost, and that they never show outdated data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import orjson

from stepwell.api.views.runs import run_text
from stepwell.core.events.users import Person
from stepwell.core.run.messages import Error, Outcome
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.erasure import erase
from stepwell.local.engine.retention import clean
from stepwell.local.queries.run_texts import RunTexts
from stepwell.local.store.users import read_person
from stepwell.reader import RunDetail
from tests.local.scripted import Scripted, scripted, until

Test = Callable[[Scripted], Coroutine[None, None, None]]
DAY_MS = 86_400_000


def on_platform(folder: Path, test: Test, *, hold: bool = False) -> None:
    async def main() -> None:
        async with scripted(folder, hold=hold, clock=Clock()) as it:
            await test(it)

    asyncio.run(main())


class Shown:
    """Shows runs as the API does, and records which ones."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def __call__(self, detail: RunDetail) -> bytes:
        self.runs.append(detail.run.id)
        return run_text(detail)


def person(it: Scripted, text: str) -> Person:
    found = read_person(it.platform.store.connection, text)
    assert found is not None
    return found


def test_the_attempts_of_a_page_are_read_by_one_statement(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={"after": [{"step": "a"}]})
        for _ in range(20):
            await it.send()
        await it.platform.until_idle()
        statements: list[str] = []
        it.queries.read_runs(limit=1)  # loads the version
        it.queries.connection.set_trace_callback(statements.append)
        page = it.queries.read_runs(limit=20)
        assert [len(run.attempts) for run in page.items] == [2] * 20
        assert sum("FROM attempts" in statement for statement in statements) == 1
        assert len(statements) == 4  # the list, the attempts, BEGIN and COMMIT

    on_platform(tmp_path, test)


def test_an_ended_run_is_encoded_once_for_all_readers(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        for _ in range(3):
            await it.send()
        await it.platform.until_idle()
        shown = Shown()
        first = it.queries.read_run_texts(shown)
        assert len(shown.runs) == 3
        new = await it.send()
        await it.platform.until_idle()
        again = it.queries.read_run_texts(shown)
        assert len(shown.runs) == 4
        assert again.items[1:] == first.items
        assert orjson.loads(again.items[0])["event_id"] == new

    on_platform(tmp_path, test)


def test_an_open_run_is_shown_with_its_current_state(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={"after": [{"step": "a"}]})
        await it.send()
        await until(lambda: len(it.runner.held) == 1)
        assert orjson.loads(it.queries.read_run_texts(run_text).items[0])["steps"]["a"]["status"] == "running"
        it.runner.release()
        await until(lambda: len(it.runner.held) == 1)
        assert orjson.loads(it.queries.read_run_texts(run_text).items[0])["steps"]["a"]["status"] == "completed"

    on_platform(tmp_path, test, hold=True)


def test_attempts_that_end_after_their_run_failed_are_shown(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(a={}, b={})
        await it.send()
        await until(lambda: len(it.runner.held) == 2)
        fails, ends = it.runner.held
        fails.end(Outcome(error=Error("exit", "no"), retryable=False))
        await until(lambda: it.count("runs WHERE ended_at IS NOT NULL"))
        (text,) = it.queries.read_run_texts(run_text).items
        assert orjson.loads(text)["steps"]["b"]["status"] == "running"
        ends.end(Outcome(output=b'"late"'))
        await it.platform.until_idle()
        (text,) = it.queries.read_run_texts(run_text).items
        assert orjson.loads(text)["steps"]["b"]["output"] == "late"

    on_platform(tmp_path, test, hold=True)


def test_after_an_erasure_lists_show_no_erased_data(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send(user={"id": "ann", "email": "ann@example.com"})
        await it.platform.until_idle()
        assert b"ann" in it.queries.read_run_texts(run_text).items[0]
        done = await erase(it.platform, person(it, "ann"))
        assert done.is_done
        (text,) = it.queries.read_run_texts(run_text).items
        assert b"ann" not in text
        assert b"done" not in text  # the step's output

    on_platform(tmp_path, test)


def test_deleted_runs_are_in_no_list(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy()
        await it.send()
        await it.platform.until_idle()
        assert len(it.queries.read_run_texts(run_text).items) == 1
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert it.queries.read_run_texts(run_text).items == []

    on_platform(tmp_path, test)


def test_texts_take_a_bounded_number_of_bytes() -> None:
    texts = RunTexts(most_bytes=5000)
    for number in range(100):
        texts.put(number, b"x" * 600, 0)
    assert texts.bytes <= 5000
    assert [number for number in range(100) if texts.get(number, 0) is not None] == [95, 96, 97, 98, 99]


def test_readers_from_before_an_erasure_do_not_use_the_cache() -> None:
    texts = RunTexts()
    texts.put("a", b"before", 0)
    assert texts.get("a", 1) is None  # there was an erasure, so all texts are dropped
    assert texts.bytes == 0
    texts.put("a", b"before", 0)  # by a reader that began before the erasure
    assert texts.get("a", 1) is None
    texts.put("a", b"after", 1)
    assert texts.get("a", 0) is None
    assert texts.get("a", 1) == b"after"
