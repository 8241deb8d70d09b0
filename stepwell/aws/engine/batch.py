"""One batch of the engine on DynamoDB: one conditional write for each transition of a run.

Items to which a run refers are written before the run. Near timers and waits are written after it. After a crash
between two requests, the redelivered message finds what is missing and completes it. Far timers and watches are written
before the run as well, because they bring the run on if messages are lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from stepwell.aws.engine.results import record_of
from stepwell.aws.engine.run_writer import RunWriter
from stepwell.aws.engine.shared_outcomes import SharedOutcomes
from stepwell.aws.engine.stored_events import StoredEvents
from stepwell.aws.observability import count, duration
from stepwell.aws.table.items import delete_items, put_items
from stepwell.aws.table.keys import Item, Key, rerun_key, run_key, wait_partitions
from stepwell.aws.table.lists import Listed
from stepwell.aws.table.positions import newest_position, next_position
from stepwell.aws.table.run_records import Record, StoredState
from stepwell.core.events.events import Event, user_key
from stepwell.core.routing.triggers import Catalog
from stepwell.core.run.messages import AttemptEnded, EmitEnd, RecordAttempt, Timer
from stepwell.core.run.permits import is_waiting
from stepwell.platform import (
    Accepted,
    AttemptId,
    FoundWaits,
    NewEvent,
    NotWritten,
    RunFact,
    RunRecord,
    Transition,
    WaitPlace,
)
from stepwell.start_checks import StartChecks

if TYPE_CHECKING:
    from stepwell.aws.engine.store import DynamoStore

log = logging.getLogger("stepwell.aws")


class DynamoBatch:
    """Implements `platform.Batch`. It keeps nothing of earlier batches, because other processes change the same runs.

    `request_ids`: request ids of the attempts whose outcomes are in this batch.
    """

    most_events: int | None = 5000  # so that ten messages with as many events finish within the minute of `advance`

    def __init__(self, store: DynamoStore, now: int) -> None:
        self.now, self._store, self._table = now, store, store.table
        self.request_ids: dict[AttemptId, str] = {}
        self._catalog: Catalog | None = None
        self._records: dict[str, Record] = {}
        self._added: set[str] = set()  # runs that this batch creates, or that the same message created before
        self._released: list[tuple[Key, str | None]] = []  # items of kept events, to delete once the run is written
        self._sent_timers: list[tuple[Key, str | None, Timer]] = []  # far timers whose messages arrived, with runs
        self._waiters: list[tuple[Key, AttemptId]] = []  # starts that do not wait any more, once the runs are written
        self._obsolete: list[Key] = []  # waits and timers; deleted last, so that a redelivered event finds them
        self._listed_runs: dict[str, Listed] = {}
        self._events = StoredEvents(store.table, store.registry, store.retention_s, now)
        self._outcomes = SharedOutcomes(store.table, self.request_ids, store.retention_s, now)
        self._writer = RunWriter(store.table, store.resources, store.registry, store.timers, self.request_ids, now)

    def flush(self) -> None:
        """Completes the batch: writes users and lists, sends timers and messages, and deletes obsolete items.

        Raises NotWritten, NotSent.
        """
        store, accepted = self._store, self._events.accepted
        store.users.record([event for new, event in accepted if new.replay is None], self.now)
        listed = {event.id: Listed(event.position, event.id, event.name, user_key(event.user)) for _, event in accepted}
        store.lists.add(list(listed.values()), list(self._listed_runs.values()), self.now)
        store.timers.send(self.now)
        store.wait_pages.send()
        store.paused_events.send()
        released = [key for key, run in self._released if run is None or self._records[run].stored.revision]
        settled = [key for key, run, timer in self._sent_timers if self._is_settled(run, timer)]
        started = [key for key, start in self._waiters if self._is_started(start)]
        delete_items(self._table.name, [*self._obsolete, *released, *settled, *started])

    def forget_timer(self, item: Key, run_id: str | None, timer: Timer) -> None:
        """Deletes the item of a far timer whose message has arrived, once the run no longer waits for the timer.

        `run_id`: None if the run is deleted.
        """
        self._sent_timers.append((item, run_id, timer))

    def _is_settled(self, run_id: str | None, timer: Timer) -> bool:
        """Whether the stored run no longer waits for the timer.

        False if the change of the run could not be written: the message is delivered again.
        """
        if run_id is None:
            return True
        record = self._records.get(run_id)
        return record is not None and self._store.timers.is_settled(record.plan, record.run, timer)

    def forget_waiter(self, item: Key, start: AttemptId) -> None:
        """Deletes the item with which a limited start waits, once the run says that it has started."""
        self._waiters.append((item, start))

    def _is_started(self, start: AttemptId) -> bool:
        record = self._records.get(start[0])
        return record is not None and not is_waiting(record.run, start)

    def known(self, run_id: str) -> Record | None:
        """A run that this batch has loaded already."""
        return self._records.get(run_id)

    # --- events ----------------------------------------------------------------------------------------------------

    @property
    def checks(self) -> StartChecks:
        return self._store.checks

    def catalog(self) -> Catalog:
        if self._catalog is None:  # the whole batch uses the same catalog
            self._catalog = self._store.registry.catalog()
        return self._catalog

    def expire(self) -> None:
        """Makes the next call of `catalog` check the table for changes."""
        self._store.registry.expire()
        self._catalog = None

    def position(self) -> int:
        return newest_position(self.now)

    def put_events(self, events: Sequence[NewEvent]) -> list[Accepted | NotWritten | None]:
        return self._events.put(events, self.catalog())

    def hold(self, function_id: str, event: Event) -> bool:
        try:
            self._store.paused_events.put(function_id, event, self.now)
        except self._table.errors.ClientError as error:
            log.warning("event of a paused function not stored, will be redelivered: %s: %s", event.id, error)
            return False
        return True

    def forget_held(self, key: Key, run_id: str | None) -> None:
        """Deletes the item of an event that was kept for a paused function, once the run that it starts is written.

        `run_id`: None if it starts no run.
        """
        self._released.append((key, run_id))

    def events(self, ids: Sequence[str]) -> dict[str, Event]:
        return self._events.read(ids)

    def find_events(self, name: str, key: bytes | None, after: int, before: int) -> Iterator[Event]:
        return self._events.find(name, key, after, before)

    def continue_scan(self, run_id: str, pause: int, after: int) -> None:
        self._store.wait_pages.continue_scan(run_id, pause, after)

    def find_waits(self, event: Event, keys: Sequence[bytes], behind: WaitPlace | None = None) -> FoundWaits:
        """The first page of each partition. `WaitPages` sends messages for the further pages."""
        partitions = [partition for key in keys for partition in wait_partitions(event.name, key)]
        if self.catalog().is_awaited_by_name(event):
            partitions += wait_partitions(event.name, None)
        pages = self._table.each(lambda partition: self._store.wait_pages.page(event.id, partition), partitions)
        return FoundWaits([wait for page in pages for wait in page])

    # --- runs ------------------------------------------------------------------------------------------------------

    def load(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        wanted = list(run_ids)
        missing = [run_id for run_id in wanted if run_id not in self._records]
        for record in self._read(self._table.get_many([run_key(run_id) for run_id in missing])) if missing else ():
            self._records[record.run.id] = record
        return {run_id: self._records[run_id] for run_id in wanted if run_id in self._records}

    def _read(self, items: Sequence[Item]) -> list[Record]:
        event_ids = [item["ei"]["S"] for item in items if "e" not in item]  # of events that are not copied into runs
        events = self.events(event_ids) if event_ids else {}
        return [record_of(item, events, self._store.registry, self._table.get_many) for item in items]

    def add(self, record: RunRecord) -> None:
        self._added.add(record.run.id)
        stored = StoredState(next_position(record.run.created_at))
        self._records[record.run.id] = Record(
            record.run, record.plan, record.event, record.after, record.rerun_of, record.replay, stored=stored
        )

    def commit(self, transitions: Sequence[Transition]) -> Sequence[RunRecord | NotWritten | None]:
        return self._table.each(self._commit, transitions)

    def _commit(self, transition: Transition) -> Record | NotWritten | None:
        record = transition.record
        assert isinstance(record, Record)
        run_id = record.run.id
        try:
            self._writer.prepare(transition)
            may_stay_pending = self._outcomes.may_stay_pending(transition, record)
            current = self._leave_pending(record) if may_stay_pending else self._write(transition, record)
            if current is not None:
                self._records[run_id] = current
                return current
            if may_stay_pending:
                self._records.pop(run_id)  # the stored run does not contain the outcomes
                return None
            self._records[run_id] = record
            self._obsolete += self._writer.complete(transition, record, is_new=run_id in self._added)
        except self._table.errors.ClientError as error:
            self._records.pop(run_id, None)
            return NotWritten(str(error))
        _measure(transition)
        if run_id in self._added:
            self._listed_runs[run_id] = _listed(record)
        return None

    def _write(self, transition: Transition, record: Record) -> Record | None:
        """Writes the run if it has changed. Returns the current record if another process changed it meanwhile."""
        if not self._writer.must_write(transition, record):
            return None
        item = self._writer.write(transition, record)
        if item is not None:
            return self._read([item])[0]
        self._outcomes.run_was_written(transition, record)
        record.count_write()
        return None

    def _leave_pending(self, record: Record) -> Record | None:
        """Leaves stored outcomes to the next batch that folds the run.

        Returns the current record if another process changed the run meanwhile. A process that changes it later reads
        pending outcomes after the change (`missed_outcomes`), so one of the two processes folds them.
        """
        (current,) = self._read(self._table.get_many([run_key(record.run.id)]))
        return current if current.stored.revision != record.stored.revision else None

    # --- wide runs -------------------------------------------------------------------------------------------------

    def store_outcomes(self, facts: Sequence[RunFact]) -> list[RunFact]:
        """Stores the outcomes of wide runs before anything is folded. Returns the facts, with the times of outcomes."""
        return self._outcomes.write(facts, self._records)

    def pending_outcomes(self, record: RunRecord) -> Sequence[AttemptEnded]:
        assert isinstance(record, Record)
        return self._outcomes.read(record)

    def treat_as_wide(self, record: RunRecord) -> None:
        """Makes the next fold of the run read pending outcomes, as for a wide run."""
        assert isinstance(record, Record)
        record.stored.wide_at = record.stored.revision

    def missed_outcomes(self) -> list[RunFact]:
        """Outcomes that another process left pending because it had not yet read what this batch has written."""
        changed = self._outcomes.take_changed()
        records = self.load(changed)
        return [
            RunFact(run_id, fact, changed[run_id])
            for run_id, record in records.items()
            for fact in self.pending_outcomes(record)
        ]

    # --- reruns ----------------------------------------------------------------------------------------------------

    def put_reruns(self, run_ids: Sequence[str]) -> None:
        """Adds reruns and replays to their events and to lists.

        This is done for existing runs too, because the process that created them may have died before it did so.
        """
        records = [self._records[run_id] for run_id in run_ids]
        keys = [rerun_key(record.event.id, record.stored.position) for record in records]
        items = [{**key, "r": {"S": run_id}} for key, run_id in zip(keys, run_ids, strict=True)]
        put_items(self._table.name, items)
        self._listed_runs.update((record.run.id, _listed(record)) for record in records)


def _listed(record: Record) -> Listed:
    user, function = user_key(record.event.user), record.plan.function_id
    return Listed(record.stored.position, record.run.id, None, user, function, record.replay)


def _measure(transition: Transition) -> None:
    if transition.before.run is not transition.record.run:
        for command in transition.commands:
            if isinstance(command, EmitEnd):
                count(f"Runs{command.status.capitalize()}")
            elif isinstance(command, RecordAttempt) and command.attempt:  # attempt 0 belongs to an earlier run
                count(f"Attempts{command.status.capitalize()}")
                if command.started_at is not None:
                    duration("StepDuration", command.ended_at - command.started_at)
