"""Runs the event of a run again."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.core.events.events import run_id
from stepwell.core.run.messages import Fact
from stepwell.core.run.permits import begin
from stepwell.core.run.resume import Earlier, Restart, resumption
from stepwell.core.run.run import new_run
from stepwell.engine.loop import Engine
from stepwell.platform import Batch, Cause, NotWritten, RunFact, RunRecord


def rerun(
    engine: Engine,
    batch: Batch,
    record: RunRecord,
    token: str,
    cause: Cause | None = None,
    restart: Restart | None = None,
) -> str | None:
    """Runs the event of a run again on the live version, from the start or from a step.

    Returns the new run's id; None if the function is not live. Raises CannotResume or NotWritten.
    """
    plan = batch.catalog().live.get(record.plan.function_id)
    if plan is None:
        return None
    new_id = run_id(plan.function_id, record.event.id, token)
    run, fact = begin(new_run(new_id, plan, batch.now), plan, record.event)
    facts: Sequence[Fact] = [fact]
    if restart is not None:
        earlier = Earlier(record.plan, record.run, record.outputs, record.errors)
        facts = resumption(earlier, plan, restart)
    batch.add(RunRecord(run, plan, record.event, batch.position(), rerun_of=record.run.id, replay=record.replay))
    if engine.process(batch, [], [RunFact(new_id, fact, cause) for fact in facts]):
        raise NotWritten(f"run {new_id}, the rerun of {record.run.id}, could not be written")
    return new_id
