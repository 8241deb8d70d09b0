"""The moves of runs, steps, edges and pauses: no other change of a status is legal."""

from __future__ import annotations

from typing import TypeVar

from stepwell.core.run.run import EdgeStatus, PauseStatus, RunStatus, StepStatus

S = TypeVar("S")
Table = dict[S, dict[str, S]]

RUN: Table[RunStatus] = {
    RunStatus.RUNNING: {
        "complete": RunStatus.COMPLETED,  # every step ended, no failure unhandled
        "fail": RunStatus.FAILED,  # a failure that no edge handles, or an `if` that has no value
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
