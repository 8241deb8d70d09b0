"""Scans the events that were accepted before a wait was opened."""

from __future__ import annotations

from collections.abc import Callable

from stepwell.core.plain_data import immutable
from stepwell.core.run.advance import used_events
from stepwell.core.run.inputs import matcher
from stepwell.core.run.messages import EventArrived
from stepwell.core.run.run import PauseStatus
from stepwell.platform import Batch, RunRecord


@immutable
class Scan:
    """The result of a scan.

    `found` is the earliest event that satisfies the wait, if any. `left_at` is the position after which events are not
    scanned yet; None if all are scanned. `is_continued`: the batch has arranged for the scan to continue.
    """

    found: EventArrived | None = None
    left_at: int | None = None
    is_continued: bool = False


ALL_SEEN = Scan()


def find_matching_event(
    batch: Batch, record: RunRecord, pause: int, after: int = 0, is_enough: Callable[[int], bool] | None = None
) -> Scan:
    """Finds the earliest accepted event after a position that satisfies an open wait.

    `is_enough` returns whether to stop after so many events. The batch may have a limit of events too; then it arranges
    for the scan to continue.
    """
    wait, state = record.plan.pauses[pause], record.run.pauses[pause]
    if state.status is not PauseStatus.AWAITING or wait.event is None:
        return ALL_SEEN
    if any(kind == "pause" and index == pause for kind, index, _ in record.run.problems):
        return ALL_SEEN
    used = used_events(record.plan, record.run, pause)
    events = batch.find_events(wait.event, state.key, max(record.after, after), state.due_at)
    matches = matcher(record.plan, pause, record.event.as_json(), record.outputs, record.errors)
    for number, event in enumerate(events, 1):
        if event.id not in used and matches(event.as_json()).holds:
            return Scan(EventArrived(pause, event.id))
        if number == batch.most_events:
            batch.continue_scan(record.run.id, pause, event.position)
            return Scan(left_at=event.position, is_continued=True)
        if is_enough is not None and is_enough(number):
            return Scan(left_at=event.position)
    return ALL_SEEN
