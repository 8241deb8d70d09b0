"""Running events on one version of a function."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.core.events.events import Event, run_id
from stepwell.core.plan import Plan
from stepwell.core.run.messages import RunStarted
from stepwell.core.run.run import new_run
from stepwell.engine.loop import Engine
from stepwell.platform import Batch, Cause, NewEvent, NotWritten, Replayed, RunFact, RunRecord


def replay_events(
    engine: Engine, batch: Batch, plan: Plan, asked: Sequence[str | Event], replay: str, cause: Cause | None = None
) -> list[Replayed]:
    """Run events on this one version, in order: stored ones, named by their ids, and others, which are stored but
    start and wake nothing else. What this replay has run already does not run again. Raises NotWritten."""
    whole = [NewEvent(event, (), (), (), cause, replay) for event in asked if isinstance(event, Event)]
    for accepted in batch.put_events(whole) if whole else ():
        if isinstance(accepted, NotWritten):
            raise accepted
    ids = [event if isinstance(event, str) else event.id for event in asked]
    events = {event_id: event for event_id, event in batch.events(ids).items() if not event.erased}
    runs = {event_id: run_id(plan.function_id, event_id, replay) for event_id in ids if event_id in events}
    known = batch.load(runs.values())
    started = {event_id: run for event_id, run in runs.items() if run not in known}
    for event_id, new_id in started.items():
        run = new_run(new_id, plan, batch.now)
        batch.add(RunRecord(run, plan, events[event_id], batch.position(), replay=replay))
    if engine.process(batch, [], [RunFact(new_id, RunStarted(), cause) for new_id in started.values()]):
        raise NotWritten("not all of it is started")
    return [Replayed(event_id, runs.get(event_id), started.pop(event_id, None) is not None) for event_id in ids]
