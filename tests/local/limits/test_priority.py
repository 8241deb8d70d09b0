"""`priority` also orders attempts that wait for a slot of the server, of functions without limits."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.local.scripted import DONE, scripted, until


def test_an_attempt_of_a_run_with_priority_gets_a_slot_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with scripted(tmp_path, hold=True, parallelism=1) as it:
            await it.deploy(control={"priority": "event.data.priority"})
            events = {priority: await it.send(data={"priority": priority}) for priority in (0, -5, 5)}
            order = []
            while len(order) < 3:
                await until(lambda: it.runner.held)
                (held,) = it.runner.held
                order.append(next(p for p, event in events.items() if it.runs(event)[0].run.id == held.job.run_id))
                it.runner.held.clear()
                held.end(DONE)
            assert order == [0, 5, -5]

    asyncio.run(main())
