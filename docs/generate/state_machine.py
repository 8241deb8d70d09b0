"""The page internals/state-machine.md.

The moves are read from the tables in `stepwell/core/run/transitions.py`; only the explanations are written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from stepwell.core.run.attempt_result import MAX_LOSSES
from stepwell.core.run.run import EdgeStatus, PauseStatus, RunStatus, StepStatus
from stepwell.core.run.transitions import EDGE, PAUSE, RUN, STEP

S = TypeVar("S", bound=IntEnum)

INTRODUCTION = """\
# The state machine of a run

<!-- Written by docs/generate from the tables in stepwell/core/run/transitions.py; change them, then `make docs`. -->

A run is four kinds of small state machines: the run itself, its steps, the edges between them (the entries of `after`),
and the pauses that edges go through (`wait`, `async`). Whatever happens is a *fact*; one fact makes all of its moves in
one transition, and every move is an arrow below. A fact that finds no arrow, because it is late or repeated, changes
nothing. The API also shows a step as `waiting`: it is `pending` here, and one of its edges is `paused`.
"""


@dataclass(frozen=True)
class Machine(Generic[S]):
    title: str
    about: str
    table: Mapping[S, Mapping[str, S]]
    states: Mapping[S, str]  # what each state means; the first one is where it starts
    moves: Mapping[tuple[S, str], str]  # when each move is made

    def text(self) -> str:
        """The machine's section: diagram, states, moves. Raises ValueError if something is not explained."""
        moves = [(source, move, target) for source, item in self.table.items() for move, target in item.items()]
        if set(self.states) != set(type(next(iter(self.states)))):
            raise ValueError(f"{self.title}: not every state is explained")
        if set(self.moves) != {(source, move) for source, move, _ in moves}:
            raise ValueError(f"{self.title}: the explained moves are not those of the table")
        diagram = [f"    {_name(source)} --> {_name(target)}: {move}" for source, move, target in moves]
        rows = [
            (f"`{move}`", f"`{_name(source)}` → `{_name(target)}`", self.moves[source, move])
            for source, move, target in moves
        ]
        return "\n".join(
            [
                f"## {self.title}\n\n{self.about}\n",
                "```mermaid\nstateDiagram-v2",
                f"    [*] --> {_name(next(iter(self.states)))}",
                *diagram,
                *(f"    {_name(state)} --> [*]" for state in self.states if not self.table.get(state)),
                "```\n",
                *_rows(
                    ("state", "meaning"), [(f"`{_name(state)}`", meaning) for state, meaning in self.states.items()]
                ),
                "",
                *_rows(("move", "from → to", "when"), rows),
                "",
            ]
        )


def _name(state: IntEnum) -> str:
    return state.name.lower()


def _rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(row)} |"


THE_RUN = Machine(
    "Run",
    "One execution of one function version for one event.",
    RUN,
    {
        RunStatus.RUNNING: "Some step has not ended. A run is running from the moment it is made.",
        RunStatus.COMPLETED: "Every step ended, and no failure is unhandled; also if all steps were skipped.",
        RunStatus.FAILED: (
            "A step failed for good, and no edge handled it; or the `if` of an edge has no value. "
            "Attempts that run may still end."
        ),
        RunStatus.CANCELLED: (
            "Somebody, an event of a rule of `cancel`, or a limit of `timeouts` cancelled it. Late outcomes change"
            " nothing."
        ),
    },
    {
        (RunStatus.RUNNING, "complete"): "The last of its steps ended.",
        (RunStatus.RUNNING, "fail"): (
            "A step failed for good, and none of its `failure` or `always` edges has an `if` that is true or absent; "
            "or the `if` of an edge has no value. All steps that are not running are cancelled in the same transition."
        ),
        (RunStatus.RUNNING, "cancel"): (
            "A cancel was requested, an event came that a rule of `cancel` waits for, or the time of `timeouts` is"
            " over. All that has not ended is cancelled with it."
        ),
    },
)

THE_STEP = Machine(
    "Step",
    "A node of the graph. Its attempts are numbered from 1.",
    STEP,
    {
        StepStatus.PENDING: "Its join has not decided yet.",
        StepStatus.QUEUED: "An attempt is ready, and no worker has claimed it.",
        StepStatus.RUNNING: "A worker has claimed the attempt.",
        StepStatus.RETRYING: "An attempt failed; the next one is due after the backoff, or after `retry_after`.",
        StepStatus.COMPLETED: "An attempt ended with an output.",
        StepStatus.FAILED: "It failed for good.",
        StepStatus.SKIPPED: "It never ran: its edges can no longer satisfy its join.",
        StepStatus.CANCELLED: "The run ended before this step did.",
    },
    {
        (StepStatus.PENDING, "start"): (
            "Its join is satisfied: `merge`, all edges are settled and at least one is satisfied; `all`, all are "
            "satisfied; `first`, one is. Its input is frozen, and its edges that are still open die."
        ),
        (StepStatus.PENDING, "skip"): (
            "Its join cannot be satisfied any more: `merge` and `first`, all edges are dead; `all`, one is. "
            "The edges out of it die, and the steps after it are decided in the same transition."
        ),
        (StepStatus.PENDING, "cancel"): "The run failed or was cancelled.",
        (StepStatus.PENDING, "keep"): (
            "The run goes on from a step of an earlier run, in which this one completed; it keeps that output."
        ),
        (
            StepStatus.PENDING,
            "keep_failure",
        ): "The same of a step that had failed there, and whose failure was handled.",
        (StepStatus.QUEUED, "claim"): "A worker starts the attempt. Exactly one claim of an attempt succeeds.",
        (StepStatus.QUEUED, "cancel"): "The run failed or was cancelled.",
        (StepStatus.RUNNING, "complete"): "The attempt's outcome is an output.",
        (StepStatus.RUNNING, "retry"): "The outcome is an error worth another try, and retries are left.",
        (StepStatus.RUNNING, "lose"): (
            "The server or worker of the attempt is gone. The next number is queued at once; no retry is used up."
        ),
        (StepStatus.RUNNING, "fail"): (
            f"The error is final, or no retries are left, or it is the step's loss number {MAX_LOSSES}, or the run has "
            "failed meanwhile: then nothing is tried again."
        ),
        (StepStatus.RUNNING, "cancel"): "The run was cancelled; the attempt is stopped. A run that fails lets it end.",
        (StepStatus.RETRYING, "due"): "The delay is over: the next attempt is queued.",
        (StepStatus.RETRYING, "cancel"): "The run failed or was cancelled.",
    },
)

THE_EDGE = Machine(
    "Edge",
    "One entry of a step's `after` list. It is settled once, in the order `on`, `if`, `wait`, `async`.",
    EDGE,
    {
        EdgeStatus.PENDING: "Its parent has not ended.",
        EdgeStatus.PAUSED: "`on` and `if` hold; it is in its delay, or waits for its event.",
        EdgeStatus.SATISFIED: "It lets its step start.",
        EdgeStatus.DEAD: "It will never be satisfied.",
    },
    {
        (EdgeStatus.PENDING, "pause"): "The parent ended, `on` and `if` hold, and there is a `wait` or an `async`.",
        (EdgeStatus.PENDING, "satisfy"): "The parent ended, `on` and `if` hold, and there is nothing to wait for.",
        (EdgeStatus.PENDING, "kill"): (
            "The parent ended, and `on` or `if` does not hold; or the parent was skipped; or the edge's own step "
            "started without it, or was skipped or cancelled."
        ),
        (EdgeStatus.PAUSED, "satisfy"): (
            "The delay is over, or the event came; with `onTimeout`, the deadline passed and no event had come."
        ),
        (EdgeStatus.PAUSED, "kill"): (
            "The deadline passed; with `onTimeout`, the event came; or the edge's own step started without it, or was "
            "skipped or cancelled."
        ),
    },
)

THE_PAUSE = Machine(
    "Pause",
    "A delay, a wait for an event, or the one and then the other. Edges with equal parent, delay, event, match and ttl "
    "share one, so that a single fact settles all of them. A rule of `cancel` is a wait without edges, open from the "
    "start of the run.",
    PAUSE,
    {
        PauseStatus.IDLE: "None of its edges has come to it.",
        PauseStatus.DELAYED: "The delay runs.",
        PauseStatus.AWAITING: "It is open to events until its deadline.",
        PauseStatus.ELAPSED: "The delay is over, and there was nothing else to wait for.",
        PauseStatus.MATCHED: "An event satisfied it.",
        PauseStatus.EXPIRED: "No event satisfied it in time.",
        PauseStatus.DROPPED: "Nothing needs it any more. Its timer is cleared, its wait closed.",
    },
    {
        (PauseStatus.IDLE, "delay"): "An edge comes to it, and there is a `wait`.",
        (PauseStatus.IDLE, "await"): (
            "An edge comes to it, and there is an `async` without a `wait`; or, of a rule of `cancel`, the run starts."
        ),
        (PauseStatus.IDLE, "keep"): (
            "The run goes on from a step of an earlier run, in which an event satisfied this wait of a step that has "
            "ended or starts now."
        ),
        (PauseStatus.DELAYED, "elapse"): "The delay is over, and there is no `async`.",
        (PauseStatus.DELAYED, "await"): (
            "The delay is over, and there is an `async`. Its ttl counts from the end of the delay, and an event that "
            "came during the delay settles it at once."
        ),
        (PauseStatus.DELAYED, "drop"): "The last of the edges that were paused here died.",
        (PauseStatus.AWAITING, "match"): (
            "An event came that satisfies the wait and has not satisfied one upstream of it in this run."
        ),
        (PauseStatus.AWAITING, "expire"): "The deadline passed, and a last look found no event.",
        (PauseStatus.AWAITING, "drop"): (
            "The last of the edges that were paused here died; or, of a rule of `cancel`, the run ended."
        ),
    },
)


def page() -> str:
    """The content of the page."""
    return "\n".join([INTRODUCTION, *(machine.text() for machine in (THE_RUN, THE_STEP, THE_EDGE, THE_PAUSE))])
