"""Builds the details of a run for the API, from the run's item, results in other items, the plan, and logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from stepwell.api.approvals.approvals import messages_of
from stepwell.aws.api.logs import Logs, Source, of_invocation, of_task
from stepwell.aws.api.waiting_starts import WaitingStarts
from stepwell.aws.engine.results import all_attempts
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.versions import Version
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import read_item, read_items
from stepwell.aws.table.keys import event_key
from stepwell.aws.table.list_layout import EVENTS, of_name
from stepwell.aws.table.lists import Lists
from stepwell.aws.table.pending_outcomes import may_have_pending, read_outcomes
from stepwell.aws.table.positions import first_of
from stepwell.aws.table.runs import StoredRun
from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.events.events import Event
from stepwell.core.run.inputs import match_answer
from stepwell.core.run.run import PauseStatus, RunStatus, StepStatus
from stepwell.reader import AttemptRow, RunDetail


class Details:
    """Builds details of runs. Thread-safe."""

    def __init__(self, resources: Resources, registry: Registry, lists: Lists, logs: Logs) -> None:
        self._table, self._step_http = resources.table, resources.step_http
        self._registry, self._lists, self._logs = registry, lists, logs
        self._waiting = WaitingStarts(resources.table)

    def summary(self, stored: StoredRun) -> RunDetail:
        """A run for lists: without logs and approvals."""
        stored = self._with_pending(stored)
        return self._detail(stored, self._attempts(stored), {}, {})

    def with_approvals(self, stored: StoredRun) -> RunDetail:
        """A run with the messages of the approvals in it, and without logs."""
        return self._detail(stored, self._attempts(stored), {}, {}, with_approvals=True)

    def complete(self, stored: StoredRun) -> RunDetail:
        """A run with logs, approvals, and why events did not match the waits of the run."""
        stored = self._with_pending(stored)
        attempts = self._attempts(stored)
        version = self._registry.version(stored.function, stored.version)
        sources = {(a.step, a.attempt): source for a in attempts if (source := self._source(version, a)) is not None}
        mismatches = self._mismatches(version, stored, attempts)
        detail = self._detail(stored, attempts, self._logs.read(sources), mismatches, with_approvals=True)
        if not version.plan.has_limits or stored.run.status is not RunStatus.RUNNING:
            return detail
        event = Event.stored(stored.after, orjson.dumps(self._event(stored)))
        return replace(detail, waiting=self._waiting.of(version.plan, stored, event, attempts))

    def _detail(
        self,
        stored: StoredRun,
        attempts: Sequence[StoredAttempt],
        logs: dict[tuple[int, int], bytes],
        mismatches: dict[int, str],
        *,
        with_approvals: bool = False,
    ) -> RunDetail:
        plan, run = self._registry.version(stored.function, stored.version).plan, stored.run
        rows = [_row(attempt) for attempt in attempts]
        messages = messages_of(plan, run, rows, partial(self._event, stored)) if with_approvals else {}
        return RunDetail(
            run, plan, stored.event_id, stored.user, stored.rerun_of, rows, logs, mismatches, stored.replay, messages
        )

    def _with_pending(self, stored: StoredRun) -> StoredRun:
        """The run with pending successes shown as completed. Other pending outcomes are folded soon, so they are left
        out."""
        run = stored.run
        if not may_have_pending(run, stored.revision, stored.wide_at):
            return stored
        steps, attempts = list(run.steps), list(stored.attempts)
        read = partial(read_items, self._table, consistent=True)
        for fact, request_id in read_outcomes(self._table, run, stored.revision, read):
            step_state, output = steps[fact.step], fact.outcome.output
            if fact.outcome.error is None:
                ended = StoredAttempt(
                    fact.step, fact.attempt, "completed", step_state.queued_at, step_state.at, fact.at or step_state.at
                )
                attempts.append(replace(ended, output=output, request_id=request_id))
                steps[fact.step] = step_state._replace(status=StepStatus.COMPLETED)
        return replace(stored, run=run._replace(steps=tuple(steps)), attempts=attempts)

    def _attempts(self, stored: StoredRun) -> list[StoredAttempt]:
        attempts = all_attempts(stored, partial(read_items, self._table, consistent=True))
        return sorted(attempts, key=lambda stored_attempt: (stored_attempt.step, stored_attempt.attempt))

    def _source(self, version: Version, stored_attempt: StoredAttempt) -> Source | None:
        """Where the log of an attempt is; None if the attempt never began, or the place is not known."""
        step = version.plan.steps[stored_attempt.step]
        if stored_attempt.request_id is None:
            return None
        since, until = stored_attempt.started_at or stored_attempt.queued_at, stored_attempt.ended_at
        target = version.targets.get(step.id, {})
        if step.runtime.type == "http":
            return of_invocation(self._step_http, stored_attempt.request_id, since, until)
        if "lambda" in target:
            return of_invocation(target["lambda"], stored_attempt.request_id, since, until)
        return of_task(target["log_group"], stored_attempt.request_id, since, until) if "log_group" in target else None

    # --- why an event does not match a wait ------------------------------------------------------------------------

    def _mismatches(self, version: Version, stored: StoredRun, attempts: Sequence[StoredAttempt]) -> dict[int, str]:
        """For each wait that compared events without success: why the newest event did not match.

        It is evaluated when a run is shown. To store it would cost a write for each compared event.
        """
        found = {}
        outputs = {a.step: a.output for a in attempts if a.output is not None}
        errors = {a.step: a.error for a in attempts if a.error is not None}
        event: Any = None
        for p, (pause, state) in enumerate(zip(version.plan.pauses, stored.run.pauses, strict=True)):
            if state.status not in (PauseStatus.AWAITING, PauseStatus.EXPIRED) or pause.event is None:
                continue
            newest = self._newest(pause.event, stored.after, state.due_at)
            if newest is None:
                continue
            event = event or self._event(stored)
            problem = match_answer(version.plan, p, event, outputs, errors, newest).problem
            if problem is not None:
                found[p] = problem
        return found

    def _newest(self, name: str, after: int, before_ms: int) -> Any:
        """The newest event of this name after a position and before a time (ms); None if there is none."""
        entries = self._lists.entries(EVENTS, of_name(name), first_of(before_ms), page=1)
        position, event_id = next(entries, (0, ""))
        item = read_item(self._table, event_key(event_id)) if position > after else None
        return None if item is None or "rp" in item else orjson.loads(item["b"]["B"])

    def _event(self, stored: StoredRun) -> Any:
        if stored.event_body is not None:
            return orjson.loads(stored.event_body)
        item = read_item(self._table, event_key(stored.event_id))
        return {} if item is None else orjson.loads(item["b"]["B"])


def _row(attempt: StoredAttempt) -> AttemptRow:
    a = attempt
    return AttemptRow(a.step, a.attempt, a.status, a.queued_at, a.started_at, a.ended_at, a.output, a.error)
