"""The state of a run: small, immutable, and packed to a few bytes for each step.

The state does not contain outputs, errors or the history of attempts: the store has separate records for these. The
classes are named tuples, because every transition creates new ones, five times as fast as frozen dataclasses.
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
    DROPPED = 6  # no longer needed


_PENDING_STEP = StepStatus.PENDING  # looking up an enum member is slow before Python 3.12

ENDED_STEPS = frozenset({StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})
BUSY_STEPS = frozenset({StepStatus.QUEUED, StepStatus.RUNNING})
OPEN_PAUSES = frozenset({PauseStatus.DELAYED, PauseStatus.AWAITING})


class StepState(NamedTuple):
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0  # the number of the newest attempt; 0: none yet
    failures: int = 0  # attempts that failed
    losses: int = 0  # attempts that were lost
    at: int = 0  # QUEUED: when it was queued; RUNNING: when it started; RETRYING: when the next attempt is due
    queued_at: int = 0  # of the newest attempt
    unseen: tuple[int, ...] = ()  # ancestors that had not ended when this step's input was frozen


class PauseState(NamedTuple):
    status: PauseStatus = PauseStatus.IDLE
    due_at: int = 0  # the end of the delay, or the deadline of the wait
    event_id: str | None = None  # the event that matched
    order: int = 0  # the matched pauses of a run are numbered from 1, in the order of the matches
    key: bytes | None = None  # the key under which the open wait is stored
    edges: tuple[int, ...] = ()  # the paused edges, without those that died because of `on` or `if`


class Steps(tuple[StepState, ...]):
    """The steps of a run, with two sets of steps that every transition updates.

    A set is an integer in which bit i stands for step i. So a question about all steps of a long run costs little.
    """

    open: int  # those that have not ended
    busy: int  # those with an attempt that is queued or running


def steps_of(run: Run) -> Steps:
    """The run's steps with the two sets. The sets are computed from the steps if they are not known."""
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


STATUS_NAMES = {status: status.name.lower() for status in RunStatus}  # cached: an enum computes `name` on each access


UNTIL = "until"  # a problem of the `wait.until` of an edge


class Run(NamedTuple):
    id: str
    status: RunStatus
    created_at: int
    started_at: int | None
    ended_at: int | None
    steps: tuple[StepState, ...]
    edges: tuple[EdgeStatus, ...]
    pauses: tuple[PauseState, ...]
    failed_step: int | None = None  # the step whose failure was not handled
    problems: tuple[tuple[str, int, str], ...] = ()  # ("edge"|"pause"|UNTIL, index, why the expression has no value)
    failed_edge: int | None = None  # the edge whose `if` or `wait.until` had no value, which failed the run
    cancel_reason: tuple[str, str] | None = None  # why the engine cancelled the run, see below

    @property
    def timed_out(self) -> str | None:
        """The limit of `timeouts` that cancelled the run: start or finish."""
        return self._detail("timeout")

    @property
    def replaced_by(self) -> str | None:
        """The run that cancelled this one, because of `singleton`."""
        return self._detail("singleton")

    def _detail(self, reason: str) -> str | None:
        return self.cancel_reason[1] if self.cancel_reason is not None and self.cancel_reason[0] == reason else None


IDLE_STEP = StepState()
IDLE_PAUSE = PauseState()


def new_run(run_id: str, plan: Plan, now: int) -> Run:
    """A new run without any facts. The first fact is `RunStarted` or `RunResumed`."""
    steps = Steps((IDLE_STEP,) * len(plan.steps))
    steps.open, steps.busy = (1 << len(steps)) - 1, 0
    edges, pauses = (EdgeStatus.PENDING,) * len(plan.edges), (IDLE_PAUSE,) * len(plan.pauses)
    return Run(run_id, RunStatus.RUNNING, now, None, None, steps, edges, pauses)


def with_problem(run: Run, field: str, problem: str | None) -> Run:
    """A new run whose function has a field of flow control without a value; the same run if there is no problem."""
    return run if problem is None else run._replace(problems=(*run.problems, (field, 0, problem)))


def without_data(run: Run) -> Run:
    """An ended run without information about the event's data, for erasing a user.

    Problems may quote the data, and keys of waits are digests of it.
    """
    pauses = (pause if pause.key is None else pause._replace(key=None) for pause in run.pauses)
    return run._replace(problems=(), pauses=tuple(pauses))


def pack(run: Run) -> bytes:
    """The run's state as compact JSON, without the id. Steps and pauses in the default state take a byte or two."""
    return _pack(run, _pack_steps(run.steps), _pack_pauses(run.pauses) if run.pauses else ())


def _pack(run: Run, steps: Any, pauses: Any) -> bytes:
    _, status, created_at, started_at, ended_at, _, moved, _, failed_step, problems, failed_edge, cancel_reason = run
    edges = bytes(moved).translate(_DIGITS).decode()
    state = [status, created_at, started_at, ended_at, steps, edges, pauses, failed_step, problems, failed_edge]
    return orjson.dumps(state if cancel_reason is None else [*state, cancel_reason])


PART = 32  # states
_MANY = 8 * PART

Part = tuple[int, bytes]  # steps are in parts 0, 1, 2, ..., pauses in -1, -2, -3, ...


class Packer:
    """Packs the successive states of a long run in parts, so that a transition writes only the parts that it changes.

    A part that was never written contains only steps or pauses in the default state.
    """

    __slots__ = ("_pauses", "_steps")

    def __init__(self, run: Run) -> None:
        """`run`: any state of this run."""
        self._steps: tuple[StepState, ...] = (IDLE_STEP,) * len(run.steps)
        self._pauses: tuple[PauseState, ...] = (IDLE_PAUSE,) * len(run.pauses)

    def pack(self, run: Run) -> tuple[bytes, list[Part]]:
        """The run's state without steps and pauses, and the parts that have changed since the last call."""
        parts = [(n, orjson.dumps(_pack_steps(_part(run.steps, n)))) for n in _differences(self._steps, run.steps)]
        changed = _differences(self._pauses, run.pauses)
        parts += [(-1 - n, orjson.dumps(_pack_pauses(_part(run.pauses, n)))) for n in changed]
        self._steps, self._pauses = run.steps, run.pauses
        return _pack(run, len(run.steps), len(run.pauses)), parts


State = TypeVar("State", StepState, PauseState)


def _part(states: Sequence[State], number: int) -> Sequence[State]:
    return states[number * PART : (number + 1) * PART]


def _differences(old: Sequence[object], new: Sequence[object]) -> list[int]:
    """The numbers of the parts in which two sequences differ. Parts with identical objects are compared fast."""
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
    """The inverse of `pack`; with all parts, also of `Packer.pack`.

    Data from earlier versions of Stepwell may end before `failed_edge`. `cancel_reason` is left out if it is None.
    """
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
        cancel_reason=(later[1][0], later[1][1]) if len(later) > 1 else None,
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
