"""Runs the event of a run again."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.core.events.events import run_id
from stepwell.core.routing.not_started import CannotStart, NotStarted
from stepwell.core.run.messages import Fact
from stepwell.core.run.permits import begin
from stepwell.core.run.resume import Earlier, Restart, resumption
from stepwell.core.run.run import new_run, with_problem
from stepwell.engine.loop import Engine
from stepwell.engine.singleton import cancellations, claim_key
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

    Returns the new run's id; None if the function is not live. Raises CannotResume, CannotStart or NotWritten.
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
    claimed = claim_key(batch, plan, run, record.event, batch.position())
    if isinstance(claimed, NotStarted):
        raise CannotStart(f"{claimed.problem}; cancel that run, or rerun once it has ended")
    run = with_problem(run, "singleton", claimed.problem)
    # Requests are not redelivered. So the old run is cancelled first: a crash must not leave both open.
    if claimed.replaces and engine.process(batch, [], cancellations(claimed.replaces, new_id, cause)):
        raise NotWritten(f"the runs that {new_id} replaces could not be cancelled")
    batch.add(RunRecord(run, plan, record.event, batch.position(), rerun_of=record.run.id, replay=record.replay))
    if engine.process(batch, [], [RunFact(new_id, fact, cause) for fact in facts]):
        raise NotWritten(f"run {new_id}, the rerun of {record.run.id}, could not be written")
    return new_id
