"""Accepts events, starts runs and wakes waits. An event is stored before waits are looked up (see `loop`)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from stepwell.core.events.events import Event, Invalid, run_id
from stepwell.core.plan import Plan
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.run.inputs import match_answer
from stepwell.core.run.invalid_events import invalid_event
from stepwell.core.run.messages import EventArrived
from stepwell.core.run.permits import begin
from stepwell.core.run.run import new_run
from stepwell.engine.checks import Start, admit
from stepwell.engine.singleton import cancellations
from stepwell.engine.work import Work
from stepwell.platform import Accepted, Batch, Cause, IncomingEvent, NewEvent, NotWritten, Route, RunFact, RunRecord
from stepwell.run_log import log_known_event

log = logging.getLogger("stepwell.engine")
types_log = logging.getLogger("stepwell.types")


def alert(event: Event, policy: str, errors: Sequence[Invalid], now: int, cause: Cause | None) -> IncomingEvent:
    """The engine's `stepwell/event.invalid` event for an event that does not match the schema; also logged."""
    first = errors[0]
    fields = {"event": event.id, "name": event.name, "v": event.v, "policy": policy, "pointer": first.pointer}
    text = "event %s %s does not match the schema (%s): %s: %s"
    types_log.warning(text, event.name, event.id, policy, first.pointer, first.message, extra={"fields": fields})
    return IncomingEvent(invalid_event(event, policy, errors, now), cause=cause)


def accept(work: Work, events: Sequence[IncomingEvent]) -> tuple[int, list[Route], list[IncomingEvent]]:
    """Accepts events, at least one.

    Returns how many events were processed, the routes of the accepted ones (what to start and wake), and alerts for
    those that do not match their schemas.
    """
    batch, catalog = work.batch, work.batch.catalog()
    new: list[NewEvent] = []
    for incoming in events:
        if new and work.is_tired():
            break
        event = incoming.event
        plans, not_started = catalog.starts(event, incoming.only)
        starts = [plan.function_id for plan in plans] if plans else ()
        keys = catalog.keys(event) if catalog.is_awaited(event.name) else ()
        new.append(NewEvent(event, keys, not_started, starts, incoming.cause))
    routes: list[Route] = []
    alerts: list[IncomingEvent] = []
    for put, accepted in zip(new, batch.put_events(new), strict=True):
        event = put.event
        if not isinstance(accepted, Accepted):
            if accepted is None:
                log_known_event(event)
            else:
                log.warning("event %s was not accepted, to be tried again: %s", event.id, accepted)
                work.fail([put.cause])
            continue
        if event.invalid:
            alerts.append(alert(event, "warn", event.invalid, batch.now, put.cause))
        is_awaited = catalog.is_awaited(event.name)
        if accepted.starts or is_awaited:
            event = event.at_position(accepted.position)
            routes.append(Route(event, accepted.starts, is_awaited, put.cause, put.keys))
    return len(new), routes, alerts


def start_and_wake(work: Work, routes: deque[Route]) -> list[RunFact]:
    """Starts runs and wakes waits for accepted events, and returns the facts for these runs.

    With a pace, only a piece of the work is done. Finished routes are removed from `routes`; routes that must wait are
    left to the pace.
    """
    pace, done = work.pace, 0
    facts: list[RunFact] = []
    if pace is not None and routes and pace.is_enough(sum(route.left for route in routes)):
        pace.leave(routes)
        routes.clear()
    while routes and not work.is_tired():
        route, room = routes[0], None if pace is None else pace.at_once - done
        if room is not None and room <= 0:
            break
        if pace is not None and not route.is_first and pace.must_wait(route.event.name):
            pace.leave([routes.popleft()])
            continue
        route.is_first = True
        if route.starts:
            starts, route.starts = route.starts[:room], route.starts[room:] if room else ()
            facts += _start_all(work, route, starts)
            done += len(starts)
        elif route.found:
            done += min(len(route.found), room or len(route.found))
            facts += wake(work, route, room)
        elif route.is_awaited:
            found = work.batch.find_waits(route.event, route.keys, route.behind)
            route.found, route.is_awaited = deque(found.waits), not found.is_all
            done += found.effort
        if not (route.starts or route.found or route.is_awaited):
            routes.popleft()
    return facts


def _start_all(work: Work, route: Route, starts: Sequence[str]) -> list[RunFact]:
    """Starts functions for an accepted event. For a paused function, the event is kept."""
    catalog = work.batch.catalog()
    plans: list[Plan] = []
    facts: list[RunFact] = []
    for function_id in starts:
        if catalog.is_paused(function_id):
            if not work.batch.hold(function_id, route.event):
                work.fail([route.cause])
        elif (plan := catalog.choose(function_id, route.event)) is not None:
            plans.append(plan)
    try:
        again = route.cause is not None and route.cause.redelivered
        started = _start(work.batch, plans, route.event, route.cause, again=again)
        facts.extend(started)  # extend keeps the facts from before an error
    except NotWritten as reason:
        log.warning("event %s did not start all runs, to be tried again: %s", route.event.id, reason)
        work.fail([route.cause])
    return facts


def _start(batch: Batch, plans: Iterable[Plan], event: Event, cause: Cause | None, *, again: bool) -> Iterator[RunFact]:
    """Creates a run for each function, except if a check of the function refuses it. Raises NotWritten.

    `again`: the event may have started the functions before.
    """
    not_started: list[NotStarted] = []
    for plan in plans:
        run = new_run(run_id(plan.function_id, event.id), plan, batch.now)
        replaces: Sequence[str] = ()
        if plan.is_checked:
            checked = admit(Start(batch, plan, event, run, again))
            if checked.reason is not None:
                not_started.append(checked.reason)
            if checked.run is None:
                continue
            run, replaces = checked.run, checked.replaces
        run, fact = begin(run, plan, event)
        batch.add(RunRecord(run, plan, event, event.position))
        yield RunFact(run.id, fact, cause)
        if replaces:
            yield from cancellations(replaces, run.id, cause)
    if not_started:
        batch.checks.refuse(event, not_started)


def resume(batch: Batch, function_id: str, events: Iterable[Event], cause: Cause | None) -> list[RunFact]:
    """Starts runs for events that were kept while a function was paused, and returns the facts.

    The triggers are evaluated now, for this function only. Erased events start nothing. Raises NotWritten.
    """
    catalog = batch.catalog()
    facts: list[RunFact] = []
    for event in events:
        if event.erased:
            continue
        plans = [plan for plan in catalog.starts(event)[0] if plan.function_id == function_id]
        facts.extend(_start(batch, plans, event, cause, again=True))  # two messages may release the same event
    return facts


def wake(work: Work, route: Route, most: int | None = None) -> list[RunFact]:
    """The facts for the runs whose waits an accepted event satisfies. Takes at most `most` of the waits in
    `route.found`; waits that are not processed stay in it."""
    event, cause, now = route.event, route.cause, work.batch.now
    waits = [route.found.popleft() for _ in range(min(len(route.found), most or len(route.found)))]
    run_ids = {wait.run_id for wait in waits if now < wait.deadline}
    records, unreadable = work.load(run_ids, come_again=cause is not None)
    if unreadable:
        work.fail([cause])
    facts: list[RunFact] = []
    for number, wait in enumerate(waits):
        if number and work.is_tired():
            route.found.extendleft(reversed(waits[number:]))
            break
        route.behind = wait.place
        record = records.get(wait.run_id)
        if now >= wait.deadline or record is None or event.position <= record.after or record.event.id == event.id:
            continue
        own = record.event.as_json()
        if match_answer(record.plan, wait.pause, own, record.outputs, record.errors, event.as_json()).holds:
            facts.append(RunFact(wait.run_id, EventArrived(wait.pause, event.id), cause))
    return facts
