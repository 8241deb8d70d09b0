"""Limits of runs and attempts on one machine: what each one needs, for `Admission`, and what others read about it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from stepwell.core.run.permits import RUN, Permit, permits_of_run, permits_of_step, permits_of_steps, rank_of
from stepwell.local.engine.admission import Admission
from stepwell.local.engine.buckets import Bucket, Item, Lane, Waiter
from stepwell.local.store.limit_rows import LaneRow, LimitRows, WaitRow
from stepwell.local.store.limit_values import LimitValues
from stepwell.platform import Attempt, AttemptId, QueuedAttempt, RunRecord

_MOST_KNOWN = 10_000  # runs


class _OfRun(NamedTuple):
    """What is the same for all attempts of a run, so that expressions are evaluated once."""

    permits: Sequence[Permit]
    rank: int


class Limits:
    def __init__(self, rows: LimitRows, values: LimitValues, clock: Callable[[], int]) -> None:
        self._values = values
        self._starts: deque[str] = deque()  # runs that may start
        self._known: OrderedDict[str, _OfRun] = OrderedDict()  # by run, those used last at the end
        self.admission = Admission(_AdmissionRows(rows), values.current, clock)

    # --- runs and attempts -----------------------------------------------------------------------------------------

    def hold_start(self, record: RunRecord) -> None:
        """Starts a run when its limits allow it."""
        self.admission.request(_of_run(record, partial(self._starts.append, record.run.id)))

    def queue(self, queued: QueuedAttempt, start: Callable[[int, Hashable], None]) -> None:
        """Calls `start` with the rank and the key of an attempt when its limits allow it."""
        item = self._of_attempt(queued, _nothing)
        keys = tuple(permit.key for permit in item.permits)
        self.admission.request(item._replace(start=partial(start, item.rank, keys)))

    @staticmethod
    def rank_in_line(record: RunRecord) -> int:
        """The rank of an attempt without limits among those of its function that wait for a slot."""
        return 0 if record.plan.priority is None else rank_of(record.plan, record.run, record.event)

    def count_running(self, attempt: Attempt) -> None:
        """Counts an attempt that runs already."""
        self.admission.hold(self._of_attempt(attempt, _nothing))

    def count_open(self, record: RunRecord) -> None:
        """Counts a run that has started already."""
        self.admission.hold(_of_run(record, _nothing))

    def ended(self, item_id: AttemptId) -> None:
        """A run or an attempt has ended. An attempt that was running keeps its permits until its process has ended."""
        self.admission.withdraw(item_id)
        if item_id[1] == RUN:
            self.admission.release(item_id)

    def release(self, item_id: AttemptId) -> None:
        """An attempt does not run any more, or was not started."""
        self.admission.release(item_id)

    @property
    def buckets(self) -> Iterator[Bucket]:
        """All keys of limits that are in use."""
        return self.admission.buckets

    def _of_attempt(self, attempt: Attempt | QueuedAttempt, start: Callable[[], None]) -> Item:
        record, step = attempt.record, attempt.step
        plan, run, event = record.plan, record.run, record.event
        known = self._known.pop(run.id, None)
        if known is None:
            known = _OfRun(permits_of_steps(plan, run, event), rank_of(plan, run, event))
            if len(self._known) >= _MOST_KNOWN:
                self._known.popitem(last=False)
        self._known[run.id] = known
        permits = known.permits
        if len(plan.steps[step].limits) > len(permits):
            permits = [*permits, *permits_of_step(plan, run, step, event, record.outputs, record.errors)]
        return Item((run.id, step, attempt.attempt), permits, known.rank, record.order, start)

    # --- batches ---------------------------------------------------------------------------------------------------

    def move_back(self, by_ms: int) -> None:
        """Corrects times after the clock was set back."""
        self.admission.move_back(by_ms)

    def begin_batch(self) -> None:
        """Admits what throttles or changed limits allow now."""
        if self._values.take_change():
            self.admission.look_again()
        self.admission.admit_due()

    @property
    def next_due(self) -> int | None:
        """When a throttle allows the next start, in ms since the epoch; None: no start waits for one."""
        return self.admission.next_due

    @property
    def can_start(self) -> bool:
        return bool(self._starts)

    def take_starts(self, most: int) -> list[str]:
        """Removes and returns the ids of runs that may start, at most `most`."""
        return [self._starts.popleft() for _ in range(min(len(self._starts), most))]

    def reset(self, running: Collection[AttemptId]) -> None:
        """A batch was rolled back. What waits is requested again, and then `open` is called."""
        self._starts.clear()
        self.admission.reset(running)

    def open(self, started: Iterable[RunRecord]) -> None:
        """Begins to admit. `started`: all open runs that have started and whose start was limited."""
        for record in started:
            self.count_open(record)
        self.admission.open()


class _AdmissionRows:
    """Implements `admission.Rows`."""

    def __init__(self, rows: LimitRows) -> None:
        self._rows = rows
        self.throttle, self.set_throttle = rows.throttle, rows.set_throttle

    def waits(self, waiter: Waiter) -> None:
        self._rows.wait(WaitRow(waiter.item.id, waiter.lane.number, waiter.item.rank, waiter.item.order, waiter.since))

    def waits_no_more(self, waiter: Waiter) -> None:
        self._rows.wait_no_more(waiter.item.id)

    def moved(self, lane: Lane) -> None:
        if lane.bucket is None:
            self._rows.close(lane.number)
        else:
            self._rows.move(LaneRow(lane.number, lane.bucket.key, lane.bucket.permit.text))


def _of_run(record: RunRecord, start: Callable[[], None]) -> Item:
    permits = permits_of_run(record.plan, record.run, record.event)
    return Item((record.run.id, RUN, 0), permits, rank_of(record.plan, record.run, record.event), record.order, start)


def _nothing() -> None:
    pass
