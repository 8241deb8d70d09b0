"""Replays events on one version of a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepwell.core.events.events import Event, run_id
from stepwell.core.plan import Plan
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.run.permits import begin
from stepwell.core.run.run import new_run, with_problem
from stepwell.engine.loop import Engine
from stepwell.engine.singleton import cancellations, claim_key, still_replaced
from stepwell.platform import Batch, Cause, NewEvent, NotWritten, Replayed, RunFact, RunRecord


def replay_events(
    engine: Engine, batch: Batch, plan: Plan, requested: Sequence[str | Event], replay: str, cause: Cause | None = None
) -> list[Replayed]:
    """Runs events on one version of a function, in order. Events that this replay has already run are not run again.

    `requested` contains ids of stored events, or whole events, which are stored but start and wake nothing else. Raises
    NotWritten.
    """
    whole = [NewEvent(event, (), (), (), cause, replay) for event in requested if isinstance(event, Event)]
    for accepted in batch.put_events(whole) if whole else ():
        if isinstance(accepted, NotWritten):
            raise accepted
    ids = [event if isinstance(event, str) else event.id for event in requested]
    events = {event_id: event for event_id, event in batch.events(ids).items() if not event.erased}
    runs = {event_id: run_id(plan.function_id, event_id, replay) for event_id in ids if event_id in events}
    known = batch.load(runs.values())
    started = {event_id: run for event_id, run in runs.items() if run not in known}
    facts: list[RunFact] = []
    refused: dict[str, NotStarted] = {}
    for event_id, new_id in runs.items():
        run, event = new_run(new_id, plan, batch.now), events[event_id]
        if event_id not in started:
            facts += cancellations(still_replaced(batch, plan, run, event), new_id, cause)
            continue
        claimed = claim_key(batch, plan, run, event, batch.position())
        if isinstance(claimed, NotStarted):
            refused[event_id] = claimed
            continue
        run, fact = begin(with_problem(run, "singleton", claimed.problem), plan, event)
        batch.add(RunRecord(run, plan, event, batch.position(), replay=replay))
        facts += [RunFact(new_id, fact, cause), *cancellations(claimed.replaces, new_id, cause)]
    if engine.process(batch, [], facts):
        raise NotWritten("not all runs of the replay could be started")
    return [_replayed(event_id, runs, started, refused) for event_id in ids]


def _replayed(
    event_id: str, runs: Mapping[str, str], started: dict[str, str], refused: Mapping[str, NotStarted]
) -> Replayed:
    if event_id in refused:
        return Replayed(event_id, None, problem=refused[event_id].problem)
    return Replayed(event_id, runs.get(event_id), started.pop(event_id, None) is not None)
