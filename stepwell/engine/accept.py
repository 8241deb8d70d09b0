"""Events: what they start and wake. An event is stored before waits are looked up (see `loop`)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from stepwell.core.events.events import Event, Invalid, run_id
from stepwell.core.plan import Plan
from stepwell.core.routing.idempotency import already_run, value_key
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.run.inputs import match_answer
from stepwell.core.run.invalid_events import invalid_event
from stepwell.core.run.messages import EventArrived, RunStarted
from stepwell.core.run.run import new_run
from stepwell.engine.work import Work
from stepwell.platform import Accepted, Batch, Cause, IncomingEvent, NewEvent, NotWritten, Route, RunFact, RunRecord
from stepwell.run_log import log_known_event

log = logging.getLogger("stepwell.engine")
types_log = logging.getLogger("stepwell.types")


def alert(event: Event, policy: str, errors: Sequence[Invalid], now: int, cause: Cause | None) -> IncomingEvent:
    """The engine's own event about one that does not match its schema; also logged."""
    first = errors[0]
    fields = {"event": event.id, "name": event.name, "v": event.v, "policy": policy, "pointer": first.pointer}
    words = "event %s %s is not as its type says (%s): %s: %s"
    types_log.warning(words, event.name, event.id, policy, first.pointer, first.message, extra={"fields": fields})
    return IncomingEvent(invalid_event(event, policy, errors, now), cause=cause)


def accept(work: Work, events: Sequence[IncomingEvent]) -> tuple[int, list[Route], list[IncomingEvent]]:
    """How many of these events were looked at, at least one; what the accepted ones are to do; and alerts for those
    that do not match their schemas."""
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
                log.warning("event %s is not accepted yet: %s", event.id, accepted)
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
    """The facts that these events are for runs, new ones and waiting ones. At a pace, a piece of them; an event that
    has done all is taken off, and one that must wait is left."""
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
    """Start these functions for an accepted event; for one that is paused, the event is kept."""
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
        facts.extend(_start(work.batch, plans, route.event, route.cause))  # those before an error stay
    except NotWritten as reason:
        log.warning("event %s has not started all of its runs yet: %s", route.event.id, reason)
        work.fail([route.cause])
    return facts


def _start(batch: Batch, plans: Iterable[Plan], event: Event, cause: Cause | None) -> Iterator[RunFact]:
    """A run of an accepted event for each function, but for those whose value of `idempotency` has one already. Raises
    NotWritten."""
    not_started: list[NotStarted] = []
    for plan in plans:
        run = new_run(run_id(plan.function_id, event.id), plan, batch.now)
        if plan.idempotency is not None:
            value, problem = value_key(plan.idempotency, event)
            if problem is not None:
                run = run._replace(problems=(("idempotency", 0, problem),))
            elif (first := batch.idempotency.claim(plan.function_id, value, run.id, event.position)) != run.id:
                not_started.append(NotStarted(plan.function_id, plan.idempotency, already_run(first), first))
                continue
        batch.add(RunRecord(run, plan, event, event.position))
        yield RunFact(run.id, RunStarted(), cause)
    if not_started:
        batch.idempotency.refuse(event, not_started)


def resume(batch: Batch, function_id: str, events: Iterable[Event], cause: Cause | None) -> list[RunFact]:
    """The facts that events are which were kept while a function was paused, as if they came now; they start nothing
    else. Events of users who were erased since start nothing. Raises NotWritten."""
    catalog = batch.catalog()
    facts: list[RunFact] = []
    for event in events:
        if event.erased:
            continue
        plans = [plan for plan in catalog.starts(event)[0] if plan.function_id == function_id]
        facts.extend(_start(batch, plans, event, cause))
    return facts


def wake(work: Work, route: Route, most: int | None = None) -> list[RunFact]:
    """The facts that an accepted event is for those of the waits found for it which it satisfies. At most so many waits
    are looked at; some may be left for later."""
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
