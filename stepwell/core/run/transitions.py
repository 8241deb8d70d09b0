"""The tables of all legal status changes ("moves") of runs, steps, edges and pauses."""

from __future__ import annotations

from typing import TypeVar

from stepwell.core.run.run import EdgeStatus, PauseStatus, RunStatus, StepStatus

S = TypeVar("S")
Table = dict[S, dict[str, S]]

RUN: Table[RunStatus] = {
    RunStatus.RUNNING: {
        "complete": RunStatus.COMPLETED,  # every step has ended, and all failures were handled
        "fail": RunStatus.FAILED,  # no edge handles a failure, or an `if` has no value
        "cancel": RunStatus.CANCELLED,
    },
}

STEP: Table[StepStatus] = {
    StepStatus.PENDING: {
        "start": StepStatus.QUEUED,  # the join is satisfied
        "skip": StepStatus.SKIPPED,  # the join can no longer be satisfied
        "cancel": StepStatus.CANCELLED,
        "keep": StepStatus.COMPLETED,  # carried over from an earlier run that this run continues
        "keep_failure": StepStatus.FAILED,
    },
    StepStatus.QUEUED: {
        "claim": StepStatus.RUNNING,
        "cancel": StepStatus.CANCELLED,
    },
    StepStatus.RUNNING: {
        "complete": StepStatus.COMPLETED,
        "retry": StepStatus.RETRYING,  # the attempt failed, and the next one is due later
        "lose": StepStatus.QUEUED,  # the attempt was lost, and the next one is queued at once
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
        "keep": PauseStatus.MATCHED,  # carried over from an earlier run that this run continues
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
