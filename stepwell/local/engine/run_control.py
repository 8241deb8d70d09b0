"""Operations on runs for the API: cancel, decide on an approval, rerun, replay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stepwell.core.events.events import Event
from stepwell.core.routing.not_started import CannotStart
from stepwell.core.run.approvals import Link
from stepwell.core.run.messages import CancelRequested, Outcome
from stepwell.core.run.resume import CannotResume, Restart
from stepwell.local.engine.batch_loop import BatchLoop
from stepwell.local.engine.batch_work import BatchWork, UnknownRun
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.store import LocalStore
from stepwell.platform import Replayed, RunFact


class RunControl:
    """Each operation is durable when it returns or the future resolves. All raise Unavailable."""

    def __init__(self, store: LocalStore, batches: BatchLoop, work: BatchWork) -> None:
        self._store, self._batches, self._work = store, batches, work

    def cancel(self, run_id: str) -> asyncio.Future[None]:
        return self._batches.fold([RunFact(run_id, CancelRequested())])

    async def cancel_all(self, function_id: str) -> None:
        """Cancels all open runs of a function."""

        def open_runs(batch: LocalBatch) -> list[str]:
            sql = "SELECT id FROM runs WHERE function = ? AND status = 0"
            return [run_id for (run_id,) in self._store.connection.execute(sql, (function_id,))]

        run_ids = await self._batches.result_of(open_runs)
        await self._batches.fold([RunFact(run_id, CancelRequested()) for run_id in run_ids])

    async def decide(self, link: Link, outcome: Outcome) -> bool:
        """Ends an approval with this outcome. Returns False if it was not open any more."""
        return await self._batches.result_of(lambda batch: self._work.decide(batch, link, outcome))

    async def rerun(self, run_id: str, token: str, restart: Restart | None = None) -> str | None:
        """The id of the new run; None if the function is not live any more. Raises KeyError for an unknown run, and
        CannotResume or CannotStart."""
        return await self._batches.result_of(
            lambda batch: self._work.rerun(batch, run_id, token, restart), UnknownRun, CannotResume, CannotStart
        )

    async def replay(
        self, function_id: str, version: int, events: Sequence[str | Event], replay: str
    ) -> list[Replayed] | None:
        """The result for each event; None if the version does not exist."""
        return await self._batches.result_of(
            lambda batch: self._work.replay(batch, function_id, version, events, replay)
        )
