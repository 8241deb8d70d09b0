"""The state machine of a run. Everything that changes a run's state is in this file, and is a move of a table below.

`advance(plan, run, fact, answers, now) -> Decision(run, commands)` is a pure function. It evaluates no expression:
`questions(plan, run, fact)` lists what must be evaluated first, and the answers are handed in with the fact. What a run
is owed follows from its state alone (`outstanding`), so a stale or repeated fact changes nothing and asks again for
what is owed: a crash between commit and dispatch needs no outbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from stepwell.core.joins import JOINS
from stepwell.core.messages import (
    NO_QUESTIONS,
    Answer,
    Answers,
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRequested,
    ClearTimer,
    CloseWait,
    Command,
    DeadlinePassed,
    DelayEnded,
    EmitEnd,
    EventArrived,
    Fact,
    Kept,
    OpenWait,
    Outcome,
    Questions,
    RecordAttempt,
    RetryDue,
    RunResumed,
    RunStarted,
    RunStep,
    SetTimer,
    StepKept,
    StopStep,
    Timer,
    TimerKind,
    WaitKey,
)
from stepwell.core.plan import TRIGGER, Plan
from stepwell.core.run import (
    ENDED_STEPS,
    OPEN_PAUSES,
    EdgeStatus,
    PauseState,
    PauseStatus,
    Run,
    RunStatus,
    StepStatus,
)
from stepwell.core.verdict import is_current, verdict_of

S = TypeVar("S")
Table = dict[S, dict[str, S]]

RUN: Table[RunStatus] = {
    RunStatus.RUNNING: {
        "complete": RunStatus.COMPLETED,  # every step ended, no failure unhandled
        "fail": RunStatus.FAILED,  # a failure that no edge handles
        "cancel": RunStatus.CANCELLED,
    },
}

STEP: Table[StepStatus] = {
    StepStatus.PENDING: {
        "start": StepStatus.QUEUED,  # its join is satisfied
        "skip": StepStatus.SKIPPED,  # its join cannot be satisfied any more
        "cancel": StepStatus.CANCELLED,
        "keep": StepStatus.COMPLETED,  # in a run that goes on from a step of another, as it ended there
        "keep_failure": StepStatus.FAILED,
    },
    StepStatus.QUEUED: {
        "claim": StepStatus.RUNNING,
        "cancel": StepStatus.CANCELLED,
    },
    StepStatus.RUNNING: {
        "complete": StepStatus.COMPLETED,
        "retry": StepStatus.RETRYING,  # the attempt failed, another one is due later
        "lose": StepStatus.QUEUED,  # the attempt was lost, the next number follows at once
        "fail": StepStatus.FAILED,
        "cancel": StepStatus.CANCELLED,
    },
    StepStatus.RETRYING: {
        "due": StepStatus.QUEUED,
        "cancel": StepStatus.CANCELLED,
    },
}

EDGE: Table[EdgeStatus] = {
    EdgeStatus.PENDING: {
        "pause": EdgeStatus.PAUSED,
        "satisfy": EdgeStatus.SATISFIED,
        "kill": EdgeStatus.DEAD,
    },
    EdgeStatus.PAUSED: {
        "satisfy": EdgeStatus.SATISFIED,
        "kill": EdgeStatus.DEAD,
    },
}

PAUSE: Table[PauseStatus] = {
    PauseStatus.IDLE: {
        "delay": PauseStatus.DELAYED,
        "await": PauseStatus.AWAITING,
        "keep": PauseStatus.MATCHED,  # in a run that goes on from a step of another
    },
    PauseStatus.DELAYED: {
        "elapse": PauseStatus.ELAPSED,
        "await": PauseStatus.AWAITING,
        "drop": PauseStatus.DROPPED,
    },
    PauseStatus.AWAITING: {
        "match": PauseStatus.MATCHED,
        "expire": PauseStatus.EXPIRED,
        "drop": PauseStatus.DROPPED,
    },
}

# A rule of `cancel` without a timeout holds to the run's end. A wait needs a deadline all the same: what a crash leaves
# behind of it must go at some time.
_AS_LONG_AS_THE_RUN_MS = 10 * 366 * 86_400_000

# The parent's end, as the `on` of an edge sees it.
_ON = {"success": ("success", "always"), "failure": ("failure", "always")}
_RESULT = {StepStatus.COMPLETED: "success", StepStatus.FAILED: "failure"}


@dataclass(frozen=True, slots=True)
class Decision:
    """`run` is the very same object if the fact changed nothing."""

    run: Run
    commands: tuple[Command, ...]


def advance(plan: Plan, run: Run, fact: Fact, answers: Answers, now: int) -> Decision:
    """Fold one fact into a run. `answers` must cover `questions(plan, run, fact)`."""
    draft = _Draft(plan, run, answers, now)
    if not _HANDLERS[type(fact)](draft, fact):
        claims_nothing = isinstance(fact, AttemptStarted)
        return Decision(run, () if claims_nothing else tuple(outstanding(plan, run)))
    return Decision(draft.finish(), tuple(draft.commands))


def questions(plan: Plan, run: Run, fact: Fact) -> Questions:
    """The conditions and wait keys that must be evaluated before `fact` can be folded."""
    if run.status is not RunStatus.RUNNING:
        return NO_QUESTIONS
    if isinstance(fact, RunStarted | RunResumed):
        return _questions(plan, TRIGGER, plan.roots, "success", also=plan.cancels)
    if isinstance(fact, StepKept):
        out = tuple(e for e in plan.steps[fact.step].out if run.edges[e] is EdgeStatus.PENDING)
        return _questions(plan, fact.step, out, _RESULT.get(run.steps[fact.step].status, ""))
    if isinstance(fact, AttemptEnded | AttemptLost):
        state, step = run.steps[fact.step], plan.steps[fact.step]
        if is_current(state, fact):
            verdict = verdict_of(run, step, state, fact)
            if verdict.move in ("complete", "fail"):
                result = "success" if verdict.move == "complete" else "failure"
                return _questions(plan, fact.step, step.out, result, verdict.outcome)
    if isinstance(fact, DelayEnded) and plan.pauses[fact.pause].event is not None:
        return Questions(plan.pauses[fact.pause].parent, pauses=(fact.pause,))
    return NO_QUESTIONS


def outstanding(plan: Plan, run: Run) -> Iterable[Command]:
    """The commands that a run in this state is owed; giving one twice is harmless."""
    for i, step in enumerate(run.steps):
        if step.status is StepStatus.QUEUED:
            yield RunStep(i, step.attempt)
        elif step.status is StepStatus.RETRYING:
            yield SetTimer(Timer(TimerKind.RETRY, i, step.attempt), step.at)
        elif step.status is StepStatus.RUNNING and plan.steps[i].asks:
            yield SetTimer(Timer(TimerKind.DECISION, i, step.attempt), step.at + plan.steps[i].timeout_ms)
    hopeless = {index for kind, index, _ in run.problems if kind == "pause"}
    for p, pause in enumerate(run.pauses):
        if pause.status is PauseStatus.DELAYED:
            yield SetTimer(Timer(TimerKind.DELAY, p), pause.due_at)
        elif pause.status is PauseStatus.AWAITING:
            if p not in hopeless:
                yield OpenWait(p, pause.key, pause.due_at)
            if plan.pauses[p].ttl_ms:
                yield SetTimer(Timer(TimerKind.DEADLINE, p), pause.due_at)


def used_events(plan: Plan, run: Run, pause: int) -> set[str]:
    """Events that satisfied a wait upstream of this one in this run, and so cannot satisfy it too."""
    used: set[str] = set()
    for e in plan.pauses[pause].upstream:
        before = run.pauses[plan.edges[e].pause or 0]
        if before.event_id is not None and e in before.edges:
            used.add(before.event_id)
    return used


# --- facts ---------------------------------------------------------------------------------------------------------
# A handler returns False if the fact is stale, and then must not have touched the draft.


def _run_started(draft: _Draft, fact: RunStarted) -> bool:
    if draft.status is not RunStatus.RUNNING or not _untouched(draft.run):
        return False
    for p in draft.plan.cancels:
        draft.await_event(p, draft.run.created_at)
    draft.settle(draft.plan.roots, "success")
    return True


def _run_resumed(draft: _Draft, fact: RunResumed) -> bool:
    if draft.status is not RunStatus.RUNNING or not _untouched(draft.run):
        return False
    for p in draft.plan.cancels:
        draft.await_event(p, draft.run.created_at)
    for kept in fact.kept:
        draft.keep_step(kept)
    for step in (fact.step, *(kept.step for kept in fact.kept)):
        draft.keep_edges(step, fact.satisfied)
    for order, (p, event_id) in enumerate(fact.matched, 1):
        its = tuple(e for e in draft.plan.pauses[p].edges if draft.edges[e] is not EdgeStatus.PENDING)
        draft.move_pause(p, "keep", event_id=event_id, order=order, edges=its)
    draft.start(fact.step)
    for kept in fact.kept:
        if kept.outcome is None:
            draft.settle(draft.plan.steps[kept.step].out, "skip")
    draft.settle(draft.plan.roots, "success")
    return True


def _step_kept(draft: _Draft, fact: StepKept) -> bool:
    """Its failure was handled in the earlier run, whatever becomes of its edges in this one."""
    result, out = _RESULT.get(draft.steps[fact.step].status), draft.plan.steps[fact.step].out
    pending = any(draft.edges[e] is EdgeStatus.PENDING for e in out)
    if draft.status is not RunStatus.RUNNING or result is None or not pending:
        return False
    draft.settle(out, result)
    return True


def _attempt_started(draft: _Draft, fact: AttemptStarted) -> bool:
    state = draft.steps[fact.step]
    if state.status is not StepStatus.QUEUED or state.attempt != fact.attempt:
        return False
    draft.move_step(fact.step, "claim", at=draft.now)
    if draft.plan.steps[fact.step].asks:
        due = draft.now + draft.plan.steps[fact.step].timeout_ms
        draft.commands.append(SetTimer(Timer(TimerKind.DECISION, fact.step, fact.attempt), due))
    if draft.started_at is None:
        draft.started_at = draft.now
    return True


def _attempt_over(draft: _Draft, fact: AttemptEnded | AttemptLost) -> bool:
    state, step = draft.steps[fact.step], draft.plan.steps[fact.step]
    if not is_current(state, fact) or (step.asks and isinstance(fact, AttemptLost)):  # no worker has it
        return False
    verdict = verdict_of(draft.run, step, state, fact)
    draft.record(fact.step, verdict.record, verdict.outcome, fact.at if isinstance(fact, AttemptEnded) else None)
    if step.asks:
        draft.commands.append(ClearTimer(Timer(TimerKind.DECISION, fact.step, state.attempt)))
    if verdict.move == "retry":
        due = draft.now + verdict.delay_ms
        draft.move_step(fact.step, "retry", failures=state.failures + 1, at=due)
        draft.commands.append(SetTimer(Timer(TimerKind.RETRY, fact.step, state.attempt), due))
    elif verdict.move == "lose":
        draft.queue(fact.step, "lose", losses=state.losses + 1)
    else:
        draft.end_step(fact.step, verdict.move)
        if draft.status is RunStatus.RUNNING:
            _after_the_end(draft, fact.step, verdict.move)
    return True


def _after_the_end(draft: _Draft, i: int, move: str) -> None:
    out = draft.plan.steps[i].out
    if move == "complete":
        draft.settle(out, "success")
    elif any(draft.plan.edges[e].on in _ON["failure"] and draft.holds(e) for e in out):
        draft.settle(out, "failure")
    else:
        for e in out:  # a handler's `if` that could not be evaluated is why the run fails
            draft.note_problem("edge", e, draft.answers.edges.get(e))
        draft.failed_step = i
        draft.end_run("fail")


def _retry_due(draft: _Draft, fact: RetryDue) -> bool:
    state = draft.steps[fact.step]
    if state.status is not StepStatus.RETRYING or state.attempt != fact.attempt:
        return False
    draft.queue(fact.step, "due")
    return True


def _delay_ended(draft: _Draft, fact: DelayEnded) -> bool:
    if draft.pauses[fact.pause].status is not PauseStatus.DELAYED:
        return False
    if draft.plan.pauses[fact.pause].event is None:
        draft.move_pause(fact.pause, "elapse")
        draft.release(fact.pause, lambda edge_on_timeout: True)
    else:
        # The ttl counts from the end of the delay, however late the timer fired.
        draft.await_event(fact.pause, draft.pauses[fact.pause].due_at)
    return True


def _event_arrived(draft: _Draft, fact: EventArrived) -> bool:
    if draft.pauses[fact.pause].status is not PauseStatus.AWAITING:
        return False
    if fact.event_id in used_events(draft.plan, draft.run, fact.pause):
        return False
    order = 1 + max((pause.order for pause in draft.pauses), default=0)
    draft.close_wait(fact.pause)
    draft.move_pause(fact.pause, "match", event_id=fact.event_id, order=order)
    if draft.plan.pauses[fact.pause].cancels:
        draft.end_run("cancel")
    else:
        draft.release(fact.pause, lambda on_timeout: not on_timeout)
    return True


def _deadline_passed(draft: _Draft, fact: DeadlinePassed) -> bool:
    if draft.pauses[fact.pause].status is not PauseStatus.AWAITING:
        return False
    draft.close_wait(fact.pause)
    draft.move_pause(fact.pause, "expire")
    draft.release(fact.pause, lambda on_timeout: on_timeout)
    return True


def _cancel_requested(draft: _Draft, fact: CancelRequested) -> bool:
    if draft.status is not RunStatus.RUNNING:
        return False
    draft.end_run("cancel")
    return True


_HANDLERS: dict[type, Callable[[_Draft, Any], bool]] = {
    RunStarted: _run_started,
    RunResumed: _run_resumed,
    StepKept: _step_kept,
    AttemptStarted: _attempt_started,
    AttemptEnded: _attempt_over,
    AttemptLost: _attempt_over,
    RetryDue: _retry_due,
    DelayEnded: _delay_ended,
    EventArrived: _event_arrived,
    DeadlinePassed: _deadline_passed,
    CancelRequested: _cancel_requested,
}


# --- helpers of the above -------------------------------------------------------------------------------------------


def _questions(
    plan: Plan,
    parent: int,
    edges: tuple[int, ...],
    result: str,
    outcome: Outcome | None = None,
    also: tuple[int, ...] = (),
) -> Questions:
    """What must be known to settle these edges, and to open the pauses in `also`."""
    passing = [e for e in edges if plan.edges[e].on in _ON.get(result, ())]
    pauses = {plan.edges[e].pause for e in passing}
    begun = [p for p in pauses if p is not None and plan.pauses[p].event is not None and not plan.pauses[p].delay_ms]
    return Questions(
        parent=parent,
        edges=tuple(e for e in passing if plan.edges[e].condition is not None),
        pauses=(*begun, *also),
        outcome=outcome,
    )


def _untouched(run: Run) -> bool:
    return all(step.status is StepStatus.PENDING for step in run.steps) and all(
        edge is EdgeStatus.PENDING for edge in run.edges
    )


# --- the draft -----------------------------------------------------------------------------------------------------


class _Draft:
    """A run while one fact is folded into it. Its methods are the only legal changes."""

    def __init__(self, plan: Plan, run: Run, answers: Answers, now: int) -> None:
        self.plan, self.run, self.answers, self.now = plan, run, answers, now
        self.status, self.started_at, self.ended_at = run.status, run.started_at, run.ended_at
        self.steps, self.edges, self.pauses = list(run.steps), list(run.edges), list(run.pauses)
        self.failed_step = run.failed_step
        self.problems = list(run.problems)
        self.commands: list[Command] = []

    def finish(self) -> Run:
        if self.status is RunStatus.RUNNING and all(step.status in ENDED_STEPS for step in self.steps):
            self._move_run("complete")
        return Run(
            self.run.id,
            self.status,
            self.run.created_at,
            self.started_at,
            self.ended_at,
            tuple(self.steps),
            tuple(self.edges),
            tuple(self.pauses),
            self.failed_step,
            tuple(self.problems),
        )

    # runs

    def end_run(self, move: str) -> None:
        """Fail or cancel: what has not ended is cancelled; running attempts go on only if the run failed."""
        self._move_run(move)
        for i, state in enumerate(self.steps):
            asks, running = self.plan.steps[i].asks, state.status is StepStatus.RUNNING
            if state.status in ENDED_STEPS or (move == "fail" and running and not asks):
                continue
            if running and asks:
                self.commands.append(ClearTimer(Timer(TimerKind.DECISION, i, state.attempt)))
            elif state.status is StepStatus.RUNNING:
                self.commands.append(StopStep(i, state.attempt))
            if state.status in (StepStatus.QUEUED, StepStatus.RUNNING):
                self.record(i, "cancelled", Outcome())
            if state.status is StepStatus.RETRYING:
                self.commands.append(ClearTimer(Timer(TimerKind.RETRY, i, state.attempt)))
            self.end_step(i, "cancel")
            self._kill_edges_of(i)

    def _move_run(self, move: str) -> None:
        self.status = RUN[self.status][move]
        self.ended_at = self.now
        for p in self.plan.cancels:
            self._drop_pause(p)
        self.commands.append(EmitEnd(self.status.name.lower()))

    # steps

    def move_step(self, i: int, move: str, **changes: Any) -> None:
        state = self.steps[i]
        self.steps[i] = state._replace(status=STEP[state.status][move], **changes)

    def end_step(self, i: int, move: str) -> None:
        self.move_step(i, move, at=0, queued_at=0)

    def queue(self, i: int, move: str, **changes: Any) -> None:
        """Queue the step's next attempt."""
        attempt = self.steps[i].attempt + 1
        self.move_step(i, move, attempt=attempt, at=self.now, queued_at=self.now, **changes)
        self.commands.append(RunStep(i, attempt))

    def record(self, i: int, status: str, outcome: Outcome, at: int | None = None) -> None:
        state = self.steps[i]
        started = state.at if state.status is StepStatus.RUNNING else None
        ended = self.now if at is None else at
        self.commands.append(
            RecordAttempt(i, state.attempt, status, state.queued_at, started, ended, outcome.output, outcome.error)
        )

    def start(self, i: int) -> None:
        unseen = tuple(a for a in self.plan.steps[i].ancestors if self.steps[a].status not in ENDED_STEPS)
        self.queue(i, "start", unseen=unseen)
        self._kill_edges_of(i)

    def keep_step(self, kept: Kept) -> None:
        """A step ends as it did in an earlier run; its outcome is kept with this one, as attempt 0."""
        i, outcome = kept.step, kept.outcome
        if outcome is None:
            self.move_step(i, "skip")
            return
        self.move_step(i, "keep" if outcome.error is None else "keep_failure")
        self.commands.append(RecordAttempt(i, 0, "kept", self.now, None, self.now, outcome.output, outcome.error))

    def _join(self, i: int) -> str | None:
        """Start or skip a pending step, if its edges say so; returns the move that was made."""
        if self.steps[i].status is not StepStatus.PENDING:
            return None
        step = self.plan.steps[i]
        move = JOINS[step.join]([self.edges[e] for e in step.edges])
        if move == "start":
            self.start(i)
        elif move == "skip":
            self.move_step(i, "skip")
            self._kill_edges_of(i)
        return move

    # edges

    def holds(self, e: int) -> bool:
        if self.plan.edges[e].condition is None:
            return True
        return self.answers.edges[e].holds

    def settle(self, edges: tuple[int, ...], result: str) -> None:
        """The parent of these edges ended with `result`, success or failure."""
        self._settle_edges(edges, result)
        self._join_children(edges)

    def _settle_edges(self, edges: tuple[int, ...], result: str) -> None:
        """In the order `on`, `if`, `wait`, `async`. The edges of a skipped step are dead."""
        begun: dict[int, list[int]] = {}
        for e in edges:
            if self.edges[e] is not EdgeStatus.PENDING:
                continue
            edge = self.plan.edges[e]
            passes = edge.on in _ON.get(result, ()) and self.holds(e)
            if passes and edge.pause is not None:
                self._move_edge(e, "pause")
                begun.setdefault(edge.pause, []).append(e)
            else:
                self._move_edge(e, "satisfy" if passes else "kill")
                self.note_problem("edge", e, self.answers.edges.get(e))
        for p, members in begun.items():
            self._begin_pause(p, tuple(members))

    def release(self, p: int, satisfied: Callable[[bool], bool]) -> None:
        """A pause is over: each of its edges is satisfied or dead, by `satisfied(on_timeout)`."""
        edges = self.plan.pauses[p].edges
        for e in edges:
            if self.edges[e] is EdgeStatus.PAUSED:
                self._move_edge(e, "satisfy" if satisfied(self.plan.edges[e].on_timeout) else "kill")
        self._join_children(edges)

    def _join_children(self, edges: tuple[int, ...]) -> None:
        # A work list, not recursion: a chain of 1,000 skipped steps is one transition.
        children = deque(dict.fromkeys(self.plan.edges[e].step for e in edges))
        while children:
            i = children.popleft()
            if self._join(i) == "skip":
                out = self.plan.steps[i].out
                self._settle_edges(out, "skip")
                children.extend(dict.fromkeys(self.plan.edges[e].step for e in out))

    def _move_edge(self, e: int, move: str) -> None:
        self.edges[e] = EDGE[self.edges[e]][move]

    def keep_edges(self, i: int, satisfied: tuple[int, ...]) -> None:
        """The edges into a step that does not wait for them any more stand as they stood in an earlier run."""
        for e in self.plan.steps[i].edges:
            if self.edges[e] is EdgeStatus.PENDING:
                self._move_edge(e, "satisfy" if e in satisfied else "kill")

    def _kill_edges_of(self, i: int) -> None:
        """The step started or is skipped: its open edges die with their timers and waits."""
        for e in self.plan.steps[i].edges:
            paused = self.edges[e] is EdgeStatus.PAUSED
            if paused or self.edges[e] is EdgeStatus.PENDING:
                self._move_edge(e, "kill")
            if paused:
                self._drop_if_unused(self.plan.edges[e].pause)

    # pauses

    def move_pause(self, p: int, move: str, **changes: Any) -> None:
        state = self.pauses[p]
        self.pauses[p] = state._replace(status=PAUSE[state.status][move], **changes)

    def await_event(self, p: int, since: int) -> None:
        wait = self.answers.pauses[p]
        self.note_problem("pause", p, wait)
        ttl = self.plan.pauses[p].ttl_ms
        deadline = since + (ttl or _AS_LONG_AS_THE_RUN_MS)
        self.move_pause(p, "await", due_at=deadline, key=wait.key)
        if ttl:
            self.commands.append(SetTimer(Timer(TimerKind.DEADLINE, p), deadline))
        if wait.problem is None:  # else no event can satisfy it: only its deadline is left
            self.commands.append(OpenWait(p, wait.key, deadline))

    def close_wait(self, p: int) -> None:
        if self.plan.pauses[p].ttl_ms:
            self.commands.append(ClearTimer(Timer(TimerKind.DEADLINE, p)))
        self.commands.append(CloseWait(p))

    def _begin_pause(self, p: int, edges: tuple[int, ...]) -> None:
        self.pauses[p] = self.pauses[p]._replace(edges=edges)
        delay = self.plan.pauses[p].delay_ms
        if delay:
            self.move_pause(p, "delay", due_at=self.now + delay)
            self.commands.append(SetTimer(Timer(TimerKind.DELAY, p), self.now + delay))
        else:
            self.await_event(p, self.now)

    def _drop_if_unused(self, p: int | None) -> None:
        if p is not None and not any(self.edges[e] is EdgeStatus.PAUSED for e in self.plan.pauses[p].edges):
            self._drop_pause(p)

    def _drop_pause(self, p: int) -> None:
        state: PauseState = self.pauses[p]
        if state.status not in OPEN_PAUSES:
            return
        if state.status is PauseStatus.DELAYED:
            self.commands.append(ClearTimer(Timer(TimerKind.DELAY, p)))
        else:
            self.close_wait(p)
        self.move_pause(p, "drop")

    def note_problem(self, kind: str, index: int, answer: Answer | WaitKey | None) -> None:
        if answer is not None and answer.problem is not None:
            self.problems.append((kind, index, answer.problem))
