"""What the runs and attempts of a run wait for: the limit, and how many others come first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwell.aws.table.items import read_items
from stepwell.aws.table.keys import Key
from stepwell.aws.table.limit_keys import limit_partition, waiter_key
from stepwell.aws.table.permits import Permits
from stepwell.aws.table.runs import StoredRun
from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.events.events import Event
from stepwell.core.plan import Plan
from stepwell.core.run.permits import RUN, Permit, is_waiting, permits_of_attempt, permits_of_run, rank_of
from stepwell.reader import WaitingFor

_MOST_AHEAD = 999


class WaitingStarts:
    def __init__(self, table: str) -> None:
        self._table, self._permits = table, Permits(table)

    def of(
        self, plan: Plan, stored: StoredRun, event: Event, attempts: Sequence[StoredAttempt]
    ) -> dict[int, WaitingFor]:
        """What waits in a run, by step; `RUN` for the start of the run."""
        places: dict[tuple[str, str], tuple[int, Permit, Key]] = {}
        for step, permit, name in _needed(plan, stored, event, attempts):
            rank = rank_of(plan, stored.run, event)
            key = waiter_key(limit_partition(permit.limit.id, permit.key), rank, stored.position, name)
            places[key["pk"]["S"], key["sk"]["S"]] = step, permit, key
        found: dict[int, WaitingFor] = {}
        for item in read_items(self._table, [key for _, _, key in places.values()], consistent=True) if places else ():
            step, permit, key = places[item["pk"]["S"], item["sk"]["S"]]
            ahead = self._permits.ahead_of(key, _MOST_AHEAD)
            found[step] = WaitingFor(permit.limit.id, permit.text, ahead, int(item["at"]["N"]))
        return found


def _needed(
    plan: Plan, stored: StoredRun, event: Event, attempts: Sequence[StoredAttempt]
) -> Iterator[tuple[int, Permit, str]]:
    """The permits that the run and its attempts still need: the step, the permit, the name of the start."""
    run = stored.run
    if plan.start_limits and is_waiting(run, (run.id, RUN, 0)):
        for permit in permits_of_run(plan, run, event):
            yield RUN, permit, f"{run.id}/{RUN}/0"
    outputs = {a.step: a.output for a in attempts if a.output is not None}
    errors = {a.step: a.error for a in attempts if a.error is not None}
    for i, step in enumerate(run.steps):
        if plan.steps[i].is_limited and is_waiting(run, (run.id, i, step.attempt)):
            for permit in permits_of_attempt(plan, run, i, event, outputs, errors):
                yield i, permit, f"{run.id}/{i}/{step.attempt}"
