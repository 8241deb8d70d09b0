"""load -> fold -> commit -> carry out, a batch at a time. Synchronous; knows neither clock nor disk nor network.

Its one rule: an event is stored before waits are looked up, and a wait is stored before events are looked up, so that
no wake-up is lost however the two interleave.
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
from stepwell.engine.effects import Consequences, Follower, events_for_inputs
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

_MOST_SCANNED = 200  # events for one wait, of what is done before others have their turn

log = logging.getLogger("stepwell.engine")


class Engine:
    """`links`: those by which people decide on approvals; asked for when the first is open."""

    def __init__(self, dispatcher: Dispatcher, env: str, links: Callable[[], Links]) -> None:
        self.dispatcher = dispatcher
        self._follower = Follower(env, links)

    def process(self, batch: Batch, events: Sequence[IncomingEvent], facts: Sequence[RunFact]) -> Undone:
        """Accept events and fold facts, with everything that follows from them, until nothing more does. Answers what
        could not be done, and must be handed in again."""
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
        """`process`, a piece at a time: whoever has more to do than this may do some of it after each step. What could
        not be done is added to `undone`. `facts` are taken in their order, and what follows from them comes behind
        them. At a `pace`, runs go on before events start and wake others; once it is enough, what events are still to
        do is left. `routes`: what was left earlier. While a wait looks for an event that came before it, no event is
        accepted that could come in between."""
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
        """Tell of an event that is not accepted, since it does not match its schema. Answers what is to be accepted
        instead."""
        return list(self.dispatcher.carry_out(Effects(events=[alert(event, "reject", errors, now, cause)])))

    def wake(self, batch: Batch, event: Event, found: Sequence[OpenedWait], cause: Cause | None) -> list[RunFact]:
        """The facts that an accepted event is for those of these waits which it satisfies. Raises NotWritten if some of
        their runs cannot be read: the message must come again."""
        undone = Undone()
        facts = wake(Work(batch, undone), Route(event, found=deque(found), cause=cause))
        if undone:
            raise NotWritten(f"not all of the runs that wait for event {event.id} can be read")
        return facts

    # --- runs ------------------------------------------------------------------------------------------------------

    def _decide(self, work: Work, scans: _Scans, facts: Sequence[RunFact]) -> tuple[list[Transition], list[RunFact]]:
        """Fold facts into their runs and commit, again for those that lost a race. Answers what was committed, and the
        facts that are left for later."""
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
                    log.warning("run %s is not changed yet: %s", transition.record.run.id, current)
                    work.fail(transition.causes)
                else:
                    records[current.run.id] = current
        return committed, undecided

    def _fold(
        self, work: Work, scans: _Scans, record: RunRecord, facts: Sequence[RunFact], slots: FreeSlots
    ) -> Transition:
        """What becomes of a run: nothing, if its facts cannot be folded, which must not hold up those of others. A new
        run is committed all the same: it must be there when its facts come again."""
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
            log.exception("run %s cannot be decided; its facts are put aside", record.run.id)
            work.put_aside(facts)
            self._release(facts)
            return Transition(record, record, (), (), ())

    def _release(self, facts: Iterable[RunFact]) -> None:
        """Give back the slots of attempts that were taken from the queue, and are not claimed after all."""
        claims = [(fact.run_id, fact.fact) for fact in facts if isinstance(fact.fact, AttemptStarted)]
        if claims:
            released = [(run_id, claim.step, claim.attempt) for run_id, claim in claims]
            self.dispatcher.carry_out(Effects(released=released))

    def _follow(self, work: Work, scans: _Scans, transitions: Sequence[Transition]) -> Consequences:
        """What follows from committed transitions; and what waits that they opened find."""
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
        """The events that came before the waits which this transition opened, as facts."""
        record, cause = transition.record, transition.causes[-1] if transition.causes else None
        opened = [command.pause for command in transition.commands if isinstance(command, OpenWait)]
        found = [scans.scan(work, record, pause).found for pause in opened]
        return [RunFact(record.run.id, earlier, cause) for earlier in found if earlier is not None]


class _Scans:
    """Waits that look for events which came before them; what a piece does not end, the next ones go on with."""

    def __init__(self) -> None:
        self.left: deque[tuple[str, int, int]] = deque()  # run, pause, behind which position

    def scan(self, work: Work, record: RunRecord, pause: int, after: int = 0) -> Scan:
        is_enough = None if work.pace is None else lambda number: number == _MOST_SCANNED or work.is_tired()
        scan = find_matching_event(work.batch, record, pause, after, is_enough)
        if scan.left_at is not None and not scan.is_continued:
            self.left.append((record.run.id, pause, scan.left_at))
        return scan

    def before_deadline(self, work: Work, record: RunRecord, fact: DeadlinePassed) -> Fact | None:
        """At expiry, look once more: the event that came in time, or the deadline. None: there are more to look at."""
        scan = self.scan(work, record, fact.pause, fact.looked)
        return None if scan.left_at is not None else scan.found or fact

    def go_on(self, work: Work) -> Sequence[RunFact]:
        """Go on with the next one."""
        run_id, pause, after = self.left.popleft()
        record = work.load([run_id], come_again=False)[0].get(run_id)
        if record is None:
            return []
        state = record.run.pauses[pause]
        if state.status is PauseStatus.AWAITING and state.due_at <= work.batch.now:
            return [RunFact(run_id, DeadlinePassed(pause, after))]
        scan = self.scan(work, record, pause, after)
        return [] if scan.found is None else [RunFact(run_id, scan.found)]
