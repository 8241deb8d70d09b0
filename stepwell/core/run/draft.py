"""A run while one fact is folded into it.

One rule: each change of a status is a move of `transitions`, and says with it what it makes the run owe.
"""

from __future__ import annotations

from typing import Any

from stepwell.core.cel.answer import Answer
from stepwell.core.plan import Plan
from stepwell.core.run.messages import (
    Answers,
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
    WaitKey,
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
from stepwell.core.run.transitions import EDGE, PAUSE, RUN, STEP

# A rule of `cancel` without a timeout holds to the run's end. A wait needs a deadline all the same: what a crash leaves
# behind of it must go at some time.
_AS_LONG_AS_THE_RUN_MS = 10 * 366 * 86_400_000

# Members of enums that every transition compares with: until Python 3.11, an enum is slow to look one up.
_RUNNING = RunStatus.RUNNING
_PENDING_STEP, _RUNNING_STEP = StepStatus.PENDING, StepStatus.RUNNING
_PENDING_EDGE, _PAUSED_EDGE = EdgeStatus.PENDING, EdgeStatus.PAUSED


class Draft:
    """A run while one fact is folded into it. Its methods are the only legal changes."""

    __slots__ = (
        *("answers", "busy", "commands", "edges", "ended_at", "failed_edge", "failed_step", "now", "open", "pauses"),
        *("plan", "problems", "run", "started_at", "status", "steps"),
    )

    def __init__(self, plan: Plan, run: Run, answers: Answers, now: int) -> None:
        self.plan, self.run, self.answers, self.now = plan, run, answers, now
        # A named tuple is taken apart many times as fast as its fields are looked up.
        _, status, _, started_at, ended_at, steps, edges, pauses, failed_step, problems, failed_edge = run
        if not isinstance(steps, Steps):
            steps = steps_of(run)
        self.status, self.started_at, self.ended_at = status, started_at, ended_at
        self.steps, self.open, self.busy, self.pauses = [*steps], steps.open, steps.busy, [*pauses]
        self.edges: list[EdgeStatus] | tuple[EdgeStatus, ...] = edges  # a list once one has moved
        self.failed_step, self.problems, self.failed_edge = failed_step, problems, failed_edge
        self.commands: list[Command] = []

    def finish(self) -> Run:
        """The run as it stands now. It is completed if all of its steps have ended."""
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
        )

    # runs

    def move_run(self, move: str) -> None:
        """The run is completed, failed or cancelled."""
        self.status = RUN[self.status][move]
        self.ended_at = self.now
        for p in self.plan.cancels:
            self._drop_pause(p)
        self.commands.append(EmitEnd(STATUS_NAMES[self.status]))

    # steps

    def claim(self, i: int) -> None:
        """The queued attempt starts."""
        status, attempt, failures, losses, _, queued_at, unseen = self.steps[i]
        claimed = STEP[status]["claim"]  # the step stays as busy as it was
        self.steps[i] = StepState(claimed, attempt, failures, losses, self.now, queued_at, unseen)
        if self.started_at is None:
            self.started_at = self.now

    def retry(self, i: int, due: int) -> None:
        """The attempt failed; the next one is due later."""
        state = self.steps[i]
        failures, status = state.failures + 1, self._moved(i, "retry")
        self.steps[i] = StepState(status, state.attempt, failures, state.losses, due, state.queued_at, state.unseen)
        self.commands.append(SetTimer(Timer(TimerKind.RETRY, i, state.attempt), due))

    def lose(self, i: int) -> None:
        """The attempt was lost; the next one is queued at once."""
        state = self.steps[i]
        self._queue(i, "lose", state.losses + 1, state.unseen)

    def retry_due(self, i: int) -> None:
        """The next attempt is queued after its delay."""
        state = self.steps[i]
        self._queue(i, "due", state.losses, state.unseen)

    def start(self, i: int) -> None:
        """The first attempt is queued. The open edges of the step die."""
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
        """The step is completed, failed, skipped, kept or cancelled."""
        _, attempt, failures, losses, _, _, unseen = self.steps[i]
        self.steps[i] = StepState(self._moved(i, move), attempt, failures, losses, 0, 0, unseen)

    def _moved(self, i: int, move: str) -> StepStatus:
        """The step's status after this move. (`_replace` would set it three times as slowly as a new state does.)"""
        status = STEP[self.steps[i].status][move]
        bit = 1 << i
        self.busy = self.busy | bit if status in BUSY_STEPS else self.busy & ~bit
        if status in ENDED_STEPS:
            self.open &= ~bit
        return status

    def record(self, i: int, status: str, outcome: Outcome, at: int | None = None) -> None:
        """Put the newest attempt, which is over, into the step's history."""
        state = self.steps[i]
        started = state.at if state.status is _RUNNING_STEP else None
        ended = self.now if at is None else at
        self.commands.append(
            RecordAttempt(i, state.attempt, status, state.queued_at, started, ended, outcome.output, outcome.error)
        )

    def carry_over_step(self, kept: CarriedOver) -> None:
        """End a step as it ended in an earlier run. Its outcome becomes attempt 0 of this run."""
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
        """The edge is paused, satisfied or dead."""
        if isinstance(self.edges, tuple):  # most facts are claims, which move none
            self.edges = list(self.edges)
        self.edges[e] = EDGE[self.edges[e]][move]

    def carry_over_edges(self, i: int, satisfied: tuple[int, ...]) -> None:
        """Settle the pending edges into a step as they were settled in an earlier run."""
        for e in self.plan.steps[i].edges:
            if self.edges[e] is _PENDING_EDGE:
                self.move_edge(e, "satisfy" if e in satisfied else "kill")

    def kill_edges_of(self, i: int) -> None:
        """Kill the open edges into a step that started or is skipped, with their timers and waits."""
        for e in self.plan.steps[i].edges:
            status = self.edges[e]
            if status is _PENDING_EDGE:
                self.move_edge(e, "kill")
            elif status is _PAUSED_EDGE:
                self.move_edge(e, "kill")
                self._drop_if_unused(self.plan.edges[e].pause)

    # pauses

    def move_pause(self, p: int, move: str, **changes: Any) -> None:
        """`changes`: fields of its state."""
        state = self.pauses[p]
        self.pauses[p] = state._replace(status=PAUSE[state.status][move], **changes)

    def await_event(self, p: int, since: int) -> None:
        """Open the wait of this pause. Its ttl counts from `since`."""
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

    def begin_pause(self, p: int, edges: tuple[int, ...]) -> None:
        """These edges go into the pause."""
        self.pauses[p] = self.pauses[p]._replace(edges=edges)
        delay = self.plan.pauses[p].delay_ms
        if delay:
            self.move_pause(p, "delay", due_at=self.now + delay)
            self.commands.append(SetTimer(Timer(TimerKind.DELAY, p), self.now + delay))
        else:
            self.await_event(p, self.now)

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

    def note_problem(self, kind: str, index: int, answer: Answer | WaitKey | None) -> None:
        """Keep why an expression has no value, if it has none."""
        if answer is not None and answer.problem is not None:
            self.problems = (*self.problems, (kind, index, answer.problem))
