"""The state of one run: small, immutable, and packed to a few bytes a step.

Outputs, errors and the history of attempts are not in here: they are records that the store keeps beside the run.
Named tuples, because every transition makes new ones, and they are made five times as fast as frozen dataclasses.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from stepwell.core.plan import Plan


class RunStatus(IntEnum):
    RUNNING = 0
    COMPLETED = 1
    FAILED = 2
    CANCELLED = 3


class StepStatus(IntEnum):
    PENDING = 0
    QUEUED = 1
    RUNNING = 2
    RETRYING = 3
    COMPLETED = 4
    FAILED = 5
    SKIPPED = 6
    CANCELLED = 7


class EdgeStatus(IntEnum):
    PENDING = 0  # the parent has not ended
    PAUSED = 1  # in a delay or waiting for an event
    SATISFIED = 2
    DEAD = 3


class PauseStatus(IntEnum):
    IDLE = 0  # not begun
    DELAYED = 1
    AWAITING = 2
    ELAPSED = 3  # a delay without a wait is over
    MATCHED = 4
    EXPIRED = 5
    DROPPED = 6  # nothing needs it any more


ENDED_STEPS = frozenset({StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})
OPEN_PAUSES = frozenset({PauseStatus.DELAYED, PauseStatus.AWAITING})


class StepState(NamedTuple):
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0  # number of the newest attempt; 0: none yet
    failures: int = 0  # attempts that failed
    losses: int = 0  # attempts that were lost
    at: int = 0  # QUEUED: when it was queued; RUNNING: when it started; RETRYING: when the next attempt is due
    queued_at: int = 0  # of the newest attempt
    unseen: tuple[int, ...] = ()  # ancestors that had not ended when this step's input was frozen


class PauseState(NamedTuple):
    status: PauseStatus = PauseStatus.IDLE
    due_at: int = 0  # end of the delay, or the wait's deadline
    event_id: str | None = None  # the event that matched
    order: int = 0  # matched pauses of a run are numbered from 1 in the order they were matched
    key: bytes | None = None  # where the open wait is found
    edges: tuple[int, ...] = ()  # those that went into it: an edge that died at `on` or `if` did not


class Run(NamedTuple):
    id: str
    status: RunStatus
    created_at: int
    started_at: int | None
    ended_at: int | None
    steps: tuple[StepState, ...]
    edges: tuple[EdgeStatus, ...]
    pauses: tuple[PauseState, ...]
    failed_step: int | None = None  # the step whose failure nothing handled
    problems: tuple[tuple[str, int, str], ...] = ()  # ("edge"|"pause", index, why its expression has no value)
    failed_edge: int | None = None  # the edge whose `if` had no value, so that the run failed


IDLE_STEP = StepState()
IDLE_PAUSE = PauseState()


def new_run(run_id: str, plan: Plan, now: int) -> Run:
    """A run to which nothing has happened yet; `RunStarted` is its first fact."""
    return Run(
        id=run_id,
        status=RunStatus.RUNNING,
        created_at=now,
        started_at=None,
        ended_at=None,
        steps=(IDLE_STEP,) * len(plan.steps),
        edges=(EdgeStatus.PENDING,) * len(plan.edges),
        pauses=(IDLE_PAUSE,) * len(plan.pauses),
    )


def without_data(run: Run) -> Run:
    """A run that has ended, without what follows from the data of its event: texts that may quote it, and keys of
    waits, which are digests of it."""
    pauses = (pause if pause.key is None else pause._replace(key=None) for pause in run.pauses)
    return run._replace(problems=(), pauses=tuple(pauses))


def pack(run: Run) -> bytes:
    """The run's state as compact JSON, without its id. What is still at its default takes a byte or two."""
    return orjson.dumps(
        [
            run.status,
            run.created_at,
            run.started_at,
            run.ended_at,
            [_pack_step(step) for step in run.steps],
            "".join(str(int(edge)) for edge in run.edges),
            [_pack_pause(pause) for pause in run.pauses],
            run.failed_step,
            run.problems,
            run.failed_edge,
        ]
    )


def unpack(run_id: str, data: bytes) -> Run:
    """The inverse of `pack`. What earlier versions of Stepwell packed ends before `failed_edge`."""
    status, created_at, started_at, ended_at, steps, edges, pauses, failed_step, problems, *later = orjson.loads(data)
    return Run(
        id=run_id,
        status=RunStatus(status),
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        steps=tuple(_unpack_step(step) for step in steps),
        edges=tuple(EdgeStatus(int(edge)) for edge in edges),
        pauses=tuple(_unpack_pause(pause) for pause in pauses),
        failed_step=failed_step,
        problems=tuple((kind, index, text) for kind, index, text in problems),
        failed_edge=later[0] if later else None,
    )


def _pack_pause(pause: PauseState) -> Any:
    return 0 if pause is IDLE_PAUSE else [*pause[:4], pause.key.hex() if pause.key else None, pause.edges]


def _unpack_pause(data: Any) -> PauseState:
    if data == 0:
        return IDLE_PAUSE
    status, due_at, event_id, order, key, edges = data
    return PauseState(PauseStatus(status), due_at, event_id, order, bytes.fromhex(key) if key else None, tuple(edges))


def _pack_step(step: StepState) -> Any:
    return 0 if step is IDLE_STEP else list(step)


def _unpack_step(data: Any) -> StepState:
    if data == 0:
        return IDLE_STEP
    status, attempt, failures, losses, at, queued_at, unseen = data
    return StepState(StepStatus(status), attempt, failures, losses, at, queued_at, tuple(unseen))
