"""load -> decide -> commit -> dispatch, a batch at a time. Synchronous; knows neither clock nor disk nor network.

Its one rule: an event is stored before waits are looked up, and a wait is stored before events are looked up, so that
no wake-up is lost however the two interleave.
"""

from __future__ import annotations

import logging
from collections import ChainMap, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stepwell.core.cel.expressions import EFFORT, Bindings, Scope, compile_expression
from stepwell.core.events.events import Event, Invalid, run_id
from stepwell.core.plain_data import immutable
from stepwell.core.plan import Plan
from stepwell.core.routing.idempotency import already_run, value_key
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.routing.waits import wait_index
from stepwell.core.run.advance import advance, questions, used_events
from stepwell.core.run.inputs import (
    MAX_INPUT_BYTES,
    InputTexts,
    JoinedOutputs,
    async_event_ids,
    edge_variables,
    error_json,
    match_answer,
    matcher,
    step_input,
)
from stepwell.core.run.invalid_events import invalid_event
from stepwell.core.run.messages import (
    NO_ANSWERS,
    Answers,
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    Command,
    DeadlinePassed,
    EmitEnd,
    Error,
    EventArrived,
    Fact,
    OpenWait,
    Outcome,
    Questions,
    RecordAttempt,
    RunStarted,
    RunStep,
    StopStep,
    WaitKey,
)
from stepwell.core.run.resume import Earlier, Restart, resumption
from stepwell.core.run.run import PauseStatus, RunStatus, StepStatus, new_run
from stepwell.core.run.run_events import end_event
from stepwell.core.run.stored_links import whole_body
from stepwell.platform import (
    Accepted,
    Attempt,
    Cause,
    Change,
    Claim,
    Dispatcher,
    NewEvent,
    NotWritten,
    OpenedWait,
    Pace,
    Replayed,
    Route,
    RunRecord,
    Store,
)
from stepwell.run_log import log_failed_attempt, log_failed_run, log_known_event

if TYPE_CHECKING:
    from stepwell.core.run.approvals import Links

_MANY = 16  # ancestors of a step, whose outputs are kept joined for the next one
_LONG = 10_000_000  # ns of expressions, of what is done before others have their turn
_LOOKS = 200  # at events for one wait, of what is done before others have their turn

log = logging.getLogger("stepwell.engine")
types_log = logging.getLogger("stepwell.types")


@immutable
class IncomingEvent:
    """An event to accept. `only` names the one function it is for (a tick of its cron trigger)."""

    event: Event
    only: str | None = None
    cause: Cause | None = None


class RunFact(NamedTuple):
    """A fact about a run. `cause`: the message that brought it; None where facts are not delivered by messages."""

    run_id: str
    fact: Fact
    cause: Cause | None = None


class Engine:
    """`links`: those by which people decide on approvals; asked for when the first is open."""

    def __init__(self, store: Store, dispatcher: Dispatcher, env: str, links: Callable[[], Links]) -> None:
        self.store, self.dispatcher, self.env, self._links = store, dispatcher, env, links
        self._undone: set[str] = set()
        self._alerts: list[IncomingEvent] = []
        self._pace: Pace | None = None
        self._looks: deque[tuple[str, int, int]] = deque()  # to go on with: run, pause, behind which position
        self._spent_before = 0.0

    def process(self, arrivals: Sequence[IncomingEvent], facts: Sequence[RunFact], now: int) -> set[str]:
        """Accept events and fold facts, with everything that follows from them, until nothing more does. Answers the
        causes of what could not be done and must be delivered again."""
        for _ in self.steps(arrivals, facts, now):
            pass
        return self._undone

    def steps(
        self,
        arrivals: Sequence[IncomingEvent],
        facts: Sequence[RunFact],
        now: int,
        pace: Pace | None = None,
        routes: Iterable[Route] = (),
    ) -> Iterator[None]:
        """`process`, a piece at a time: whoever has more to do than this may do some of it after each step. `facts` are
        taken in their order, and what follows from them comes behind them. At a `pace`, runs go on before events start
        and wake others; once it is enough, what events are still to do is left. `routes`: what was left earlier.
        While a wait looks for an event that came before it, no event is accepted that could come in between."""
        self._undone, self._alerts, self._pace = set(), [], pace
        self._looks.clear()
        at_once = None if pace is None else pace.at_once
        todo = deque(routes)
        while arrivals or facts or todo or self._looks:
            self._spent_before, accepted = EFFORT.spent, 0
            some_facts: Sequence[RunFact]
            if self._looks:
                some_facts = self._look_on(*self._looks.popleft(), now)
            else:
                accepted, new_routes = self._accept(arrivals[:at_once], now)
                arrivals = arrivals[accepted:]
                todo += new_routes
                if pace is None or not (arrivals or facts):
                    facts = [*self._start_and_wake(todo, now), *facts]
                    yield
                some_facts, facts = facts[:at_once], facts[at_once:] if at_once else ()
            changes, undecided = self._decide(some_facts, now)
            new_facts, new_arrivals = self._consequences(changes, now)
            facts = [*undecided, *facts, *new_facts]
            arrivals = [*arrivals, *new_arrivals, *self._alerts]
            self._alerts = []
            if pace is not None:
                pace.count(accepted + len(some_facts) - len(undecided))
            yield
        self._pace = None

    def rerun(
        self, record: RunRecord, token: str, now: int, cause: Cause | None = None, restart: Restart | None = None
    ) -> str | None:
        """Run the same event again on the live version, from the start or from a step; the new run's id, or None if the
        function is not live. Raises CannotResume, NotWritten."""
        plan = self.store.catalog().live.get(record.plan.function_id)
        if plan is None:
            return None
        facts: Sequence[Fact] = [RunStarted()]
        if restart is not None:
            earlier = Earlier(record.plan, record.run, record.outputs, record.errors)
            facts = resumption(earlier, plan, restart)
        new_id = run_id(plan.function_id, record.event.id, token)
        run = new_run(new_id, plan, now)
        position = self.store.position(now)
        self.store.add(RunRecord(run, plan, record.event, position, rerun_of=record.run.id, replay=record.replay))
        if self.process([], [RunFact(new_id, fact, cause) for fact in facts], now):
            raise NotWritten(f"run {new_id}, which runs {record.run.id} again, could not be written")
        return new_id

    def replay(
        self, plan: Plan, asked: Sequence[str | Event], replay: str, now: int, cause: Cause | None = None
    ) -> list[Replayed]:
        """Run events on this one version, in order: stored ones, named by their ids, and others, which are stored but
        start and wake nothing else. What this replay has run already does not run again. Raises NotWritten."""
        whole = [NewEvent(event, (), (), (), cause, replay) for event in asked if isinstance(event, Event)]
        for accepted in self.store.put_events(whole, now) if whole else ():
            if isinstance(accepted, NotWritten):
                raise accepted
        ids = [event if isinstance(event, str) else event.id for event in asked]
        events = {name: event for name, event in self.store.events(ids).items() if not event.erased}
        runs = {event_id: run_id(plan.function_id, event_id, replay) for event_id in ids if event_id in events}
        known = self.store.load(runs.values())
        started = {event_id: name for event_id, name in runs.items() if name not in known}
        for event_id, name in started.items():
            run, position = new_run(name, plan, now), self.store.position(now)
            self.store.add(RunRecord(run, plan, events[event_id], position, replay=replay))
        if self.process([], [RunFact(name, RunStarted(), cause) for name in started.values()], now):
            raise NotWritten("not all of it is started")
        return [Replayed(event_id, runs.get(event_id), started.pop(event_id, None) is not None) for event_id in ids]

    def refuse(
        self, event: Event, errors: Sequence[Invalid], now: int, cause: Cause | None = None
    ) -> list[IncomingEvent]:
        """Tell of an event that is not accepted, since it is not as its type says."""
        return self._alert(event, "reject", errors, now, cause)

    def _alert(
        self, event: Event, policy: str, errors: Sequence[Invalid], now: int, cause: Cause | None
    ) -> list[IncomingEvent]:
        first = errors[0]
        fields = {"event": event.id, "name": event.name, "v": event.v, "policy": policy, "pointer": first.pointer}
        words = "event %s %s is not as its type says (%s): %s: %s"
        types_log.warning(words, event.name, event.id, policy, first.pointer, first.message, extra={"fields": fields})
        alert = invalid_event(event, policy, errors, now)
        return [IncomingEvent(alert, cause=cause)] if self.dispatcher.emit(alert) else []

    def _failed(self, causes: Iterable[Cause | None]) -> None:
        self._undone.update(cause.id for cause in causes if cause is not None)

    # --- events ----------------------------------------------------------------------------------------------------

    def _is_tired(self) -> bool:
        """Whether the expressions of this step have taken long enough."""
        return self._pace is not None and EFFORT.spent - self._spent_before > _LONG

    def _accept(self, arrivals: Sequence[IncomingEvent], now: int) -> tuple[int, list[Route]]:
        """How many of these events were looked at, at least one, and what the accepted ones are to do."""
        if not arrivals:
            return 0, []
        catalog = self.store.catalog()
        new: list[NewEvent] = []
        for arrival in arrivals:
            if self._is_tired():
                break
            plans, misses = catalog.starts(arrival.event, arrival.only)
            keys, starts = catalog.keys(arrival.event), [plan.function_id for plan in plans]
            new.append(NewEvent(arrival.event, keys, misses, starts, arrival.cause))
        routes: list[Route] = []
        for new_event, accepted in zip(new, self.store.put_events(new, now), strict=True):
            if isinstance(accepted, NotWritten):
                log.warning("event %s is not accepted yet: %s", new_event.event.id, accepted)
                self._failed([new_event.cause])
            if accepted is None:
                log_known_event(new_event.event)
            if not isinstance(accepted, Accepted):
                continue
            if new_event.event.invalid:
                self._alerts += self._alert(new_event.event, "warn", new_event.event.invalid, now, new_event.cause)
            is_awaited = catalog.is_awaited(new_event.event.name)
            if accepted.starts or is_awaited:
                routes.append(
                    Route(
                        new_event.event, accepted.position, accepted.starts, is_awaited, new_event.cause, new_event.keys
                    )
                )
        return len(new), routes

    def _start_and_wake(self, routes: deque[Route], now: int) -> list[RunFact]:
        """The facts that these events are for runs, new ones and waiting ones. At a pace, a piece of them; an event
        that has done all is taken off, and one that must wait is left."""
        pace, facts, done = self._pace, list[RunFact](), 0
        if pace is not None and routes and pace.is_enough(sum(route.left for route in routes)):
            pace.leave(routes)
            routes.clear()
        while routes and not self._is_tired():
            route, room = routes[0], None if pace is None else pace.at_once - done
            if room is not None and room <= 0:
                break
            if pace is not None and not route.is_first and pace.must_wait(route.event.name):
                pace.leave([routes.popleft()])
                continue
            route.is_first = True
            if route.starts:
                starts, route.starts = route.starts[:room], route.starts[room:] if room else ()
                facts += self._start_all(route, starts, now)
                done += len(starts)
            elif route.found:
                done += min(len(route.found), room or len(route.found))
                facts += self._wake(route, now, room)
            elif route.is_awaited:
                found = self.store.find_waits(route.event, route.keys, route.behind)
                route.found, route.is_awaited = deque(found.waits), not found.is_all
                done += found.effort
            if not (route.starts or route.found or route.is_awaited):
                routes.popleft()
        return facts

    def _start_all(self, route: Route, starts: Sequence[str], now: int) -> list[RunFact]:
        """Start these functions for an accepted event; for one that is paused, the event is kept."""
        catalog, plans, facts = self.store.catalog(), [], list[RunFact]()
        for function_id in starts:
            if catalog.is_paused(function_id):
                if not self.store.keep(function_id, route.event, now):
                    self._failed([route.cause])
            elif (plan := catalog.choose(function_id, route.event)) is not None:
                plans.append(plan)
        try:
            self._start(plans, route, now, facts)
        except NotWritten as reason:
            log.warning("event %s has not started all of its runs yet: %s", route.event.id, reason)
            self._failed([route.cause])
        return facts

    def _start(self, plans: Sequence[Plan], route: Route, now: int, facts: list[RunFact]) -> None:
        """A run of an accepted event for each function, but for those whose value of `idempotency` has one already.
        Adds to `facts`. Raises NotWritten."""
        event, misses = route.event, list[NotStarted]()
        for plan in plans:
            run = new_run(run_id(plan.function_id, event.id), plan, now)
            if plan.idempotency is not None:
                value, problem = value_key(plan.idempotency, event)
                if problem is not None:
                    run = run._replace(problems=(("idempotency", 0, problem),))
                elif (first := self.store.idempotency.claim(plan.function_id, value, run.id, route.position)) != run.id:
                    misses.append(NotStarted(plan.function_id, plan.idempotency, already_run(first), first))
                    continue
            self.store.add(RunRecord(run, plan, event, route.position))
            facts.append(RunFact(run.id, RunStarted(), route.cause))
        if misses:
            self.store.idempotency.refuse(event, misses)

    def release(self, function_id: str, events: Iterable[Event], cause: Cause | None, now: int) -> list[RunFact]:
        """Route events that were kept while a function was paused, as if they came now; starts nothing else. Raises
        NotWritten."""
        catalog, facts = self.store.catalog(), list[RunFact]()
        for event in events:
            plans = [plan for plan in catalog.starts(event)[0] if plan.function_id == function_id]
            self._start(plans, Route(event, event.seq, cause=cause), now, facts)
        return facts

    def wake(self, event: Event, found: Sequence[OpenedWait], cause: Cause | None, now: int) -> list[RunFact]:
        """The facts that an accepted event is for those of these waits which it satisfies."""
        return self._wake(Route(event, event.seq, found=deque(found), cause=cause), now)

    def _wake(self, route: Route, now: int, most: int | None = None) -> list[RunFact]:
        """`wake`, for at most so many of the waits that were found for an event; some may be left for later."""
        event, cause = route.event, route.cause
        waits = [route.found.popleft() for _ in range(min(len(route.found), most or len(route.found)))]
        run_ids = {wait.run_id for wait in waits if now < wait.deadline}
        records = self.load(run_ids, [(name, cause) for name in run_ids])
        facts: list[RunFact] = []
        for number, wait in enumerate(waits):
            if number and self._is_tired():
                route.found.extendleft(reversed(waits[number:]))
                break
            route.behind = wait.place
            record = records.get(wait.run_id)
            if now >= wait.deadline or record is None or event.seq <= record.after or record.event.id == event.id:
                continue
            own = record.event.as_json()
            if match_answer(record.plan, wait.pause, own, record.outputs, record.errors, event.as_json()).holds:
                facts.append(RunFact(wait.run_id, EventArrived(wait.pause, event.id), cause))
        return facts

    def look(self, record: RunRecord, pause: int, after: int = 0) -> tuple[EventArrived | None, bool]:
        """The earliest event accepted so far, behind this position, that satisfies an open wait; and whether all were
        looked at. Of many, some are, and this is called again for the others."""
        value, state = record.plan.pauses[pause], record.run.pauses[pause]
        if state.status is not PauseStatus.AWAITING or value.event is None:
            return None, True
        if any(kind == "pause" and index == pause for kind, index, _ in record.run.problems):
            return None, True
        used = used_events(record.plan, record.run, pause)
        events = self.store.find_events(value.event, state.key, max(record.after, after), state.due_at)
        matches = matcher(record.plan, pause, record.event.as_json(), record.outputs, record.errors)
        for number, event in enumerate(events, 1):
            if event.id not in used and matches(event.as_json()).holds:
                return EventArrived(pause, event.id), True
            if number == self.store.looks_at:
                self.store.look_on(record.run.id, pause, event.seq)
                return None, False
            if self._pace is not None and (number == _LOOKS or self._is_tired()):
                self._looks.append((record.run.id, pause, event.seq))
                return None, False
        return None, True

    def _look_on(self, run: str, pause: int, after: int, now: int) -> list[RunFact]:
        """Go on looking for what satisfies a wait, behind this position."""
        record = self.load([run]).get(run)
        if record is None:
            return []
        state = record.run.pauses[pause]
        if state.status is PauseStatus.AWAITING and state.due_at <= now:
            return [RunFact(run, DeadlinePassed(pause, after))]
        found, _ = self.look(record, pause, after)
        return [] if found is None else [RunFact(run, found)]

    # --- runs ------------------------------------------------------------------------------------------------------

    def load(self, run_ids: Iterable[str], causes: Iterable[tuple[str, Cause | None]] = ()) -> dict[str, RunRecord]:
        """Runs by id. One that cannot be read holds up no other: what caused it to be asked for must come again."""
        wanted, asked = list(run_ids), list(causes)
        try:
            return self.store.load(wanted)
        except Exception:
            if any(cause is None for _, cause in asked):
                raise  # nothing would come again: the whole batch must
        found: dict[str, RunRecord] = {}
        for one in wanted:
            try:
                found |= self.store.load([one])
            except Exception:
                log.exception("run %s cannot be read", one)
                self._failed(cause for name, cause in asked if name == one)
        return found

    def _decide(self, facts: Sequence[RunFact], now: int) -> tuple[list[Change], list[RunFact]]:
        """Fold facts into their runs and commit, again for those that lost a race. Answers what was committed, and the
        facts that are left for later."""
        by_run: dict[str, list[RunFact]] = defaultdict(list)
        for fact in facts:
            by_run[fact.run_id].append(fact)
        records = self.load(by_run, [(fact.run_id, fact.cause) for fact in facts])
        committed: list[Change] = []
        undecided: list[RunFact] = []
        while records:
            changes: list[Change] = []
            for run, record in records.items():
                if self._is_tired() and (changes or committed):
                    undecided += by_run[run]
                    continue
                before = record.run
                try:
                    changes.append(self._fold(record, by_run[run], now))
                except Exception:  # one run's trouble must not hold up the batch
                    record.run = before
                    self._failed(fact.cause for fact in by_run[run])
                    log.exception("run %s cannot be decided; its facts are put aside", run)
            records = {}
            for change, current in zip(changes, self.store.commit(changes, now), strict=True):
                if current is None:
                    committed.append(change)
                elif isinstance(current, NotWritten):
                    log.warning("run %s is not changed yet: %s", change.record.run.id, current)
                    self._failed(change.causes)
                else:
                    records[current.run.id] = current
        return committed, undecided

    def _fold(self, record: RunRecord, facts: Sequence[RunFact], now: int) -> Change:
        before = record.run
        commands: list[Command] = []
        claims: list[Claim] = []
        items = [(fact, cause) for _, fact, cause in facts]
        todo = deque(items)
        for stored in reversed(self.store.waiting(record)):
            if all(stored != fact for fact, _ in items):
                todo.appendleft((stored, facts[0].cause))
        while todo:
            fact, cause = todo.popleft()
            if isinstance(fact, DeadlinePassed):  # at expiry, look once more
                found, is_all = self.look(record, fact.pause, fact.looked)
                if not is_all:
                    continue
                fact = found or fact
            unchanged = record.run
            new = self._fold_one(record, fact, now)
            is_stale = record.run is unchanged
            if is_stale and cause is not None:
                new = [*new, *_end_again(record)] if cause.redelivered else ()
                claims += _claims_again(record, fact, cause, now)
            commands += new
            if isinstance(fact, AttemptStarted):
                if is_stale:
                    self._release(record, fact.step)
                else:
                    claims.append(Claim(fact.step, fact.attempt, cause))
                    if cause is not None:
                        record.causes[fact.step] = (cause.id, now)
            for command in new:
                if isinstance(command, RunStep):
                    step = record.plan.steps[command.step]
                    if step.is_approval or self.dispatcher.admit(calls=step.calls):  # people take no slot
                        todo.append((AttemptStarted(command.step, command.attempt), cause))
        return Change(before, record, commands, claims, [cause for _, _, cause in facts if cause is not None])

    def _fold_one(self, record: RunRecord, fact: Fact, now: int) -> Sequence[Command]:
        claims = isinstance(fact, AttemptStarted)  # which asks nothing, and is as frequent as all others together
        answers = NO_ANSWERS if claims else self._answers(record, questions(record.plan, record.run, fact))
        decision = advance(record.plan, record.run, fact, answers, now)
        record.run = decision.run
        for command in decision.commands:
            if isinstance(command, RecordAttempt):
                _keep_result(record, command)
        return decision.commands

    def _answers(self, record: RunRecord, asked: Questions) -> Answers:
        if not asked.edges and not asked.pauses:
            return NO_ANSWERS
        plan, outputs, errors = record.plan, record.outputs, record.errors
        if asked.outcome is not None:  # the parent's result is not in the record yet
            if asked.outcome.error is not None:
                errors = ChainMap({asked.parent: error_json(asked.outcome.error)}, errors)
            elif asked.outcome.output is not None:
                outputs = ChainMap({asked.parent: asked.outcome.output}, outputs)
        conditions = {e: compile_expression(plan.edges[e].condition or "true", Scope.CONDITION) for e in asked.edges}
        matches = [compile_expression(plan.pauses[p].match or "true", Scope.MATCH) for p in asked.pauses]
        read_by = [*conditions.values(), *matches]
        variables = edge_variables(plan, asked.parent, record.event.as_json(), outputs, errors, read_by)
        bindings = Bindings(**variables)
        answers = Answers({}, {})
        for e, condition in conditions.items():
            answers.edges[e] = condition.evaluate(bindings)
        for p in asked.pauses:
            answers.pauses[p] = _wait_key(plan, p, variables)
        return answers

    # --- consequences ----------------------------------------------------------------------------------------------

    def _consequences(self, changes: Sequence[Change], now: int) -> tuple[list[RunFact], list[IncomingEvent]]:
        facts: list[RunFact] = []
        arrivals: list[IncomingEvent] = []
        for change in changes:
            record = change.record
            cause = change.causes[-1] if change.causes else None
            for command in change.commands:
                if isinstance(command, OpenWait):
                    earlier, _ = self.look(record, command.pause)
                    if earlier is not None:
                        facts.append(RunFact(record.run.id, earlier, cause))
                elif isinstance(command, EmitEnd):
                    if command.status == "failed":
                        log_failed_run(record)
                    event = end_event(record.plan, record.run, record.event, record.errors, now, record.replay)
                    if event is not None and self.dispatcher.emit(event):
                        arrivals.append(IncomingEvent(event, cause=cause))
                elif isinstance(command, RecordAttempt):
                    log_failed_attempt(record, command, change.commands)
                elif isinstance(command, StopStep):
                    self.dispatcher.stop(record.run.id, command.step, command.attempt)
                elif isinstance(command, RunStep):
                    state = record.run.steps[command.step]
                    if state.status is StepStatus.QUEUED and state.attempt == command.attempt:
                        calls = record.plan.steps[command.step].calls
                        self.dispatcher.queue(record, command.step, command.attempt, calls=calls)
            facts += self._start_claimed(change)
            if record.plan.approval_steps:
                unasked, items = self._ask(change, now)
                facts, arrivals = [*facts, *unasked], [*arrivals, *items]
        return facts, arrivals

    def _release(self, record: RunRecord, step: int) -> None:
        value = record.plan.steps[step]
        if not value.is_approval:
            self.dispatcher.release(calls=value.calls)

    def _start_claimed(self, change: Change) -> list[RunFact]:
        """Execute what this change claimed; an attempt whose input is too large fails without being started."""
        facts: list[RunFact] = []
        record = change.record
        for claim in change.claims:
            if record.plan.steps[claim.step].is_approval:
                continue
            if record.run.steps[claim.step].status is not StepStatus.RUNNING:  # it was cancelled in the same batch
                self._release(record, claim.step)
                continue
            document = self._input_or_error(record, claim.step)
            if isinstance(document, bytes):
                self.dispatcher.start(Attempt(record, claim.step, claim.attempt, document, claim.cause))
                continue
            self._release(record, claim.step)
            outcome = Outcome(error=document, retryable=False)
            facts.append(RunFact(record.run.id, AttemptEnded(claim.step, claim.attempt, outcome), claim.cause))
        return facts

    def _ask(self, change: Change, now: int) -> tuple[list[RunFact], list[IncomingEvent]]:
        """The events that tell of the approvals which this change has opened; what people decide comes back as an
        attempt's end. An approval whose message has no value fails instead."""
        from stepwell.core.run.approvals import asked, requested_event  # most functions ask nobody

        record = change.record
        run, plan, trigger = record.run, record.plan, record.event
        facts, arrivals = list[RunFact](), list[IncomingEvent]()
        for claim in change.claims:
            if not plan.steps[claim.step].is_approval or run.steps[claim.step].status is not StepStatus.RUNNING:
                continue
            message = asked(plan, run, claim.step, trigger.as_json(), record.outputs, record.errors)
            if message.error is not None:
                outcome = Outcome(error=message.error, retryable=False)
                facts.append(RunFact(run.id, AttemptEnded(claim.step, claim.attempt, outcome), claim.cause))
                continue
            event = requested_event(plan, run, claim.step, trigger, message.text, self._links(), now, record.replay)
            if event is not None and self.dispatcher.emit(event):
                arrivals.append(IncomingEvent(event, cause=claim.cause))
        return facts, arrivals

    def _input_or_error(self, record: RunRecord, step: int) -> bytes | Error:
        """The step's input, or why there can be none."""
        try:
            document = self._input(record, step)
        except KeyError:  # as after somebody has deleted it
            log.exception("run %s has lost an output", record.run.id)
            return Error("input_lost", "an output that the step's input is made of is not stored any more")
        if len(document) <= MAX_INPUT_BYTES:
            return document
        return Error(
            "input_too_large",
            f"the step's input is {len(document):,} bytes, more than {MAX_INPUT_BYTES:,}; "
            "let earlier steps put large data elsewhere and pass a reference",
        )

    def _whole_body(self, event: Event) -> bytes:
        """What a step sees of an event; stores may lack signatures of approval links."""
        return whole_body(event, lambda: self._links().keys)

    def _input(self, record: RunRecord, step: int) -> bytes:
        ids = async_event_ids(record.plan, record.run, step)
        found = self.store.events(ids) if ids else {}
        if record.joined is None and len(record.plan.steps[step].ancestors) >= _MANY:
            record.joined = JoinedOutputs()
        texts = InputTexts(
            self._whole_body(record.event),
            [self._whole_body(found[event_id]) for event_id in ids if event_id in found],
            record.outputs,
            record.errors,
            record.joined,
        )
        return step_input(record.plan, record.run, step, texts, env=self.env, replay=record.replay)


def _claims_again(record: RunRecord, fact: Fact, cause: Cause, now: int) -> list[Claim]:
    """Attempts that this very message had claimed: nobody knows whether they were started before it was redelivered.
    A claim that comes again is of an attempt that is known not to have been started."""
    steps = record.run.steps
    if not cause.redelivered or isinstance(fact, CancelRequested):  # which claims nothing
        return []
    if isinstance(fact, AttemptStarted):
        claimed = [fact.step] if steps[fact.step].attempt == fact.attempt else []
    else:
        claimed = [step for step, pair in record.causes.items() if pair[0] == cause.id]
    found = [Claim(i, steps[i].attempt, cause) for i in claimed if steps[i].status is StepStatus.RUNNING]
    if isinstance(fact, AttemptStarted):
        record.causes.update((claim.step, (cause.id, now)) for claim in found)
    return found


def _end_again(record: RunRecord) -> list[Command]:
    """The end of a run is told again if the message that ended it comes again; the event's id de-duplicates. So is what
    was stopped then."""
    run = record.run
    if run.ended_at is None:
        return []
    stopped = [
        StopStep(i, step_state.attempt)
        for i, step_state in enumerate(run.steps)
        if step_state.status is StepStatus.CANCELLED
    ]
    return [EmitEnd(run.status.name.lower()), *(stopped if run.status is RunStatus.CANCELLED else ())]


def _keep_result(record: RunRecord, command: RecordAttempt) -> None:
    record.causes.pop(command.step, None)
    if command.output is not None and command.status in ("completed", "kept"):
        record.outputs[command.step] = command.output
    if command.error is not None and record.run.steps[command.step].status is StepStatus.FAILED:
        record.errors[command.step] = error_json(command.error)


def _wait_key(plan: Plan, pause: int, variables: dict[str, Any]) -> WaitKey:
    paus = plan.pauses[pause]
    index = wait_index(paus.match)
    if index is None or paus.event is None:
        return WaitKey(None)
    known = {**variables, "user": variables["event"]["user"], "data": variables["event"]["data"]}
    return index.key(paus.event, known)
