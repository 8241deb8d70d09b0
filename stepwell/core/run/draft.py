"""A run while one fact is folded into it.

One rule: each change of a status is a move of `transitions`, and says with it what it makes the run owe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.core.cel.answer import Answer
from stepwell.core.plan import Plan
from stepwell.core.run.joins import JOINS
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
    StopStep,
    Timer,
    TimerKind,
    WaitKey,
)
from stepwell.core.run.run import (
    BUSY_STEPS,
    ENDED_STEPS,
    OPEN_PAUSES,
    Bits,
    EdgeStatus,
    PauseState,
    PauseStatus,
    Run,
    RunStatus,
    StepState,
    StepStatus,
    bits_of,
    with_bits,
)
from stepwell.core.run.transitions import EDGE, PAUSE, RUN, STEP

# A rule of `cancel` without a timeout holds to the run's end. A wait needs a deadline all the same: what a crash leaves
# behind of it must go at some time.
_AS_LONG_AS_THE_RUN_MS = 10 * 366 * 86_400_000

# Members of enums that every transition compares with: until Python 3.11, an enum is slow to look one up.
_RUNNING = RunStatus.RUNNING
_PENDING_STEP, _RUNNING_STEP = StepStatus.PENDING, StepStatus.RUNNING
_PENDING_EDGE, _PAUSED_EDGE = EdgeStatus.PENDING, EdgeStatus.PAUSED

# The parent's end, as the `on` of an edge sees it.
ON = {"success": ("success", "always"), "failure": ("failure", "always")}


class Draft:
    """A run while one fact is folded into it. Its methods are the only legal changes."""

    __slots__ = (
        *("answers", "busy", "commands", "edges", "ended_at", "failed_edge", "failed_step", "now", "open", "pauses"),
        *("plan", "problems", "run", "started_at", "status", "steps"),
    )

    def __init__(self, plan: Plan, run: Run, answers: Answers, now: int) -> None:
        self.plan, self.run, self.answers, self.now = plan, run, answers, now
        self.status, self.started_at, self.ended_at = run.status, run.started_at, run.ended_at
        self.steps, self.pauses = list(run.steps), list(run.pauses)
        self.edges: list[EdgeStatus] | tuple[EdgeStatus, ...] = run.edges  # a list once one has moved
        self.open, self.busy = bits_of(run.steps)
        self.failed_step, self.failed_edge = run.failed_step, run.failed_edge
        self.problems = list(run.problems)
        self.commands: list[Command] = []

    def finish(self) -> Run:
        if self.status is _RUNNING and not self.open:
            self._move_run("complete")
        return Run(
            self.run.id,
            self.status,
            self.run.created_at,
            self.started_at,
            self.ended_at,
            with_bits(self.steps, Bits(self.open, self.busy)),
            tuple(self.edges),
            tuple(self.pauses),
            self.failed_step,
            tuple(self.problems),
            self.failed_edge,
        )

    # runs

    def end_run(self, move: str) -> None:
        """Fail or cancel: what has not ended is cancelled; running attempts go on only if the run failed."""
        self._move_run(move)
        for i, state in enumerate(self.steps):
            is_approval, running = self.plan.steps[i].is_approval, state.status is _RUNNING_STEP
            if state.status in ENDED_STEPS or (move == "fail" and running and not is_approval):
                continue
            if running and is_approval:
                self.commands.append(ClearTimer(Timer(TimerKind.DECISION, i, state.attempt)))
            elif state.status is _RUNNING_STEP:
                self.commands.append(StopStep(i, state.attempt))
            if state.status in (StepStatus.QUEUED, _RUNNING_STEP):
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

    def move_step(
        self,
        i: int,
        move: str,
        *,
        attempt: int | None = None,
        failures: int | None = None,
        losses: int | None = None,
        at: int | None = None,
        queued_at: int | None = None,
        unseen: tuple[int, ...] | None = None,
    ) -> None:
        """None: as before. `_replace` would do it too, and takes three times as long."""
        state = self.steps[i]
        status = STEP[state.status][move]
        self.steps[i] = StepState(
            status,
            state.attempt if attempt is None else attempt,
            state.failures if failures is None else failures,
            state.losses if losses is None else losses,
            state.at if at is None else at,
            state.queued_at if queued_at is None else queued_at,
            state.unseen if unseen is None else unseen,
        )
        bit = 1 << i
        self.busy = self.busy | bit if status in BUSY_STEPS else self.busy & ~bit
        if status in ENDED_STEPS:
            self.open &= ~bit

    def end_step(self, i: int, move: str) -> None:
        self.move_step(i, move, at=0, queued_at=0)

    def queue(self, i: int, move: str, *, losses: int | None = None, unseen: tuple[int, ...] | None = None) -> None:
        """Queue the step's next attempt."""
        attempt, now = self.steps[i].attempt + 1, self.now
        self.move_step(i, move, attempt=attempt, at=now, queued_at=now, losses=losses, unseen=unseen)
        self.commands.append(RunStep(i, attempt))

    def record(self, i: int, status: str, outcome: Outcome, at: int | None = None) -> None:
        state = self.steps[i]
        started = state.at if state.status is _RUNNING_STEP else None
        ended = self.now if at is None else at
        self.commands.append(
            RecordAttempt(i, state.attempt, status, state.queued_at, started, ended, outcome.output, outcome.error)
        )

    def start(self, i: int) -> None:
        step = self.plan.steps[i]
        unseen = self.open & step.ancestor_bits
        self.queue(i, "start", unseen=tuple(a for a in step.ancestors if unseen >> a & 1) if unseen else ())
        self._kill_edges_of(i)

    def keep_step(self, kept: CarriedOver) -> None:
        """A step ends as it did in an earlier run; its outcome is kept with this one, as attempt 0."""
        i, outcome = kept.step, kept.outcome
        if outcome is None:
            self.move_step(i, "skip")
            return
        self.move_step(i, "keep" if outcome.error is None else "keep_failure")
        self.commands.append(RecordAttempt(i, 0, "kept", self.now, None, self.now, outcome.output, outcome.error))

    def _join(self, i: int) -> str | None:
        """Start or skip a pending step, if its edges say so; returns the move that was made."""
        if self.steps[i].status is not _PENDING_STEP:
            return None
        step = self.plan.steps[i]
        if step.join == "merge" and self.edges[step.edges[-1]] is _PENDING_EDGE:
            return None  # so steps that many others lead to cost those little
        move = JOINS[step.join]([self.edges[e] for e in step.edges])
        if move == "start":
            self.start(i)
        elif move == "skip":
            self.move_step(i, "skip")
            self._kill_edges_of(i)
        return move

    # edges

    def fail_undecided(self, edges: tuple[int, ...]) -> bool:
        """Fail the run if the `if` of one of these edges has no value: which way it goes cannot be decided."""
        if not self.answers.edges:
            return False
        undecided = [e for e in edges if (answer := self.answers.edges.get(e)) and answer.problem is not None]
        for e in undecided:
            self.note_problem("edge", e, self.answers.edges[e])
        if undecided:
            self.failed_edge = undecided[0]
            self.end_run("fail")
        return bool(undecided)

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
            if self.edges[e] is not _PENDING_EDGE:
                continue
            edge = self.plan.edges[e]
            passes = edge.on in ON.get(result, ()) and self.holds(e)
            if passes and edge.pause is not None:
                self._move_edge(e, "pause")
                begun.setdefault(edge.pause, []).append(e)
            else:
                self._move_edge(e, "satisfy" if passes else "kill")
        for p, members in begun.items():
            self._begin_pause(p, tuple(members))

    def release(self, p: int, satisfied: Callable[[bool], bool]) -> None:
        """A pause is over: each of its edges is satisfied or dead, by `satisfied(on_timeout)`."""
        edges = self.plan.pauses[p].edges
        for e in edges:
            if self.edges[e] is _PAUSED_EDGE:
                self._move_edge(e, "satisfy" if satisfied(self.plan.edges[e].on_timeout) else "kill")
        self._join_children(edges)

    def _join_children(self, edges: tuple[int, ...]) -> None:
        # A work list, not recursion: a chain of 1,000 skipped steps is one transition.
        children = self._children(edges)
        for i in children:
            if self._join(i) == "skip":
                out = self.plan.steps[i].out
                self._settle_edges(out, "skip")
                children += self._children(out)

    def _children(self, edges: tuple[int, ...]) -> list[int]:
        return list(dict.fromkeys([self.plan.edges[e].step for e in edges]))

    def _move_edge(self, e: int, move: str) -> None:
        if isinstance(self.edges, tuple):  # most facts are claims, which move none
            self.edges = list(self.edges)
        self.edges[e] = EDGE[self.edges[e]][move]

    def keep_edges(self, i: int, satisfied: tuple[int, ...]) -> None:
        """The edges into a step that does not wait for them any more stand as they stood in an earlier run."""
        for e in self.plan.steps[i].edges:
            if self.edges[e] is _PENDING_EDGE:
                self._move_edge(e, "satisfy" if e in satisfied else "kill")

    def _kill_edges_of(self, i: int) -> None:
        """The step started or is skipped: its open edges die with their timers and waits."""
        for e in self.plan.steps[i].edges:
            paused = self.edges[e] is _PAUSED_EDGE
            if paused or self.edges[e] is _PENDING_EDGE:
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
        if answer is not None and answer.problem is not None:
            self.problems.append((kind, index, answer.problem))
