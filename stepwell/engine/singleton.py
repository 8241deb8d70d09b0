"""`singleton`: one open run for each key of a function.

A key belongs to the run that has claimed it last. When that run has ended, another may take the key over, so nothing
must be released, and no release can be lost. A claim replaces exactly the holder that was read: of two processes, one
succeeds. A claimed run may not be written yet. Then the key is not taken over before that run is written, or its
process cannot write it any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stepwell.core.events.events import Event
from stepwell.core.flow.keys import limit_key
from stepwell.core.plain_data import immutable
from stepwell.core.plan import Plan, Singleton
from stepwell.core.routing.not_started import NotStarted
from stepwell.core.run.messages import CancelRequested
from stepwell.core.run.run import Run
from stepwell.platform import Batch, Cause, DamagedRun, NotWritten, RunFact
from stepwell.start_checks import Holder

_TRIES = 5


@immutable
class Claimed:
    """The run may start. `replaces`: open runs that it cancels. `problem`: why it has no key."""

    replaces: tuple[str, ...] = ()
    problem: str | None = None


def claim_key(batch: Batch, plan: Plan, run: Run, event: Event, position: int) -> Claimed | NotStarted:
    """Claims the key of a run, which starts because of something at this position. Raises NotWritten."""
    singleton = plan.singleton
    if singleton is None:
        return Claimed()
    holders = batch.checks.singletons
    key, problem = limit_key(singleton.key, event, run.id)
    if problem is not None:
        return Claimed(problem=problem)
    for _ in range(_TRIES):
        seen = holders.read(plan.function_id, key)
        if seen is None:
            replaces: tuple[str, ...] = ()
        elif seen.run_id == run.id:
            replaces = seen.replaces
        else:
            is_open = _open(batch, plan.function_id, seen)
            if is_open and (refused := _refused(plan.function_id, singleton, is_open, seen, position)) is not None:
                return refused
            replaces = tuple(is_open)
        if holders.take(plan.function_id, key, seen, Holder(run.id, position, batch.now, replaces), plan):
            return Claimed(replaces)
    raise NotWritten(f"a key of `singleton` of {plan.function_id} was claimed by others {_TRIES} times in a row")


def still_replaced(batch: Batch, plan: Plan, run: Run, event: Event) -> Sequence[str]:
    """The runs that an existing run cancels, because its process may have died before that. Raises NotWritten."""
    singleton = plan.singleton
    if singleton is None or not singleton.cancels:
        return ()
    key, problem = limit_key(singleton.key, event, run.id)
    seen = None if problem is not None else batch.checks.singletons.read(plan.function_id, key)
    return seen.replaces if seen is not None and seen.run_id == run.id else ()


def cancellations(replaces: Sequence[str], run_id: str, cause: Cause | None) -> list[RunFact]:
    """The facts that cancel the runs that a run replaces."""
    return [RunFact(replaced, CancelRequested(run_id), cause) for replaced in replaces]


def _open(batch: Batch, function_id: str, seen: Holder) -> Collection[str]:
    """The open runs among the holder of a key and the runs that it replaces; the holder comes first.

    Raises NotWritten if the holder may still be written.
    """
    is_open = []
    for run_id in (seen.run_id, *seen.replaces):
        try:
            record = batch.load([run_id]).get(run_id)
        except DamagedRun:
            continue  # it can make no step any more
        if record is not None and record.run.ended_at is None:
            is_open.append(run_id)
        elif record is None and run_id == seen.run_id and batch.now < seen.at + batch.checks.singletons.write_ms:
            raise NotWritten(f"run {run_id} of {function_id}, with the same key, is just being started")
    return is_open


def _refused(
    function_id: str, singleton: Singleton, is_open: Collection[str], seen: Holder, position: int
) -> NotStarted | None:
    """The reason why a run does not start beside open ones; None if it replaces them."""
    first = next(iter(is_open))
    if not singleton.cancels:
        reason = f"`singleton`: run {first} is open and has the same key"
    elif seen.run_id in is_open and seen.position > position:
        reason = f"`singleton`: run {first} of a later event is open and has the same key"
    else:
        return None
    return NotStarted(function_id, singleton.key or "", reason, first)
