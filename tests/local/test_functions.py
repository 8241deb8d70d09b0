"""Versions in the database, and what is derived from them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from stepwell.core.run.run import RunStatus
from tests.local.scripted import scripted


def test_a_version_replaced_in_the_batch_of_its_last_run_stays_awaited(tmp_path: Path) -> None:
    """The run and the new version belong to one batch; the awaited event is indexed all the same."""

    async def main() -> None:
        wait = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1d"}
        async with scripted(tmp_path) as on:
            await on.deploy(a={"after": [{"step": "$trigger", "async": wait}]})
            event = await on.send(data={"order": 7})
            (first,) = on.runs(event)
            await on.platform.runs.cancel(first.run.id)
            again, _, _ = await asyncio.gather(
                on.platform.runs.rerun(first.run.id, "again"), on.deploy(), on.send("other")
            )
            await on.send("paid", data={"order": 7})
            await on.platform.until_idle()
            statuses = {detail.run.id: detail.run.status for detail in on.runs(event)}
            assert statuses == {first.run.id: RunStatus.CANCELLED, again: RunStatus.COMPLETED}

    asyncio.run(main())


def test_registering_an_unchanged_function_writes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with scripted(tmp_path) as on:
            await on.deploy()
            before = on.platform.store.connection.total_changes
            await on.deploy()
            assert on.platform.store.connection.total_changes == before
            await on.deploy(b={})
            assert on.platform.store.connection.total_changes > before

    asyncio.run(main())
