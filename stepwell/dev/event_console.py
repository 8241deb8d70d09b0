"""Prints what each event did in `stepwell dev`. Reads the database at intervals, so that requests are not delayed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson

from stepwell.core.events.events import Event
from stepwell.core.routing.triggers import Catalog
from stepwell.core.run.invalid_events import INVALID_EVENT
from stepwell.core.run.run_events import RUN_EVENTS
from stepwell.core.run.stored_links import REQUESTED
from stepwell.dev.output import Output
from stepwell.dev.quiet_events import why_nothing_started
from stepwell.dev.satisfied_waits import Satisfied, SatisfiedWaits
from stepwell.local.queries.queries import Queries
from stepwell.reader import EventDetail
from stepwell.run_log import ATTEMPTS, EVENTS, WAITS
from stepwell.terminal import shown

_EVERY_S = 0.25
_AT_ONCE = 10  # of many events at once, only the newest are printed
_MAX_MISSES = 20  # functions to list that an event did not start
_ENDS = {"completed": "green", "failed": "red", "cancelled": "yellow"}


class EventConsole(logging.Handler):
    """Prints events and what they did.

    As a log handler, it receives failed attempts, duplicate events, and the waits that events satisfied (`run_log`).
    """

    def __init__(self, output: Output, queries: Queries, catalog: Callable[[], Catalog]) -> None:
        super().__init__()
        self._line, self._together = output.line, output.together
        self._queries, self._catalog = queries, catalog
        self._records: list[logging.LogRecord] = []
        self._waits = SatisfiedWaits()

    async def follow(self, position: int) -> None:
        """Prints all events after this position, with the runs that they start, failed attempts, and ends of runs."""
        while True:
            await asyncio.sleep(_EVERY_S)
            with self._together():
                position = self._show_new(position)

    def _show_new(self, position: int) -> int:
        """Prints the events after a position. Returns the new position."""
        new = self._queries.read_tail(position, _AT_ONCE)  # a few rows: cheaper here than in a thread
        if new and (skipped := new[0][0].event.position - position - 1):
            self._line("skipped", f"[dim]... {skipped:,} more events[/]", events=skipped)
        ends = [pair for pair in new if pair[0].event.name.startswith(RUN_EVENTS)]
        for detail, started in (pair for pair in new if pair not in ends):
            self._event(detail, started)
        self._show_resumed({detail.event.id for detail, _ in new})
        self._show_records()
        for detail, started in ends:
            self._event(detail, started)
        return new[-1][0].event.position if new else position

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a log record until the event that it belongs to is printed."""
        if record.name == WAITS:
            self._waits.add(**getattr(record, "fields", {}))
        else:
            self._records.append(record)

    def _show_resumed(self, printed_now: set[str]) -> None:
        """Prints the runs that events resumed after these events were printed, such as at the end of a delay."""
        others = list(self._waits.take_others(printed_now))
        if len(others) > _AT_ONCE:
            self._line("skipped", f"[dim]... {len(others) - _AT_ONCE:,} more events that resumed runs[/]")
        for event_id, satisfied in others[-_AT_ONCE:]:
            text = f"[cyan]event[/] {shown(satisfied.name)} [dim]{shown(event_id)}[/]"
            text += satisfied.text()
            fields = {"resumed": satisfied.resumed, "cancelled": satisfied.cancelled}
            self._line("resumed", text, name=satisfied.name, id=event_id, **fields)

    def _show_records(self) -> None:
        records, self._records = self._records, []
        if len(records) > _AT_ONCE:
            more = len(records) - _AT_ONCE
            self._line("skipped", f"[dim]... {more:,} more failed attempts or duplicate events[/]")
        for record in records[-_AT_ONCE:]:
            fields = getattr(record, "fields", {})
            if record.name == ATTEMPTS:
                self._attempt_failed(**fields)
            elif record.name == EVENTS:
                event = fields["event"]
                text = f"[cyan]event[/] {shown(event.name)} [dim]{shown(event.id)}[/]"
                text += "\n      [yellow]starts nothing: an event with this id was accepted before[/]"
                self._line("duplicate", text, name=event.name, id=event.id)

    def _attempt_failed(self, function: str, run: str, step: str, attempt: int, kind: str, **fields: Any) -> None:
        status, next_at = fields["status"], fields["next_attempt_at"]
        text = (
            f"[yellow]{shown(status)}[/] {shown(function)} [dim]{shown(run)}[/] step {shown(step)} attempt {attempt}: "
        )
        text += shown(fields["error"])
        if next_at is not None:
            at = datetime.fromisoformat(next_at).astimezone()
            text += f"\n      next attempt at {at:%H:%M:%S}"
        elif status == "failed":
            text += "\n      no further attempt"
        self._line("attempt", text, function=function, run=run, step=step, attempt=attempt, error_kind=kind, **fields)

    def _event(self, detail: EventDetail, started: dict[str, str]) -> None:
        event, satisfied = detail.event, self._waits.take(detail.event.id)
        if self._show_own(event) and not started and not satisfied:
            return
        misses = orjson.loads(detail.misses) if detail.misses else []
        invalid = orjson.loads(detail.invalid) if detail.invalid else []
        text = f"[cyan]event[/] {shown(event.name)} [dim]{shown(event.id)}[/]"
        for function_id, run_id in started.items():
            text += f"\n      started {shown(function_id)} [dim]{shown(run_id)}[/]"
        text += satisfied.text()
        for miss in misses[:_MAX_MISSES]:
            why = ": ".join(item for item in (miss["expression"], miss["problem"] or "is false") if item)
            text += f"\n      [dim]not started {shown(miss['function_id'])}: {shown(why)}[/]"
        if len(misses) > _MAX_MISSES:
            more = len(misses) - _MAX_MISSES
            text += f"\n      [dim]... {more:,} more; `stepwell events show {shown(event.id)}` lists all[/]"
        reason = None
        if not started and not misses and detail.replay is None:
            reason = self._why(event, satisfied)
        if reason is not None:
            text += f"\n      [yellow]{shown(reason)}[/]"
        for item in invalid:
            text += f"\n      [yellow]invalid[/] {shown(item['pointer'])}: {shown(item['message'])}"
        fields = {"name": event.name, "id": event.id, "started": started, "not_started": misses[:_MAX_MISSES]}
        fields |= {"resumed": satisfied.resumed, "cancelled": satisfied.cancelled}
        self._line("event", text, **fields, invalid=invalid, why=reason)

    def _show_own(self, event: Event) -> bool:
        """Prints an event of the engine that has lines of a special form. Returns False for any other event."""
        if event.name.startswith(RUN_EVENTS):
            self._run_ended(event.name.removeprefix(RUN_EVENTS), event.data)
        elif event.name == INVALID_EVENT:
            if event.data["policy"] == "reject":
                self._refused(event.data)
        elif event.name == REQUESTED:
            self._approval_requested(event.data)
        else:
            return False
        return True

    def _why(self, event: Event, satisfied: Satisfied) -> str | None:
        """The reason why an event started nothing; None if it resumed runs, or may still do so."""
        keepers = self._queries.functions_holding(event.position)
        if not keepers and (satisfied or self._queries.is_unrouted(event.name, event.position)):
            return None
        return why_nothing_started(event.name, keepers, self._catalog())

    def _refused(self, data: dict[str, Any]) -> None:
        text = f"[red]refused[/] {shown(data['event_name'])} [dim]{shown(data['event_id'])}[/]"
        for error in data["errors"]:
            text += f"\n      {shown(error['pointer'])}: {shown(error['message'])}"
        self._line("refused", text, name=data["event_name"], id=data["event_id"], errors=data["errors"])

    def _approval_requested(self, data: dict[str, Any]) -> None:
        text = f"[blue]asks[/] {shown(data['function_id'])} {shown(data['step_id'])} [dim]{shown(data['run_id'])}[/]"
        text += "".join(f"\n      {shown(text_line)}" for text_line in data["message"].splitlines())
        text += f"\n      approve {shown(data['approve_url'])}\n      decline {shown(data['decline_url'])}"
        fields = {name: data[name] for name in ("message", "approve_url", "decline_url")}
        self._line("asks", text, function=data["function_id"], step=data["step_id"], run=data["run_id"], **fields)

    def _run_ended(self, status: str, data: dict[str, Any]) -> None:
        error = data["error"]
        why = f" at step {error['step']}: {error['message']}" if error else ""
        reason = {name: data[name] for name in ("reason", "timeout", "replaced_by") if name in data}
        if "timeout" in reason:
            why = f", reason: timeout (`{reason['timeout']}` of `timeouts`)"
        elif "replaced_by" in reason:
            why = f", reason: singleton; run {reason['replaced_by']} has taken its place"
        text = f"[{_ENDS[status]}]{shown(status)}[/] {shown(data['function_id'])} [dim]{shown(data['run_id'])}[/]"
        text += shown(why)
        self._line("run", text, status=status, function=data["function_id"], run=data["run_id"], error=error, **reason)
