"""Starts limited runs and attempts when their limits allow it, after the transitions of a batch are written.

A start takes the permits of its limits one after another, in an order that all starts share, and keeps them while it
waits for the next one. So starts cannot block each other. The narrowest limit comes first, so a start that waits for a
wide one holds back only those that it would hold back anyway. A throttle comes last, and a start waits for it without
permits of other limits, because that may take days.

All changes may be repeated: a crash between two of them is followed by the redelivery of the message, which takes,
gives back and looks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.limited_starts import fact, is_over, is_running, never_started, order, rank, text_of, waiter_of
from stepwell.aws.functions.limit_values import LimitValues
from stepwell.aws.functions.registry import Registry
from stepwell.aws.queues.messages import MAX_DELAY_MS, delay_s, entry, limit_message
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.table.keys import Key
from stepwell.aws.table.permits import Bucket, Found, Permits, WaitedFor, Waiter
from stepwell.aws.table.run_records import Record
from stepwell.aws.table.throttles import Throttles
from stepwell.core.run.permits import RUN, is_waiting, permits_of_attempt, permits_of_run
from stepwell.platform import AttemptId, Cause, Effects, Ended, RunFact

_MARGIN_MS = 60_000
_LEFT_MS = 15 * 60_000  # after which a waiter of a claimed attempt is left over: its message is not redelivered
_RUN_MS = 400 * 86_400_000
_DAY_S = 86_400


class _Start(NamedTuple):
    """A run or an attempt to start, with the limits that it obeys now, in the order in which it takes permits."""

    id: AttemptId
    record: Record
    buckets: Sequence[Bucket]
    cause: Cause | None


class _Look(NamedTuple):
    """A limit at which to look for waiters. `repair`: give back permits of starts that have ended."""

    bucket: Bucket
    cause: Cause | None
    repair: bool = False


class Limits:
    def __init__(self, resources: Resources, registry: Registry) -> None:
        self.resources, self.values = resources, LimitValues(registry)
        self.permits, self.throttles = Permits(resources.table), Throttles(resources.table)
        self._reported: list[Ended] = []

    def saw_end(self, run_id: str, step: int, attempt: int, cause: Cause | None) -> None:
        """An attempt does not execute any more, whatever the run makes of it."""
        self._reported.append(Ended(run_id, step, attempt, cause))

    def settle(self, batch: DynamoBatch, effects: Effects, started: Collection[AttemptId]) -> list[RunFact]:
        """Gives back the permits of what has ended, and takes those of what is to start. Returns the starts.

        `started`: the attempts that this batch has started already.
        """
        reported, self._reported = self._reported, []
        if not (reported or effects.queued or effects.held or effects.ended or effects.released):
            return []
        settling = _Settling(self, batch, started)
        released = [Ended(*start) for start in effects.released]
        ends = {ended[:3]: ended for ended in (*released, *effects.ended, *reported)}
        settling.end(list(ends.values()), {ended[:3] for ended in reported})
        for queued in (*effects.held, *effects.queued):
            settling.request((queued.record.run.id, queued.step, queued.attempt), queued.cause)
        settling.look_everywhere()
        return settling.facts

    def look(self, batch: DynamoBatch, after: str | None, cause: Cause) -> tuple[list[RunFact], str | None]:
        """The starts that a page of the limits allows now, after values of limits have changed, and where the next page
        begins, or None."""
        settling = _Settling(self, batch, ())
        page, following = self.permits.waited_for(after)
        for waited_for in page:
            settling.look_at(waited_for, cause)
        settling.look_everywhere()
        return settling.facts, following

    def look_at(self, batch: DynamoBatch, waited_for: WaitedFor, cause: Cause) -> list[RunFact]:
        """The starts that one limit allows now."""
        settling = _Settling(self, batch, ())
        settling.look_at(waited_for, cause)
        settling.look_everywhere()
        return settling.facts


class _Settling:
    """One pass over the limits of a batch. `facts`: the runs and attempts that may start."""

    def __init__(self, limits: Limits, batch: DynamoBatch, started: Collection[AttemptId]) -> None:
        self._batch, self._started, self._resources = batch, started, limits.resources
        self._permits, self._throttles, self._values = limits.permits, limits.throttles, limits.values
        self._looks: deque[_Look] = deque()
        self._moved: dict[str, Key] = {}  # waiters that wait elsewhere now; deleted last, so that a crash loses no look
        self.facts: list[RunFact] = []

    # --- ends ------------------------------------------------------------------------------------------------------

    def end(self, ends: Sequence[Ended], reported: Iterable[AttemptId]) -> None:
        """Gives the permits of starts back, unless they may still execute."""
        records = self._load(run_id for run_id, *_ in ends)
        for run_id, step, attempt, cause in ends:
            record, start = records.get(run_id), (run_id, step, attempt)
            if record is None or not is_over(record, start, is_reported=start in reported):
                continue
            for bucket in self._buckets(record, step):
                if not bucket.is_throttle:
                    self._permits.give_back(bucket, start)
                    self._looks.append(_Look(bucket, cause))
            if never_started(record, start):
                self._forget(record, start)

    def _forget(self, record: Record, start: AttemptId) -> None:
        """Deletes the waiter of a start that is not wanted any more, wherever it waits."""
        self._permits.forget([waiter_of(record, start, bucket) for bucket in self._buckets(record, start[1])])

    # --- starts ----------------------------------------------------------------------------------------------------

    def request(self, start: AttemptId, cause: Cause | None) -> None:
        """Starts a run or an attempt, or stores that it waits."""
        record = self._load([start[0]]).get(start[0])
        if record is not None and is_waiting(record.run, start):
            self._go_on(_Start(start, record, self._buckets(record, start[1]), cause), 0, has_waited=False)

    def _go_on(self, start: _Start, first: int, *, has_waited: bool) -> Bucket | None:
        """Takes the permits that a start still needs, from one of the limits on. Returns the limit for which it waits,
        or None. `has_waited`: it came first in another limit, so it does not queue up behind others again."""
        now = self._batch.now
        for place, bucket in enumerate(start.buckets[first:], first):
            if bucket.is_throttle:
                is_taken = self._throttles.take(bucket, start.id, now, overtakes=has_waited)
            else:
                is_taken = self._permits.take(bucket, start.id, self._until(start), now, overtakes=has_waited)
            if not is_taken:
                self._wait(start, place)
                return bucket
        cause = start.cause and Cause(start.cause.id, redelivered=False)
        self.facts.append(RunFact(start.id[0], fact(start.id), cause))
        return None

    def _wait(self, start: _Start, place: int) -> None:
        """Stores for which limit a start waits. For a throttle, it waits without permits of other limits."""
        record, now, bucket = start.record, self._batch.now, start.buckets[place]
        for other in start.buckets[:place] if bucket.is_throttle else ():
            self._permits.give_back(other, start.id)
            self._looks.append(_Look(other, start.cause))
        ttl = (now + _RUN_MS) // 1000 + self._resources.retention_days * _DAY_S
        self._moved.pop(text_of(waiter_of(record, start.id, bucket)), None)
        self._permits.wait(bucket, start.id, rank(record), record.stored.position, now, ttl)
        self._looks.append(_Look(bucket, start.cause, start.cause is not None and start.cause.redelivered))

    def _until(self, start: _Start) -> int:
        """When a start has ended for certain (ms): it may wait twice before it executes, for Lambda to have room and in
        Lambda's queue."""
        step = start.id[1]
        longest = (
            _RUN_MS if step == RUN else 2000 * self._resources.event_age_s + start.record.plan.steps[step].timeout_ms
        )
        return self._batch.now + longest + _MARGIN_MS

    # --- waiters ---------------------------------------------------------------------------------------------------

    def look_at(self, waited_for: WaitedFor, cause: Cause) -> None:
        """Adds a limit to those at which `look_everywhere` looks."""
        current = self._values.of_id(waited_for.limit_id)
        if current is not None:
            self._looks.append(_Look(Bucket(current, waited_for.key, waited_for.text), cause))

    def look_everywhere(self) -> None:
        """Starts waiting runs and attempts as far as there is room."""
        while self._looks:
            look = self._looks.popleft()
            self._looks = deque(other for other in self._looks if other.bucket.partition != look.bucket.partition)
            self._look(look)
        self._permits.forget(list(self._moved.values()))

    def _look(self, look: _Look) -> None:
        found = self._permits.read(look.bucket)
        if not found.waiters:
            self._permits.end_order(look.bucket, found)
            return
        if look.repair or any(until <= self._batch.now for _, until in found.holders.values()):
            self._repair(look.bucket, found)
        while found.waiters:
            # those that have a permit already go on, although there is no room: their process has died
            waits = [waiter for waiter in found.waiters if not self._let_in(look, found, waiter)]
            if waits:
                self._permits.keep_order(look.bucket, found, waits[0].id, self._batch.now)
                if look.bucket.is_throttle:
                    self._arrange(look)
                return
            if found.is_all:
                return
            following = self._permits.read(look.bucket, found.waiters[-1])
            found.waiters, found.is_all = following.waiters, following.is_all

    def _let_in(self, look: _Look, found: Found, waiter: Waiter) -> bool:
        """Lets a waiter start if there is room. Returns False if there is none."""
        if text_of(waiter.key) in self._moved:
            return True
        is_throttle = look.bucket.is_throttle
        if not is_throttle and waiter.id not in found.holders and not found.has_room(look.bucket):
            return False
        record = self._load([waiter.id[0]]).get(waiter.id[0])
        if record is None or not is_waiting(record.run, waiter.id):
            self._clean_up(look, found, waiter, record)
            return True
        start = _Start(waiter.id, record, self._buckets(record, waiter.id[1]), look.cause)
        if is_throttle:
            first = 0
            if not self._throttles.is_due(look.bucket, self._batch.now):
                return False
        else:
            until, now = self._until(start), self._batch.now
            has_permit = waiter.id in found.holders
            if not has_permit and not self._permits.take_in_turn(look.bucket, found, waiter.id, until, now):
                return False
            first = 1 + next((i for i, b in enumerate(start.buckets) if b.partition == look.bucket.partition), -1)
        waits_for = self._go_on(start, first, has_waited=True)
        if waits_for is None:
            self._batch.forget_waiter(waiter.key, waiter.id)
        elif waits_for.partition == look.bucket.partition:
            return False
        else:
            self._moved[text_of(waiter.key)] = waiter.key
        return True

    def _arrange(self, look: _Look) -> None:
        """Sends the message that lets the next start of a throttle in, unless one was sent."""
        again = look.cause is not None and look.cause.redelivered
        due = self._throttles.next_message(look.bucket, self._batch.now, again=again)
        if due is not None:
            bucket, now = look.bucket, self._batch.now
            message = limit_message(bucket.limit.id, bucket.key, bucket.text, due)
            send_messages(self._resources.outcomes_queue, [entry(message, delay_s(min(due, now + MAX_DELAY_MS), now))])
            self._throttles.note_message(look.bucket, due)

    def _clean_up(self, look: _Look, found: Found, waiter: Waiter, record: Record | None) -> None:
        """Deletes a waiter that does not wait any more.

        If this message claimed it before, and may not have started it, it is started again. If another message did,
        that message deletes it.
        """
        run_id, step, _ = waiter.id
        if record is not None and is_running(record, waiter.id):
            message, claimed_at = record.causes.get(step, ("", record.run.started_at or self._batch.now))
            if look.cause is not None and look.cause.redelivered and (step == RUN or message == look.cause.id):
                if waiter.id not in self._started:
                    self.facts.append(RunFact(run_id, fact(waiter.id), look.cause))
                self._batch.forget_waiter(waiter.key, waiter.id)
                return
            if self._batch.now - claimed_at < _LEFT_MS:
                return
        elif waiter.id in found.holders:
            self._permits.remove(look.bucket, found.holders[waiter.id][0], waiter.id)
        self._permits.forget([waiter.key])

    def _repair(self, bucket: Bucket, found: Found) -> None:
        """Gives back the permits of starts that have ended, if that was lost in a crash, or if a cancelled attempt has
        never reported its end."""
        records = self._load(run_id for run_id, _, _ in found.holders)
        for start, (shard, until) in list(found.holders.items()):
            record, is_late = records.get(start[0]), until <= self._batch.now
            if is_late if record is None else is_over(record, start, is_reported=is_late):
                self._permits.remove(bucket, shard, start)
                del found.holders[start]
                found.taken[shard] -= 1

    # --- what a start needs ----------------------------------------------------------------------------------------

    def _buckets(self, record: Record, step: int) -> list[Bucket]:
        """The limits that a start obeys now, narrow ones first: those with a key, then those of steps."""
        plan, run, event = record.plan, record.run, record.event
        if step == RUN:
            permits = permits_of_run(plan, run, event)
        else:
            permits = permits_of_attempt(plan, run, step, event, record.outputs, record.errors)
        found = {(permit.limit.id, permit.key): permit for permit in sorted(permits, key=order)}
        buckets = [Bucket(self._values.current(p.limit), p.key, p.text) for p in found.values()]
        return [bucket for bucket in buckets if bucket.limit.limit is not None]

    def _load(self, run_ids: Iterable[str]) -> dict[str, Record]:
        return self._batch.load(dict.fromkeys(run_ids))  # type: ignore[return-value]
