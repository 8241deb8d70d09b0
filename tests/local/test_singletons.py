"""One open run for each key, together with other limits on one machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.local.scripted import scripted, until


def test_a_run_that_waits_for_another_limit_is_open_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with scripted(tmp_path, hold=True) as it:
            control = {
                "singleton": {"mode": "skip", "key": "data.account"},
                "concurrency": {"limit": 1, "scope": "run"},
            }
            await it.deploy(control=control)
            first = await it.send(data={"account": 1})
            held = await it.send(data={"account": 2})
            skipped = await it.send(data={"account": 2})
            await until(lambda: it.runner.held)
            assert [len(it.runs(event)) for event in (first, held, skipped)] == [1, 1, 0]
            assert [len(it.runner.held)] == [1]
            it.runner.release()
            await until(lambda: len(it.runner.started) == 2)
            it.runner.release()
            await it.platform.until_idle()
            assert [len(it.runs(event)) for event in (first, held, skipped)] == [1, 1, 0]

    asyncio.run(main())


def test_a_run_that_waits_for_another_limit_is_cancelled_by_a_later_event(tmp_path: Path) -> None:
    async def main() -> None:
        async with scripted(tmp_path, hold=True) as it:
            control = {
                "singleton": {"mode": "cancel", "key": "data.account"},
                "concurrency": {"limit": 1, "scope": "run"},
            }
            await it.deploy(control=control)
            events = [await it.send(data={"account": number}) for number in (1, 2, 2)]
            await until(lambda: it.runner.held)
            statuses = [it.runs(event)[0].run.status.name for event in events]
            assert statuses == ["RUNNING", "CANCELLED", "RUNNING"]
            assert it.runs(events[1])[0].run.replaced_by == it.runs(events[2])[0].run.id
            it.runner.release()
            await until(lambda: len(it.runner.started) == 2)
            it.runner.release()
            await it.platform.until_idle()
            assert it.runs(events[2])[0].run.status.name == "COMPLETED"

    asyncio.run(main())
