"""The engine's store in DynamoDB: one conditional write for each transition of a run.

One rule: what a run refers to is written before the run, and what it asks for (near timers, waits) after it, so that a
crash between any two requests leaves what the redelivered message finds and completes. What brings the run on if no
message ever does is written before it too: far timers, and watches.
"""

from __future__ import annotations

import heapq
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from stepwell.aws.clients import client
from stepwell.aws.engine.paused_events import PausedEvents
from stepwell.aws.engine.results import keep_results, record_of
from stepwell.aws.engine.timers import Timers
from stepwell.aws.engine.wait_pages import Waking
from stepwell.aws.engine.watches import Watches
from stepwell.aws.functions.registry import Registry
from stepwell.aws.observability import count, duration
from stepwell.aws.resources import Resources
from stepwell.aws.table.events import event_item
from stepwell.aws.table.idempotency import DynamoIdempotency
from stepwell.aws.table.items import delete_items, put_items, read_items
from stepwell.aws.table.keys import (
    NAME_SHARDS,
    NEW,
    UNCHANGED,
    Item,
    Key,
    approval_key,
    arrival,
    arrival_partitions,
    arrived,
    event_key,
    item_key,
    rerun_key,
    run_key,
    shard_of,
    wait_key,
    wait_partitions,
)
from stepwell.aws.table.lists import Listed, Lists
from stepwell.aws.table.pending_outcomes import (
    LOST_RACES,
    SHORT_OUTCOME,
    Ended,
    may_have_waiting,
    outcome_items,
    read_outcomes,
)
from stepwell.aws.table.positions import first_of, ms_of, newest_position, next_position
from stepwell.aws.table.runs import Record, approval_item, is_kept_in_runs, run_item
from stepwell.aws.table.users import UserIndex
from stepwell.core.events.events import Event, next_event_id, user_key
from stepwell.core.routing.triggers import Catalog
from stepwell.core.routing.versions import State
from stepwell.core.run.max_run_duration import longest_run_ms
from stepwell.core.run.messages import (
    AttemptEnded,
    ClearTimer,
    CloseWait,
    Command,
    EmitEnd,
    OpenWait,
    RecordAttempt,
    SetTimer,
    Timer,
    TimerKind,
)
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.platform import Accepted, Cause, Change, FoundWaits, NewEvent, NotWritten, RunFact, RunRecord, WaitPlace

T = TypeVar("T")
log = logging.getLogger("stepwell.aws")
_PARALLEL = 16
_DAY_S = 86_400
_ARRIVALS = 200  # rows of a partition that are read at once: some 4 read units
_FIRST_EVENTS, _MORE_EVENTS = 10, 100  # that are read at once
_FOLDED_AT_ONCE = 40  # outcomes of a run from which on they wait no longer


class DynamoStore:
    """Implements `platform.Store` for one batch after the other: `begin`, then what the engine does, then `flush`."""

    looks_at: int | None = 5000  # ten messages with as many have to be done within `advance`'s minute

    def __init__(self, resources: Resources, registry: Registry, timers: Timers, waking: Waking, lists: Lists) -> None:
        self._table, self._retention_s = resources.table, resources.retention_days * _DAY_S
        self._registry, self._timers, self._waking, self.lists = registry, timers, waking, lists
        self.kept = PausedEvents(resources)
        self.idempotency = DynamoIdempotency(self._table)
        self._pool = ThreadPoolExecutor(_PARALLEL)
        self._people = UserIndex(resources.table)
        self._watches = Watches(resources)
        self.request_ids: dict[tuple[str, int, int], str] = {}  # of the attempts whose outcomes came with this batch
        self.begin()

    def begin(self) -> None:
        """Forget the last batch: others have changed its runs since."""
        self._catalog: Catalog | None = None
        self._records: dict[str, Record] = {}
        self._added: set[str] = set()  # runs that this batch makes, or finds made by a message that comes again
        self._forgotten: list[tuple[Key, str | None]] = []  # events that are kept no longer, once their run is written
        self._sent_timers: list[tuple[Key, str | None, Timer]] = []  # whose messages came, with their runs
        self._over: list[Key] = []  # waits and timers; as long as they are there, a redelivered event finds its runs
        self._patient: dict[str, int] = {}  # wide runs that this batch brings only outcomes for, and their revisions
        self._changed: dict[str, Cause | None] = {}  # wide runs that it has changed otherwise, by what
        self._accepted: list[Event] = []
        self._listed_events: dict[str, Listed] = {}
        self._listed_runs: dict[str, Listed] = {}
        self.request_ids.clear()

    def flush(self, now: int) -> None:
        """Write persons and lists, and send the timers of this batch. Raises NotWritten."""
        self._people.record(self._accepted, now)
        self.lists.add(list(self._listed_events.values()), list(self._listed_runs.values()), now)
        self._timers.send(now)
        self._waking.send()
        self.kept.send()
        self._over += [key for key, run in self._forgotten if run is None or self._records[run].revision]
        self._over += [key for key, run, timer in self._sent_timers if self._is_settled(run, timer)]
        delete_items(self._table, self._over)

    def forget_timer(self, item: Key, run_id: str | None, timer: Timer) -> None:
        """Let the item of a far timer go, whose message has come, as soon as its run does not wait for it. `run_id`:
        None if the run is gone."""
        self._sent_timers.append((item, run_id, timer))

    def _is_settled(self, run_id: str | None, timer: Timer) -> bool:
        """By what is written: a run whose change was not is not known any more, and its message comes again."""
        if run_id is None:
            return True
        record = self._records.get(run_id)
        return record is not None and self._timers.is_settled(record.plan, record.run, timer)

    @property
    def _db(self) -> Any:
        return client("dynamodb")

    def each(self, do: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """Do it for every item, in parallel if there are several."""
        return list(map(do, items)) if len(items) < 2 else list(self._pool.map(do, items))

    def get_many(self, keys: Sequence[Key]) -> list[Item]:
        """Items by key, strongly consistent; those that are not there are left out."""
        return read_items(self._table, keys, consistent=True)

    # --- events ----------------------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        if self._catalog is None:  # one for the whole batch
            self._catalog = self._registry.catalog()
        return self._catalog

    def look_again(self) -> None:
        """Let the next catalog be made from what the table says then."""
        self._registry.look_again()
        self._catalog = None

    def position(self, now: int) -> int:
        return newest_position(now)

    def put_events(self, events: Sequence[NewEvent], now: int) -> list[Accepted | NotWritten | None]:
        positions = [next_position(now) for _ in events]
        same: dict[str, list[int]] = defaultdict(list)
        for i, new in enumerate(events):
            same[new.event.id].append(i)
        accepted: list[Accepted | NotWritten | None] = [None] * len(events)

        def put(those: list[int]) -> None:
            """One after the other, until one is accepted: the first, or the one whose message comes again. Those whose
            ids were made here are no duplicates."""
            is_accepted = False
            for i in those:
                if not is_accepted or events[i].event.origin:
                    accepted[i] = self._put_event(events[i], positions[i], now)
                is_accepted = is_accepted or isinstance(accepted[i], Accepted)

        self.each(put, list(same.values()))
        return accepted

    def _put_event(self, new: NewEvent, position: int, now: int) -> Accepted | NotWritten | None:
        event, errors = new.event, self._db.exceptions
        accepted = Accepted(position, new.starts)
        try:
            self._put_arrivals(new, position, now)
            self._put(event_item(new, position, self._event_ttl(new, now)), NEW)
        except errors.ConditionalCheckFailedException as refused:
            known = refused.response["Item"]
            if event.origin and known.get("o", {}).get("S") != event.origin:
                event.rename(next_event_id(event.id))  # also when its message comes again
                return self._put_event(new, position, now)
            identity = known.get("m", {}).get("S")
            if new.cause is None or identity != new.cause.id or "x" in known:
                return None  # a duplicate, or it was erased since
            accepted = Accepted(int(known["p"]["N"]), [function["S"] for function in known.get("st", {}).get("L", [])])
            try:
                self._put_arrivals(new, accepted.position, now)  # under paths that were registered since, too
            except errors.ClientError as error:
                return NotWritten(str(error))
        except Exception as error:  # throttled, no connection, too large: in any case this event's trouble alone
            return NotWritten(str(error))
        event.position = accepted.position
        count("EventsAccepted")
        if new.replay is None:
            self._accepted.append(event)
        self._listed_events[event.id] = Listed(event.position, event.id, event.name, user_key(event.user))
        return accepted

    def _put_arrivals(self, new: NewEvent, position: int, now: int) -> None:
        """Store where waits will look for the event: before it is accepted, so that whoever looks from then on finds
        it. A row whose event has another position, or is not there, says nothing."""
        event = new.event
        if new.replay is not None:
            return
        partitions = [arrival_partitions(event.name, key)[0] for key in new.keys]
        if self.catalog().is_awaited_by_name(event):
            partitions.append(arrival_partitions(event.name, None)[shard_of(event.id, NAME_SHARDS)])
        for partition in partitions:
            ttl = self._until(now, self._registry.longest_wait_ms(event.name))
            self._put({**arrival(partition, position, event.id), "ttl": {"N": str(ttl)}})

    def _event_ttl(self, new: NewEvent, now: int) -> int:
        """Until when runs may come to need an event: those that it starts, and those that await it."""
        plans = [self.catalog().choose(function, new.event) for function in new.starts]
        runs = [longest_run_ms(plan) for plan in plans if plan is not None]
        return self._until(now, max([self._registry.longest_wait_ms(new.event.name), *runs]))

    def _until(self, now: int, needed_ms: int) -> int:
        """In s since the epoch: the retention counts from when a thing is not needed any more."""
        return (now + needed_ms) // 1000 + self._retention_s

    def keep(self, function_id: str, event: Event, now: int) -> bool:
        try:
            self.kept.put(function_id, event, now)
        except self._db.exceptions.ClientError as error:
            log.warning("event %s is not kept yet: %s", event.id, error)
            return False
        return True

    def is_deleted(self, function_id: str) -> bool:
        routing = self._registry.routing(function_id)
        return routing is not None and routing.state is State.DELETED

    def forget_kept(self, key: Key, run_id: str | None) -> None:
        """An event need not be kept any longer: as soon as its run is written, if it has one."""
        self._forgotten.append((key, run_id))

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        items = self.get_many([event_key(event_id) for event_id in ids])
        found = [Event.stored(int(item["p"]["N"]), item["b"]["B"]) for item in items]
        return {event.id: event for event in found}

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        """One after the other: whoever has found what it looks for stops, and no more is read, or held, than a page of
        each partition."""
        if before <= ms_of(after):
            return
        between = {":first": {"S": f"{after + 1:020}"}, ":until": {"S": f"{first_of(before):020}"}}
        partitions = arrival_partitions(name, key)
        pages = self.each(lambda partition: self._arrivals(partition, between), partitions)
        arrivals = heapq.merge(*(self._all_arrivals(page, between) for page in pages))
        at_once = _FIRST_EVENTS
        while some := list(islice(arrivals, at_once)):
            events = self.events([event_id for _, event_id in some])
            for position, event_id in some:
                if event_id in events and events[event_id].position == position:
                    yield events[event_id]
            at_once = _MORE_EVENTS

    def look_on(self, run_id: str, pause: int, after: int) -> None:
        self._waking.look_on(run_id, pause, after)

    def _all_arrivals(self, page: list[Item], between: Item) -> Iterator[tuple[int, str]]:
        """Those of a partition's first page, and of the next ones when they are asked for."""
        while page:
            yield from map(arrived, page)
            last = page[-1]
            page = self._arrivals(last["pk"]["S"], between, last) if len(page) == _ARRIVALS else []

    def _arrivals(self, partition: str, between: Item, behind: Item | None = None) -> list[Item]:
        start = {} if behind is None else {"ExclusiveStartKey": {"pk": behind["pk"], "sk": behind["sk"]}}
        found: list[Item] = self._db.query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :until",
            ExpressionAttributeValues={":pk": {"S": partition}, **between},
            ConsistentRead=True,
            Limit=_ARRIVALS,
            **start,
        )["Items"]
        return found

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        """A page of each partition; `Waking` sees to the others."""
        partitions = [partition for key in keys for partition in wait_partitions(event.name, key)]
        if self.catalog().is_awaited_by_name(event):
            partitions += wait_partitions(event.name, None)
        pages = self.each(lambda partition: self._waking.page(event.id, partition), partitions)
        return FoundWaits([wait for page in pages for wait in page])

    # --- runs ------------------------------------------------------------------------------------------------------

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        wanted = list(run_ids)
        missing = [run_id for run_id in wanted if run_id not in self._records]
        for record in self._read(self.get_many([run_key(run_id) for run_id in missing])) if missing else ():
            self._records[record.run.id] = record
        return {run_id: self._records[run_id] for run_id in wanted if run_id in self._records}

    def _read(self, items: Sequence[Item]) -> list[Record]:
        elsewhere = [item["ei"]["S"] for item in items if "e" not in item]
        events = self.events(elsewhere) if elsewhere else {}
        return [record_of(item, events, self._registry, self.get_many) for item in items]

    def add(self, record: RunRecord) -> None:
        self._added.add(record.run.id)
        position = next_position(record.run.created_at)
        self._records[record.run.id] = Record(
            record.run, record.plan, record.event, record.after, record.rerun_of, record.replay, position=position
        )

    def commit(self, changes: Sequence[Change], now: int) -> Sequence[RunRecord | NotWritten | None]:
        return self.each(lambda change: self._commit(change, now), changes)

    def _commit(self, change: Change, now: int) -> Record | NotWritten | None:
        record = change.record
        assert isinstance(record, Record)
        try:
            for command in change.commands:  # before the run: nothing else may bring it on
                if isinstance(command, SetTimer):
                    self._timers.set_far(record.run.id, command.timer, command.due_at, now)
            may_wait = self._may_wait(change, record)
            current = self._wait(record) if may_wait else self._write(change, record, now)
            if current is not None:
                self._records[record.run.id] = current
                return current
            if may_wait:
                return None
            self._follow(change, record, now)
        except self._db.exceptions.ClientError as error:
            self._records.pop(record.run.id, None)
            return NotWritten(str(error))
        _measure(change)
        if record.run.id in self._added:
            self._listed_runs[record.run.id] = self._listed(record)
        return None

    def _write(self, change: Change, record: Record, now: int) -> Record | None:
        """Write the run; the current record if somebody else did meanwhile."""
        is_same = record.run is change.before and record.causes == record.written_causes
        if record.revision and is_same and not self._has_late_logs(record):
            return None
        ttl = self._until(now, longest_run_ms(record.plan))
        for item in keep_results(record, change.commands, self.request_ids, ttl):
            self._put(item)
        record.watched = self._watches.of_change(record, now)
        item = run_item(record, now // 1000 + self._retention_s)
        try:
            if record.revision == 0:
                self._put(item, NEW)
            else:
                self._put(item, UNCHANGED, {":before": {"N": str(record.revision)}})
        except self._db.exceptions.ConditionalCheckFailedException as lost:
            if lost.response["Item"] != item:  # else it is ours: the answer was lost, and the client asked again
                if record.revision:
                    time.sleep(random.uniform(0, 0.02 if not record.is_wide else 0.2))  # others try again as well
                (current,) = self._read([lost.response["Item"]])
                return current
        if _may_have_waiting(record) and not self._is_seen(record):
            self._changed[record.run.id] = change.causes[-1] if change.causes else None
        record.wide_at = record.next_wide_at
        record.revision += 1
        record.written_causes = dict(record.causes)
        self._patient.pop(record.run.id, None)
        return None

    def _has_late_logs(self, record: Record) -> bool:
        """Which log is a cancelled attempt's is known when what it ran has ended, and all that is kept of its end."""
        found = False
        for stored_attempt in record.attempts if record.run.ended_at is not None and not record.event.erased else ():
            request_id = self.request_ids.get((record.run.id, stored_attempt.step, stored_attempt.attempt))
            if stored_attempt.status == "cancelled" and stored_attempt.request_id is None and request_id is not None:
                stored_attempt.request_id, found = request_id, True
        return found

    def _follow(self, change: Change, record: Record, now: int) -> None:
        """What the run asks for besides: each can be done twice. A wait may be opened and closed in one change, so its
        key is that of the run as it is now."""
        run = record.run
        if run.id in self._added and _is_late(record):
            self._keep_longer(record, now)
        for command in change.commands:
            if isinstance(command, SetTimer):
                self._timers.set_near(run.id, command.timer, command.due_at, now)
                if command.due_at > run.created_at + longest_run_ms(record.plan):  # as a step's `retry_after` may be
                    self._keep_longer(record, command.due_at)
                if command.timer.kind is TimerKind.DECISION:
                    self._put(approval_item(record, command.timer, command.due_at))
            elif isinstance(command, ClearTimer):
                self._over += self._timers.item_of(record.plan, change.before, command.timer, now)
                if command.timer.kind is TimerKind.DECISION:
                    self._over.append(approval_key(run.id, command.timer.index, command.timer.attempt))
            elif isinstance(command, OpenWait):
                key = self._wait_key(record, command.pause, command.key)
                ttl = {"N": str(command.deadline // 1000 + _DAY_S)}
                self._put({**key, "d": {"N": str(command.deadline)}, "ttl": ttl})
            elif isinstance(command, CloseWait):
                self._over.append(self._wait_key(record, command.pause, run.pauses[command.pause].key))

    def _wait_key(self, record: Record, pause: int, key: bytes | None) -> Key:
        name, run_id = record.plan.pauses[pause].event or "", record.run.id
        return wait_key(name, key, run_id, pause, self._registry.wait_shards)

    def _keep_longer(self, record: Record, until: int) -> None:
        """Let what a run needs be there still when it takes longer than its plan says, or its event is an old one."""
        refs = [*record.pages, *(attempt.ref for attempt in record.attempts if attempt.ref is not None)]
        keys = [item_key(record.run.id, ref) for ref in refs]
        if not is_kept_in_runs(record.event):
            keys.append(event_key(record.event.id))
        ttl = {"N": str(self._until(until, longest_run_ms(record.plan)))}
        put_items(self._table, [{**item, "ttl": ttl} for item in self.get_many(keys)] if keys else [])

    def _listed(self, record: Record) -> Listed:
        user, function = user_key(record.event.user), record.plan.function_id
        return Listed(record.position, record.run.id, None, user, function, record.replay)

    # --- wide runs -------------------------------------------------------------------------------------------------

    def keep_outcomes(self, facts: Sequence[RunFact], now: int) -> list[RunFact]:
        """Write down the outcomes of runs of which many attempts run, before anything is folded: whoever folds takes
        along what others wrote down, so that one write folds many."""
        kept: list[RunFact] = []
        ended: dict[str, list[Ended]] = defaultdict(list)
        others: set[str] = set()
        for fact in facts:
            record = self._records.get(fact.run_id)
            attempt_ended = fact.fact
            if record is None or not _shares_outcomes(record) or not isinstance(attempt_ended, AttemptEnded):
                others.add(fact.run_id)
            else:
                attempt_ended = replace(attempt_ended, at=now)
                request_id = self.request_ids.get((fact.run_id, attempt_ended.step, attempt_ended.attempt))
                ended[fact.run_id].append(Ended(attempt_ended, request_id))
            kept.append(fact._replace(fact=attempt_ended))
        for run_id, outcomes in ended.items():
            revision = self._records[run_id].revision
            for item in outcome_items(run_id, revision, outcomes, now, now // 1000 + self._retention_s):
                self._put(item)
            if run_id not in others:
                self._patient[run_id] = revision
        return kept

    def waiting(self, record: RunRecord) -> Sequence[AttemptEnded]:
        assert isinstance(record, Record)
        if not _may_have_waiting(record):
            return ()
        found = read_outcomes(self._table, record.run, record.revision, self.get_many)
        run_id = record.run.id
        self.request_ids.update(
            {
                (run_id, attempt_ended.step, attempt_ended.attempt): known
                for attempt_ended, known in found
                if known is not None
            }
        )
        return [fact for fact, _ in found]

    def look_for_waiting(self, record: RunRecord) -> None:
        """Let whoever folds this revision of a run look for outcomes, as if it was wide."""
        assert isinstance(record, Record)
        record.wide_at = record.revision

    def overtaken(self) -> list[RunFact]:
        """Outcomes that were left to wait by somebody who did not know yet what this batch has written since: now they
        may have consequences."""
        changed, self._changed = self._changed, {}
        records = self.load(changed)
        return [
            RunFact(run_id, fact, changed[run_id])
            for run_id, record in records.items()
            for fact in self.waiting(record)
        ]

    def _may_wait(self, change: Change, record: Record) -> bool:
        """Whether nothing follows from a change but that some outcomes are known, which are written down already, and
        others are still to come; but not those of people, who may take a year."""
        running = (i for i, step in enumerate(record.run.steps) if step.status is StepStatus.RUNNING)
        return (
            self._is_seen(record)
            and any(i not in record.plan.approval_steps for i in running)
            and record.run is not change.before
            and len(change.commands) < _FOLDED_AT_ONCE
            and not change.claims
            and all(map(_is_short_success, change.commands))
        )

    def _is_seen(self, record: Record) -> bool:
        """Whether this batch has written outcomes down, and nothing else, for the run, under a revision from which
        everybody reads who folds this revision of the run or the next one."""
        seen = self._patient.get(record.run.id)
        return seen is not None and record.revision - seen <= LOST_RACES

    def _wait(self, record: Record) -> Record | None:
        """Leave outcomes to who folds next; the current record if somebody changed the run meanwhile. Who does so
        later looks for outcomes after it (`overtaken`), so that one of the two sees both."""
        (item,) = self.get_many([run_key(record.run.id)])
        (current,) = self._read([item])
        if current.revision != record.revision:
            return current
        self._records.pop(record.run.id)  # it holds more than is written
        return None

    def put_reruns(self, run_ids: Sequence[str]) -> None:
        """Let reruns and replays be found by their events, and in lists; also those that were there before, since
        nobody knows how far whoever made them came."""
        records = [self._records[run_id] for run_id in run_ids]
        keys = [rerun_key(record.event.id, record.position) for record in records]
        put_items(self._table, [{**key, "r": {"S": name}} for key, name in zip(keys, run_ids, strict=True)])
        self._listed_runs.update((record.run.id, self._listed(record)) for record in records)

    def _put(self, item: Item, condition: str | None = None, values: Item | None = None) -> None:
        options: dict[str, Any] = {}
        if condition is not None:
            options = {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if values is not None:
            options["ExpressionAttributeValues"] = values
        self._db.put_item(TableName=self._table, Item=item, **options)


def _shares_outcomes(record: Record) -> bool:
    """Whether the outcomes of a run are written down before they are folded. Of an erased event nothing is kept."""
    goes_on = record.run.status in (RunStatus.RUNNING, RunStatus.FAILED)
    return record.is_wide and goes_on and not record.event.erased


def _may_have_waiting(record: Record) -> bool:
    """Whether outcomes may be written down that are not folded at this revision."""
    return may_have_waiting(record.run, record.revision, record.wide_at) and not record.event.erased


def _is_short_success(command: Command) -> bool:
    if not isinstance(command, RecordAttempt) or command.status != "completed":
        return False
    return len(command.output or b"") <= SHORT_OUTCOME


def _is_late(record: Record) -> bool:
    """Whether a new run's event was stored for less than the run may take: a rerun, a replay, what a pause kept."""
    is_old = record.run.created_at - ms_of(record.event.position) > _DAY_S * 1000
    return is_old or record.rerun_of is not None or record.replay is not None


def _measure(change: Change) -> None:
    if change.before is not change.record.run:
        for command in change.commands:
            if isinstance(command, EmitEnd):
                count(f"Runs{command.status.capitalize()}")
            elif isinstance(command, RecordAttempt) and command.attempt:  # attempt 0 was none of this run
                count(f"Attempts{command.status.capitalize()}")
                if command.started_at is not None:
                    duration("StepDuration", command.ended_at - command.started_at)
