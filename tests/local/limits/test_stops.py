"""An attempt that is stopped keeps its permit until its process has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.local.scripted import DONE, scripted, until


def test_an_attempt_that_is_being_stopped_still_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with scripted(tmp_path, hold=True) as it:
            await it.deploy(control={"concurrency": {"limit": 1}})
            first, second = await it.send(), await it.send()
            await until(lambda: it.runner.held)
            (stopped,) = it.runner.held
            await it.platform.runs.cancel(it.runs(first)[0].run.id)
            await until(lambda: stopped.stopped)
            await it.send("other")  # another batch
            assert it.runner.held == [stopped]
            stopped.end(DONE)
            await until(lambda: len(it.runner.held) == 2)
            it.runner.held[1].end(DONE)
            await until(lambda: it.runs(second)[0].run.ended_at is not None)

    asyncio.run(main())
