"""Open approvals on the local server: the cost of waiting, and decisions at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.run.approvals import Link, decided
from stepwell.core.run.run import RunStatus
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.retention import clean
from stepwell.local.store.batch import LocalBatch
from stepwell.reader import RunDetail
from tests.local.scripted import Scripted, scripted

DAY_MS = 86_400_000
ASKS: dict[str, Any] = {"runtime": {"type": "approval", "message": "{{ data.n }}?"}, "timeout": "300d"}
STEPS = {"ask": ASKS, "yes": {"after": [{"step": "ask", "if": "response.approved"}]}}
Test = Callable[[Scripted], Coroutine[None, None, None]]


def on_platform(folder: Path, test: Test, **options: Any) -> None:
    async def main() -> None:
        async with scripted(folder, **options) as it:
            await test(it)

    asyncio.run(main())


def links(it: Scripted) -> list[tuple[Link, Link]]:
    """The links to approve and to decline, of runs with open approvals, newest first."""

    def link(url: str) -> Link:
        found = it.platform.links.read(url.rpartition("/")[2])
        assert found is not None
        return found

    def pair(detail: RunDetail) -> tuple[Link, Link]:
        approve, decline = it.platform.links.of(detail.plan, detail.run, 0)
        return link(approve), link(decline)

    return [pair(detail) for detail in it.queries.read_asking(None, 1000).items]


async def decide(it: Scripted, link: Link, by: str) -> bool:
    return await it.platform.runs.decide(link, decided(link.decision, None, by, it.platform.clock.now()))


def test_open_approvals_cause_no_work(tmp_path: Path) -> None:
    async def ask(it: Scripted) -> None:
        await it.deploy(**STEPS)
        await it.platform.send(it.events(500, data={"n": 1}))
        await it.platform.until_idle()
        assert it.platform.store.active() == []
        assert it.count("runs WHERE active = 1") == 0
        assert it.count("timers") == 500

    async def after_the_restart(it: Scripted) -> None:
        await it.platform.until_idle()
        assert len(it.queries.read_asking(None, 1000).items) == 500
        assert await decide(it, links(it)[0][0], "Ada")
        await it.platform.until_idle()
        assert it.count("runs WHERE status = 1") == 1
        assert it.count("attempts") == 2

    on_platform(tmp_path, ask)
    on_platform(tmp_path, after_the_restart)


def test_open_approvals_are_found_by_an_index(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        sql = "EXPLAIN QUERY PLAN SELECT DISTINCT run FROM timers WHERE kind = 4 AND run < ? ORDER BY run DESC LIMIT ?"
        plan = " ".join(row[3] for row in it.platform.store.connection.execute(sql, (2**63 - 1, 50)))
        assert "timers_approvals" in plan
        assert "TEMP B-TREE" not in plan

    on_platform(tmp_path, test)


def test_of_two_decisions_in_one_batch_the_first_counts(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(**STEPS)
        await it.send(data={"n": 1})
        await it.platform.until_idle()
        ((approve, decline),) = links(it)
        both = await asyncio.gather(decide(it, decline, "Ada"), decide(it, approve, "Eve"), decide(it, decline, "Ada"))
        assert both == [True, False, False]
        await it.platform.until_idle()
        (run,) = it.runs()
        assert run.run.status is RunStatus.COMPLETED
        assert b'"declined"' in (run.attempts[0].output or b"")

    on_platform(tmp_path, test)


def test_a_decision_that_cannot_be_written_leaves_the_approval_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(**STEPS)
        await it.send(data={"n": 1})
        await it.platform.until_idle()
        ((approve, _),) = links(it)

        def full(batch: LocalBatch) -> None:
            raise OSError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(LocalBatch, "flush", full)
            with pytest.raises(Unavailable):
                await decide(it, approve, "Ada")
        assert await decide(it, approve, "Ada")
        await it.platform.until_idle()
        assert it.runs()[0].run.status is RunStatus.COMPLETED

    on_platform(tmp_path, test)


def test_retention_keeps_runs_with_open_approvals_and_their_events(tmp_path: Path) -> None:
    async def test(it: Scripted) -> None:
        await it.deploy(**STEPS)
        await it.send(data={"n": 7})
        await it.platform.until_idle()
        it.platform.clock.advance(200 * DAY_MS)
        await clean(it.platform, 30)
        (detail,) = it.queries.read_asking(None, 10).items
        assert detail.asked == {0: "7?"}
        assert await decide(it, links(it)[0][0], "Ada")
        await it.platform.until_idle()
        it.platform.clock.advance(31 * DAY_MS)
        await clean(it.platform, 30)
        assert (it.count("runs"), it.count("timers"), it.queries.read_asked(detail.run.id)) == (0, 0, None)

    on_platform(tmp_path, test)
