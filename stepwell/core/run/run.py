"""The state of one run: small, immutable, and packed to a few bytes a step.

Outputs, errors and the history of attempts are not in here: they are records that the store keeps beside the run.
Named tuples, because every transition makes new ones, and they are made five times as fast as frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

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


_PENDING_STEP = StepStatus.PENDING  # until Python 3.11, an enum is slow to look one up

ENDED_STEPS = frozenset({StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})
BUSY_STEPS = frozenset({StepStatus.QUEUED, StepStatus.RUNNING})
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


class Steps(tuple[StepState, ...]):
    """The steps of a run, with two sets of them, which every transition hands on to the next. A set is a whole number:
    bit i stands for step i. So it is cheap to ask about all steps of a long run."""

    open: int  # those that have not ended
    busy: int  # those with an attempt that is queued or running


def steps_of(run: Run) -> Steps:
    """The run's steps with their sets, which are found by looking at each step if they are not known."""
    steps = run.steps
    if isinstance(steps, Steps):
        return steps
    value = Steps(steps)
    value.open = bits_where(step.status not in ENDED_STEPS for step in steps)
    value.busy = bits_where(step.status in BUSY_STEPS for step in steps)
    return value


def has_begun(run: Run) -> bool:
    """Whether a fact has changed the run since it was made."""
    for step in run.steps:
        if step.status is not _PENDING_STEP:
            return True
    return any(edge is not EdgeStatus.PENDING for edge in run.edges)


def bits_where(holds: Iterable[bool]) -> int:
    """The set of all i for which the i-th is true."""
    digits = "".join("1" if it else "0" for it in holds)
    return int(digits[::-1], 2) if digits else 0


STATUS_NAMES = {status: status.name.lower() for status in RunStatus}  # what an enum makes anew each time


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
    steps = Steps((IDLE_STEP,) * len(plan.steps))
    steps.open, steps.busy = (1 << len(steps)) - 1, 0
    edges, pauses = (EdgeStatus.PENDING,) * len(plan.edges), (IDLE_PAUSE,) * len(plan.pauses)
    return Run(run_id, RunStatus.RUNNING, now, None, None, steps, edges, pauses)


def without_data(run: Run) -> Run:
    """A run that has ended, without what follows from the data of its event: texts that may quote it, and keys of
    waits, which are digests of it."""
    pauses = (pause if pause.key is None else pause._replace(key=None) for pause in run.pauses)
    return run._replace(problems=(), pauses=tuple(pauses))


def pack(run: Run) -> bytes:
    """The run's state as compact JSON, without its id. What is still at its default takes a byte or two."""
    return _pack(run, _pack_steps(run.steps), _pack_pauses(run.pauses) if run.pauses else ())


def _pack(run: Run, steps: Any, pauses: Any) -> bytes:
    _, status, created_at, started_at, ended_at, _, moved, _, failed_step, problems, failed_edge = run
    edges = bytes(moved).translate(_DIGITS).decode()
    return orjson.dumps(
        [status, created_at, started_at, ended_at, steps, edges, pauses, failed_step, problems, failed_edge]
    )


PART = 32  # states
_MANY = 8 * PART

Part = tuple[int, bytes]  # steps are in parts 0, 1, 2, ..., pauses in -1, -2, -3, ...


class Packer:
    """Packs the states that one long run has one after the other, in parts, so that a transition writes the parts that
    it changes. A part that was never written holds only what is still at its default."""

    __slots__ = ("_pauses", "_steps")

    def __init__(self, run: Run) -> None:
        """`run`: any state of this run."""
        self._steps: tuple[StepState, ...] = (IDLE_STEP,) * len(run.steps)
        self._pauses: tuple[PauseState, ...] = (IDLE_PAUSE,) * len(run.pauses)

    def pack(self, run: Run) -> tuple[bytes, list[Part]]:
        """The run's state without its parts, and the parts that differ from those of the last call."""
        parts = [(n, orjson.dumps(_pack_steps(_part(run.steps, n)))) for n in _differences(self._steps, run.steps)]
        changed = _differences(self._pauses, run.pauses)
        parts += [(-1 - n, orjson.dumps(_pack_pauses(_part(run.pauses, n)))) for n in changed]
        self._steps, self._pauses = run.steps, run.pauses
        return _pack(run, len(run.steps), len(run.pauses)), parts


State = TypeVar("State", StepState, PauseState)


def _part(states: Sequence[State], number: int) -> Sequence[State]:
    return states[number * PART : (number + 1) * PART]


def _differences(old: Sequence[object], new: Sequence[object]) -> list[int]:
    """The parts in which two sequences differ. Those that have the same objects are compared fast."""
    if old is new:
        return []
    return [
        n // PART
        for start in range(0, len(new), _MANY)
        if old[start : start + _MANY] != new[start : start + _MANY]
        for n in range(start, min(start + _MANY, len(new)), PART)
        if old[n : n + PART] != new[n : n + PART]
    ]


def unpack(run_id: str, data: bytes, parts: Iterable[Part] = ()) -> Run:
    """The inverse of `pack`, and, with all parts, of `Packer.pack`. What earlier versions of Stepwell packed ends
    before `failed_edge`."""
    status, created_at, started_at, ended_at, steps, edges, pauses, failed_step, problems, *later = orjson.loads(data)
    if isinstance(steps, int):
        steps, pauses = _whole(steps, pauses, parts)
    return Run(
        id=run_id,
        status=RunStatus(status),
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        steps=tuple(IDLE_STEP if step == 0 else _unpack_step(step) for step in steps),
        edges=tuple(map(_EDGES.__getitem__, edges)),
        pauses=tuple(IDLE_PAUSE if pause == 0 else _unpack_pause(pause) for pause in pauses),
        failed_step=failed_step,
        problems=tuple((kind, index, text) for kind, index, text in problems),
        failed_edge=later[0] if later else None,
    )


def _whole(step_count: int, pause_count: int, parts: Iterable[Part]) -> tuple[list[Any], list[Any]]:
    """The packed steps and pauses of all parts."""
    steps: list[Any] = [0] * step_count
    pauses: list[Any] = [0] * pause_count
    for number, text in parts:
        states, n = (steps, number) if number >= 0 else (pauses, -1 - number)
        states[n * PART : (n + 1) * PART] = orjson.loads(text)
    return steps, pauses


_DIGITS = bytes.maketrans(bytes(EdgeStatus), b"0123")
_EDGES = {str(int(status)): status for status in EdgeStatus}
_STEPS = tuple(StepStatus)


def _pack_steps(steps: Iterable[StepState]) -> list[Any]:
    return [0 if step is IDLE_STEP else [*step] for step in steps]


def _pack_pauses(pauses: Iterable[PauseState]) -> list[Any]:
    return [
        0 if pause is IDLE_PAUSE else [*pause[:4], pause.key.hex() if pause.key else None, pause.edges]
        for pause in pauses
    ]


def _unpack_pause(data: Any) -> PauseState:
    status, due_at, event_id, order, key, edges = data
    return PauseState(PauseStatus(status), due_at, event_id, order, bytes.fromhex(key) if key else None, tuple(edges))


def _unpack_step(data: Any) -> StepState:
    status, attempt, failures, losses, at, queued_at, unseen = data
    return StepState(_STEPS[status], attempt, failures, losses, at, queued_at, tuple(unseen))
