"""Stores the results of attempts, in the run's item or in items of their own, and reads them when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from stepwell.aws.functions.registry import Registry
from stepwell.aws.table.keys import Item, Key, item_key, overflow_key, page_key
from stepwell.aws.table.run_records import OverflowResults, Record, Results, StoredState
from stepwell.aws.table.runs import (
    StoredRun,
    is_long_history,
    is_long_result,
    read_attempts,
    result_steps,
    stored_run,
    write_attempts,
)
from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.events.events import Event
from stepwell.core.run.inputs import erased_error, error_json
from stepwell.core.run.messages import Command, RecordAttempt

Read = Callable[[Sequence[Key]], list[Item]]


def record_results(
    record: Record, commands: Sequence[Command], request_ids: Mapping[tuple[str, int, int], str], ttl: int
) -> Iterator[Item]:
    """Adds ended attempts to the run's history. Yields the items that must be written before the run."""
    run, ttl_attribute = record.run, {"ttl": {"N": str(ttl)}}
    for command in commands:
        if not isinstance(command, RecordAttempt):
            continue
        error = error_json(command.error) if command.error else None
        request_id = request_ids.get((run.id, command.step, command.attempt))
        attempt = StoredAttempt.of(command, error, request_id)
        if record.event.erased:
            attempt = erased(attempt)
        if is_long_result(record, attempt):
            content = attempt.output if attempt.output is not None else attempt.error or b""
            key = overflow_key(run.id, attempt.step, attempt.attempt, content)
            attempt.ref = key["sk"]["S"]
            yield {**key, **_result_item(attempt), **ttl_attribute}
        record.stored.attempts.append(attempt)
    if is_long_history(record):
        content = write_attempts(record.stored.attempts, run.created_at)
        key = page_key(run.id, len(record.stored.pages), content)
        record.stored.pages.append(key["sk"]["S"])
        record.stored.attempts = []
        yield {**key, "h": {"B": content}, **ttl_attribute}


def erased(attempt: StoredAttempt) -> StoredAttempt:
    """The attempt without personal data, for a run whose user is erased."""
    error = None if attempt.error is None else erased_error(attempt.error)
    return replace(attempt, output=None, error=error, request_id=None, ref=None)


def _result_item(attempt: StoredAttempt) -> Item:
    """The attributes of an item that contains a long result: `o` is the output, `x` the error."""
    item: Item = {}
    if attempt.output is not None:
        item["o"] = {"B": attempt.output}
    if attempt.error is not None:
        item["x"] = {"B": attempt.error}
    return item


def all_attempts(stored: StoredRun, read: Read, *, results: bool = True) -> list[StoredAttempt]:
    """All ended attempts of a run, earliest first. `results`: also read the results that are in other items."""
    run = stored.run
    pages = {item["sk"]["S"]: item for item in read([item_key(run.id, page) for page in stored.pages])}
    attempts = [a for page in stored.pages for a in read_attempts(pages[page]["h"]["B"], run.created_at)]
    attempts += stored.attempts
    refs = [attempt.ref for attempt in attempts if attempt.ref is not None]
    if results and refs:
        found = {item["sk"]["S"]: item for item in read([item_key(run.id, ref) for ref in refs])}
        for attempt in attempts:
            if attempt.ref is not None and attempt.ref in found:
                item = found[attempt.ref]
                attempt.output = item["o"]["B"] if "o" in item else None
                attempt.error = item["x"]["B"] if "x" in item else None
    return attempts


def record_of(item: Item, events: Mapping[str, Event], registry: Registry, read: Read) -> Record:
    """The engine's record of a run. Results in other items are read when one of them is needed."""
    stored = stored_run(item)
    if stored.event_body is not None:
        event = Event.stored(stored.event_position, stored.event_body)
    else:
        event = events[stored.event_id]
    completed, failed = result_steps(stored.run)
    outputs = {a.step: a.output for a in stored.attempts if a.output is not None and a.step in completed}
    errors = {a.step: a.error for a in stored.attempts if a.error is not None and a.step in failed}
    history = cache(lambda: all_attempts(stored_run(item), read))

    def all_outputs() -> dict[int, bytes]:
        return {a.step: a.output for a in history() if a.output is not None and a.step in completed}

    def all_errors() -> dict[int, bytes]:
        return {a.step: a.error for a in history() if a.error is not None and a.step in failed}

    state = StoredState(
        stored.position,
        stored.revision,
        list(stored.attempts),
        list(stored.pages),
        stored.causes,
        stored.watched,
        stored.wide_at,
    )
    return Record(
        stored.run,
        registry.version(stored.function, stored.version).plan,
        event,
        stored.after,
        stored.rerun_of,
        stored.replay,
        outputs=Results(outputs, OverflowResults(completed - outputs.keys(), all_outputs)),
        errors=Results(errors, OverflowResults(failed - errors.keys(), all_errors)),
        causes=stored.causes,
        stored=state,
    )
