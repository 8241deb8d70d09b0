"""The timeouts of a run: a timer until its first attempt starts, then a timer until it ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepwell.core.plan import Plan
from stepwell.core.run.messages import ClearTimer, Command, SetTimer, Timer, TimerKind
from stepwell.core.run.run import Run, RunStatus

START, FINISH = Timer(TimerKind.START, 0), Timer(TimerKind.FINISH, 0)
TIMEOUT_NAMES = {TimerKind.START: "start", TimerKind.FINISH: "finish"}


def has_timeouts(plan: Plan) -> bool:
    return bool(plan.start_timeout_ms or plan.finish_timeout_ms)


def start_timer(plan: Plan, created_at: int) -> Iterable[SetTimer]:
    """The timer of a run that is created: by then, its first attempt must start."""
    return [SetTimer(START, created_at + plan.start_timeout_ms)] if plan.start_timeout_ms else ()


def finish_timer(plan: Plan, started_at: int) -> Iterable[Command]:
    """The change of timers when the first attempt starts: the run must end by then."""
    if plan.start_timeout_ms:
        yield ClearTimer(START)
    if plan.finish_timeout_ms:
        yield SetTimer(FINISH, started_at + plan.finish_timeout_ms)


def no_timer(plan: Plan, started_at: int | None) -> Iterable[ClearTimer]:
    """The timer that a run no longer needs when it ends."""
    if started_at is None:
        return [ClearTimer(START)] if plan.start_timeout_ms else ()
    return [ClearTimer(FINISH)] if plan.finish_timeout_ms else ()


def open_timers(plan: Plan, run: Run) -> Iterable[SetTimer]:
    """The timer that a run in this state needs, if its function has timeouts."""
    if run.status is not RunStatus.RUNNING:
        return ()
    if run.started_at is None:
        return start_timer(plan, run.created_at)
    return [SetTimer(FINISH, run.started_at + plan.finish_timeout_ms)] if plan.finish_timeout_ms else ()


def due_at(plan: Plan, run: Run, timer: Timer) -> int | None:
    """When a run exceeds this timeout (ms). 0 if nothing waits for the timer any longer; None if it was not set."""
    if timer.kind is TimerKind.START:
        if not plan.start_timeout_ms:
            return None
        is_over, since, limit = run.started_at is not None, run.created_at, plan.start_timeout_ms
    else:
        if not plan.finish_timeout_ms or run.started_at is None:
            return None
        is_over, since, limit = False, run.started_at, plan.finish_timeout_ms
    return 0 if is_over or run.status is not RunStatus.RUNNING else since + limit


def without_cleared(commands: Sequence[Command]) -> list[Command]:
    """The commands without timeouts that are set and cleared again among them, as in a run that starts at once."""
    left: list[Command] = []
    for command in commands:
        if isinstance(command, ClearTimer) and command.timer in (START, FINISH):
            kept = [c for c in left if not (isinstance(c, SetTimer) and c.timer == command.timer)]
            if len(kept) < len(left):
                left = kept
                continue
        left.append(command)
    return left
