"""The engine's loop: load, fold, commit, carry out, a batch at a time. Synchronous, without clock, disk or network.

An event is stored before waits are looked up, and a wait is stored before events are looked up. So no wake-up is lost,
however the two interleave.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from stepwell.core.events.events import Event, Invalid
from stepwell.core.run.messages import AttemptStarted, DeadlinePassed, Fact, OpenWait
from stepwell.core.run.run import PauseStatus
from stepwell.engine.accept import accept, alert, start_and_wake, wake
from stepwell.engine.effects import Consequences, Follower, Judge, events_for_inputs
from stepwell.engine.fold import Folding, slots_left
from stepwell.engine.scan import Scan, find_matching_event
from stepwell.engine.work import Undone, Work
from stepwell.platform import (
    Batch,
    Cause,
    Dispatcher,
    Effects,
    FreeSlots,
    IncomingEvent,
    NotWritten,
    OpenedWait,
    Pace,
    Route,
    RunFact,
    RunRecord,
    Transition,
)
from stepwell.run_log import log_transition

if TYPE_CHECKING:
    from stepwell.core.run.approvals import Links

_MAX_SCANNED = 200  # events that are scanned for one wait in one piece of work

log = logging.getLogger("stepwell.engine")


class Engine:
    """Processes batches of events and facts. `links` signs approval links; it is called for the first approval.
    `judge` returns the errors for which an event that a step sends is refused."""

    def __init__(
        self, dispatcher: Dispatcher, env: str, links: Callable[[], Links], judge: Judge = lambda event: ()
    ) -> None:
        self.dispatcher = dispatcher
        self._follower = Follower(env, links, judge)

    def process(self, batch: Batch, events: Sequence[IncomingEvent], facts: Sequence[RunFact]) -> Undone:
        """Accepts events and folds facts, and everything that follows from them. Returns what could not be done, and
        must be passed in again."""
        undone = Undone()
        for _ in self.steps(batch, events, facts, undone):
            pass
        return undone

    def steps(
        self,
        batch: Batch,
        events: Sequence[IncomingEvent],
        facts: Sequence[RunFact],
        undone: Undone,
        pace: Pace | None = None,
        routes: Iterable[Route] = (),
    ) -> Iterator[None]:
        """Does the same as `process` in pieces; the caller may do other work after each one.

        What could not be done is added to `undone`. `facts` are folded in order; facts that follow from them come last.
        `routes` are routes that an earlier call has left. With a `pace`, facts are folded before events start and wake
        runs, and routes are left for later when the pace's limit is reached. No event is accepted while a wait scans
        earlier events.
        """
        work, scans = Work(batch, undone, pace), _Scans()
        todo, at_once = deque(routes), None if pace is None else pace.at_once
        while events or facts or todo or scans.left:
            work.begin_piece()
            accepted, alerts = 0, list[IncomingEvent]()
            undecided: Sequence[RunFact] = ()
            if scans.left:
                some_facts = scans.go_on(work)
            else:
                if events:
                    accepted, new_routes, alerts = accept(work, events[:at_once])
                    events = events[accepted:]
                    todo += new_routes
                if todo and (pace is None or not (events or facts)):
                    facts = [*start_and_wake(work, todo), *facts]
                    yield
                some_facts, facts = facts[:at_once], facts[at_once:] if at_once else ()
            if some_facts or alerts:
                transitions, undecided = self._decide(work, scans, some_facts)
                found = self._follow(work, scans, transitions)
                found.effects.events += alerts
                events = [*events, *self.dispatcher.carry_out(found.effects)]
                facts = [*undecided, *facts, *found.facts]
            if pace is not None:
                pace.count(accepted + len(some_facts) - len(undecided))
            yield

    def refuse(
        self, event: Event, errors: Sequence[Invalid], now: int, cause: Cause | None = None
    ) -> list[IncomingEvent]:
        """Sends the alert for an event that was refused because it does not match the schema. Returns the events to
        accept instead."""
        return list(self.dispatcher.carry_out(Effects(events=[alert(event, "reject", errors, now, cause)])))

    def wake(self, batch: Batch, event: Event, found: Sequence[OpenedWait], cause: Cause | None) -> list[RunFact]:
        """The facts for the runs whose waits an accepted event satisfies. Raises NotWritten if some of the runs cannot
        be read; then the message must be redelivered."""
        undone = Undone()
        facts = wake(Work(batch, undone), Route(event, found=deque(found), cause=cause))
        if undone:
            raise NotWritten(f"some runs that wait for event {event.id} cannot be read")
        return facts

    # --- runs ------------------------------------------------------------------------------------------------------

    def _decide(self, work: Work, scans: _Scans, facts: Sequence[RunFact]) -> tuple[list[Transition], list[RunFact]]:
        """Folds facts into their runs and commits; repeats this for runs that were changed meanwhile. Returns the
        committed transitions, and the facts that are left for later."""
        by_run: dict[str, list[RunFact]] = defaultdict(list)
        for fact in facts:
            by_run[fact.run_id].append(fact)
        records, unreadable = work.load(by_run, come_again=all(fact.cause is not None for fact in facts))
        for run_id in unreadable:
            work.put_aside(by_run[run_id])
        if len(records) < len(by_run):
            self._release([fact for fact in facts if fact.run_id not in records])
        committed: list[Transition] = []
        undecided: list[RunFact] = []
        slots = self.dispatcher.slots()
        while records:
            transitions: list[Transition] = []
            for run_id, record in records.items():
                if (transitions or committed) and work.is_tired():
                    undecided += by_run[run_id]
                    continue
                transition = self._fold(work, scans, record, by_run[run_id], slots)
                transitions.append(transition)
                if transition.claims:
                    slots = slots_left(slots, transition)
            records = {}
            for transition, current in zip(transitions, work.batch.commit(transitions), strict=True):
                if current is None:
                    committed.append(transition)
                elif isinstance(current, NotWritten):
                    log.warning("run %s was not written, to be tried again: %s", transition.record.run.id, current)
                    work.fail(transition.causes)
                else:
                    records[current.run.id] = current
        return committed, undecided

    def _fold(
        self, work: Work, scans: _Scans, record: RunRecord, facts: Sequence[RunFact], slots: FreeSlots
    ) -> Transition:
        """Folds facts into a run. If that fails, the facts are put aside, so that they do not block other runs.

        Then the run is committed unchanged, because a new run must exist when its facts are passed in again.
        """
        try:
            folding = Folding(record, work.batch.now)
            for stored in work.batch.pending_outcomes(record):
                if all(stored != fact.fact for fact in facts):
                    folding.take(stored, facts[0].cause)
            for _, fact, cause in facts:
                ready = scans.before_deadline(work, folding.record, fact) if isinstance(fact, DeadlinePassed) else fact
                if ready is not None:
                    folding.take(ready, cause)
            return folding.transition(slots)
        except Exception:
            log.exception("run %s cannot be folded, facts put aside", record.run.id)
            work.put_aside(facts)
            self._release(facts)
            return Transition(record, record, (), (), ())

    def _release(self, facts: Iterable[RunFact]) -> None:
        """Releases the slots of attempts that were taken from the queue but not claimed."""
        claims = [(fact.run_id, fact.fact) for fact in facts if isinstance(fact.fact, AttemptStarted)]
        if claims:
            released = [(run_id, claim.step, claim.attempt) for run_id, claim in claims]
            self.dispatcher.carry_out(Effects(released=released))

    def _follow(self, work: Work, scans: _Scans, transitions: Sequence[Transition]) -> Consequences:
        """The consequences of committed transitions, including earlier events that satisfy new waits."""
        found = Consequences()
        for transition in transitions:
            if transition.commands:
                log_transition(transition)
            events: Mapping[str, Event] = {}
            if transition.record.plan.pauses:
                found.facts += self._find_earlier(work, scans, transition)
                if wanted := events_for_inputs(transition):
                    events = work.batch.events(wanted)
            self._follower.follow(transition, events, work.batch.now, found)
        return found

    def _find_earlier(self, work: Work, scans: _Scans, transition: Transition) -> list[RunFact]:
        """Facts for the earlier events that satisfy the waits which this transition opened."""
        record, cause = transition.record, transition.causes[-1] if transition.causes else None
        opened = [command.pause for command in transition.commands if isinstance(command, OpenWait)]
        found = [scans.scan(work, record, pause).found for pause in opened]
        return [RunFact(record.run.id, earlier, cause) for earlier in found if earlier is not None]


class _Scans:
    """Scans of earlier events for new waits. A scan that is not finished in one piece of work continues in the next."""

    def __init__(self) -> None:
        self.left: deque[tuple[str, int, int]] = deque()  # run, pause, position to continue after

    def scan(self, work: Work, record: RunRecord, pause: int, after: int = 0) -> Scan:
        is_enough = None if work.pace is None else lambda number: number == _MAX_SCANNED or work.is_tired()
        scan = find_matching_event(work.batch, record, pause, after, is_enough)
        if scan.left_at is not None and not scan.is_continued:
            self.left.append((record.run.id, pause, scan.left_at))
        return scan

    def before_deadline(self, work: Work, record: RunRecord, fact: DeadlinePassed) -> Fact | None:
        """At a deadline, scans events once more. Returns the event that arrived in time, or the deadline; None if the
        scan is not finished."""
        scan = self.scan(work, record, fact.pause, fact.looked)
        return None if scan.left_at is not None else scan.found or fact

    def go_on(self, work: Work) -> Sequence[RunFact]:
        """Continues the next scan. Returns the facts that it has found."""
        run_id, pause, after = self.left.popleft()
        record = work.load([run_id], come_again=False)[0].get(run_id)
        if record is None:
            return []
        state = record.run.pauses[pause]
        if state.status is PauseStatus.AWAITING and state.due_at <= work.batch.now:
            return [RunFact(run_id, DeadlinePassed(pause, after))]
        scan = self.scan(work, record, pause, after)
        return [] if scan.found is None else [RunFact(run_id, scan.found)]
