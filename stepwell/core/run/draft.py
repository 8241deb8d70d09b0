"""The mutable copy of a run into which one fact is folded.

Each change of a status is a move in a table of `transitions`, and appends the commands that follow from it.
"""

from __future__ import annotations

from typing import Any

from stepwell.core.cel.answer import Answer
from stepwell.core.plan import Plan
from stepwell.core.run.answers import Answers, Moment, WaitKey
from stepwell.core.run.messages import (
    CarriedOver,
    ClearTimer,
    CloseWait,
    Command,
    EmitEnd,
    OpenWait,
    Outcome,
    RecordAttempt,
    RunStep,
    SetTimer,
    Timer,
    TimerKind,
)
from stepwell.core.run.run import (
    BUSY_STEPS,
    ENDED_STEPS,
    OPEN_PAUSES,
    STATUS_NAMES,
    EdgeStatus,
    PauseState,
    PauseStatus,
    Run,
    RunStatus,
    Steps,
    StepState,
    StepStatus,
    steps_of,
)
from stepwell.core.run.timeouts import finish_timer, no_timer
from stepwell.core.run.transitions import EDGE, PAUSE, RUN, STEP

# A rule of `cancel` without a timeout applies until the run ends. The wait has a deadline nevertheless, so that a wait
# left behind by a crash is deleted at some time.
_AS_LONG_AS_THE_RUN_MS = 10 * 366 * 86_400_000

# Members of enums that every transition uses: looking up an enum member is slow before Python 3.12.
_RUNNING = RunStatus.RUNNING
_PENDING_STEP, _RUNNING_STEP = StepStatus.PENDING, StepStatus.RUNNING
_PENDING_EDGE, _PAUSED_EDGE = EdgeStatus.PENDING, EdgeStatus.PAUSED


class Draft:
    """The mutable copy of a run into which one fact is folded. Only these methods may change it."""

    __slots__ = (
        *("answers", "busy", "commands", "edges", "ended_at", "failed_edge", "failed_step", "now", "open", "pauses"),
        *("plan", "problems", "run", "started_at", "status", "steps", "cancel_reason"),
    )

    def __init__(self, plan: Plan, run: Run, answers: Answers, now: int) -> None:
        self.plan, self.run, self.answers, self.now = plan, run, answers, now
        # Unpacking a named tuple is many times faster than reading the fields.
        _, status, _, started_at, ended_at, steps, edges, pauses, failed_step, problems, failed_edge, reason = run
        if not isinstance(steps, Steps):
            steps = steps_of(run)
        self.status, self.started_at, self.ended_at = status, started_at, ended_at
        self.steps, self.open, self.busy, self.pauses = [*steps], steps.open, steps.busy, [*pauses]
        self.edges: list[EdgeStatus] | tuple[EdgeStatus, ...] = edges  # becomes a list when an edge changes
        self.failed_step, self.problems, self.failed_edge = failed_step, problems, failed_edge
        self.cancel_reason = reason
        self.commands: list[Command] = []

    def finish(self) -> Run:
        """The run after the changes. It is completed if all steps have ended."""
        if self.status is _RUNNING and not self.open:
            self.move_run("complete")
        steps = Steps(self.steps)
        steps.open, steps.busy = self.open, self.busy
        return Run(
            self.run.id,
            self.status,
            self.run.created_at,
            self.started_at,
            self.ended_at,
            steps,
            tuple(self.edges),
            tuple(self.pauses),
            self.failed_step,
            self.problems,
            self.failed_edge,
            self.cancel_reason,
        )

    # runs

    def move_run(self, move: str) -> None:
        """Completes, fails or cancels the run."""
        self.status = RUN[self.status][move]
        self.ended_at = self.now
        for p in self.plan.cancels:
            self._drop_pause(p)
        self.commands += no_timer(self.plan, self.started_at)
        self.commands.append(EmitEnd(STATUS_NAMES[self.status]))

    # steps

    def claim(self, i: int) -> None:
        """Starts the queued attempt."""
        status, attempt, failures, losses, _, queued_at, unseen = self.steps[i]
        claimed = STEP[status]["claim"]  # `busy` does not change: the step was queued, and now runs
        self.steps[i] = StepState(claimed, attempt, failures, losses, self.now, queued_at, unseen)
        if self.started_at is None:
            self.started_at = self.now
            self.commands += finish_timer(self.plan, self.now)

    def retry(self, i: int, due: int) -> None:
        """Schedules the next attempt after a failed one."""
        state = self.steps[i]
        failures, status = state.failures + 1, self._moved(i, "retry")
        self.steps[i] = StepState(status, state.attempt, failures, state.losses, due, state.queued_at, state.unseen)
        self.commands.append(SetTimer(Timer(TimerKind.RETRY, i, state.attempt), due))

    def lose(self, i: int) -> None:
        """Queues the next attempt at once, because the attempt was lost."""
        state = self.steps[i]
        self._queue(i, "lose", state.losses + 1, state.unseen)

    def retry_due(self, i: int) -> None:
        """Queues the next attempt after the delay."""
        state = self.steps[i]
        self._queue(i, "due", state.losses, state.unseen)

    def start(self, i: int) -> None:
        """Queues the first attempt, and kills the step's open edges."""
        step = self.plan.steps[i]
        unseen = self.open & step.ancestor_bits
        frozen = tuple(a for a in step.ancestors if unseen >> a & 1) if unseen else ()
        self._queue(i, "start", self.steps[i].losses, frozen)
        self.kill_edges_of(i)

    def _queue(self, i: int, move: str, losses: int, unseen: tuple[int, ...]) -> None:
        _, attempt, failures, _, _, _, _ = self.steps[i]
        status, now = self._moved(i, move), self.now
        self.steps[i] = StepState(status, attempt + 1, failures, losses, now, now, unseen)
        self.commands.append(RunStep(i, attempt + 1))

    def end_step(self, i: int, move: str) -> None:
        """Ends a step: it is completed, failed, skipped, kept or cancelled."""
        _, attempt, failures, losses, _, _, unseen = self.steps[i]
        self.steps[i] = StepState(self._moved(i, move), attempt, failures, losses, 0, 0, unseen)

    def _moved(self, i: int, move: str) -> StepStatus:
        """The status of a step after a move. Updates the sets `open` and `busy`."""
        status = STEP[self.steps[i].status][move]
        bit = 1 << i
        self.busy = self.busy | bit if status in BUSY_STEPS else self.busy & ~bit
        if status in ENDED_STEPS:
            self.open &= ~bit
        return status

    def record(self, i: int, status: str, outcome: Outcome, at: int | None = None) -> None:
        """Records the newest attempt, which has ended, in the step's history."""
        state = self.steps[i]
        started = state.at if state.status is _RUNNING_STEP else None
        ended = self.now if at is None else at
        self.commands.append(
            RecordAttempt(i, state.attempt, status, state.queued_at, started, ended, outcome.output, outcome.error)
        )

    def carry_over_step(self, kept: CarriedOver) -> None:
        """Ends a step as it ended in an earlier run. The outcome is recorded as attempt 0."""
        i, outcome = kept.step, kept.outcome
        if outcome is None:
            self.end_step(i, "skip")
            return
        self.end_step(i, "keep" if outcome.error is None else "keep_failure")
        self.commands.append(RecordAttempt(i, 0, "kept", self.now, None, self.now, outcome.output, outcome.error))

    # edges

    def holds(self, e: int) -> bool:
        """Whether the edge's `if` is absent or true."""
        if self.plan.edges[e].condition is None:
            return True
        return self.answers.edges[e].holds

    def move_edge(self, e: int, move: str) -> None:
        """Pauses, satisfies or kills an edge."""
        if isinstance(self.edges, tuple):  # copied late: most facts are claims, which change no edge
            self.edges = list(self.edges)
        self.edges[e] = EDGE[self.edges[e]][move]

    def carry_over_edges(self, i: int, satisfied: tuple[int, ...]) -> None:
        """Settles the pending edges into a step as they were settled in an earlier run."""
        for e in self.plan.steps[i].edges:
            if self.edges[e] is _PENDING_EDGE:
                self.move_edge(e, "satisfy" if e in satisfied else "kill")

    def kill_edges_of(self, i: int) -> None:
        """Kills the open edges into a step that started or is skipped, with the timers and waits of these edges."""
        for e in self.plan.steps[i].edges:
            status = self.edges[e]
            if status is _PENDING_EDGE:
                self.move_edge(e, "kill")
            elif status is _PAUSED_EDGE:
                self.move_edge(e, "kill")
                self._drop_if_unused(self.plan.edges[e].pause)

    # pauses

    def move_pause(self, p: int, move: str, **changes: Any) -> None:
        """Changes the status of a pause, and other fields of the state (`changes`)."""
        state = self.pauses[p]
        self.pauses[p] = state._replace(status=PAUSE[state.status][move], **changes)

    def await_event(self, p: int, since: int) -> None:
        """Opens the wait of a pause. The ttl counts from `since`."""
        wait = self.answers.pauses[p]
        self.note_problem("pause", p, wait)
        ttl = self.plan.pauses[p].ttl_ms
        deadline = since + (ttl or _AS_LONG_AS_THE_RUN_MS)
        self.move_pause(p, "await", due_at=deadline, key=wait.key)
        if ttl:
            self.commands.append(SetTimer(Timer(TimerKind.DEADLINE, p), deadline))
        if wait.problem is None:  # otherwise no event can satisfy the wait, and only the deadline can end it
            self.commands.append(OpenWait(p, wait.key, deadline))

    def close_wait(self, p: int) -> None:
        """Removes the wait of a pause, and the timer of the deadline."""
        if self.plan.pauses[p].ttl_ms:
            self.commands.append(ClearTimer(Timer(TimerKind.DEADLINE, p)))
        self.commands.append(CloseWait(p))

    def begin_pause(self, p: int, edges: tuple[int, ...]) -> bool:
        """Begins a pause for the given edges, with the delay or with the wait. Returns whether it is over already: a
        delay until a time in the past, without a wait."""
        pause = self.plan.pauses[p]
        self.pauses[p] = self.pauses[p]._replace(edges=edges)
        due_at = self.now + pause.delay_ms if pause.until is None else self.answers.moments[edges[0]].at
        if due_at > self.now:
            self.move_pause(p, "delay", due_at=due_at)
            self.commands.append(SetTimer(Timer(TimerKind.DELAY, p), due_at))
        elif pause.event is not None:
            self.await_event(p, self.now)
        else:
            self.move_pause(p, "delay", due_at=due_at)
            self.move_pause(p, "elapse")
        return self.pauses[p].status is PauseStatus.ELAPSED

    def _drop_if_unused(self, p: int | None) -> None:
        if p is not None and not any(self.edges[e] is _PAUSED_EDGE for e in self.plan.pauses[p].edges):
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

    def note_problem(self, kind: str, index: int, answer: Answer | WaitKey | Moment | None) -> None:
        """Stores the reason why an expression has no value, if there is one. `kind`: edge, pause or UNTIL."""
        if answer is not None and answer.problem is not None:
            self.problems = (*self.problems, (kind, index, answer.problem))
