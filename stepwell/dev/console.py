"""What `stepwell dev` prints: the functions, and what each event did. It follows the database, off the hot path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from stepwell.core.routing.triggers import Catalog
from stepwell.core.run.invalid_events import INVALID_EVENT
from stepwell.core.run.run_events import RUN_EVENTS
from stepwell.core.run.stored_links import REQUESTED
from stepwell.dev.quiet_events import why_nothing_started
from stepwell.event_types.registry import TypeChange, TypeRefused
from stepwell.local.database.queries import Queries
from stepwell.local.server import Deployed
from stepwell.local.webhooks import Synchronised
from stepwell.platform import EventDetail
from stepwell.project.load import PlacedProblem
from stepwell.project.only_on_aws import only_on_aws
from stepwell.project.webhooks import FoundWebhooks
from stepwell.run_log import ATTEMPTS, EVENTS
from stepwell.terminal import Terminal, print_line, shown

_EVERY_S = 0.25
_AT_ONCE = 10  # of a flood of events only the newest are shown
_MOST_MISSES = 20  # functions that an event did not start, by name
_MOST_FUNCTIONS = 50  # that are shown at the start: laying out a row takes half a millisecond of the loop's time
_ENDS = {"completed": "green", "failed": "red", "cancelled": "yellow"}


class DevConsole(logging.Handler):
    """As a handler of the log, it shows failed attempts and events that came again (`run_log`)."""

    def __init__(self, queries: Queries, catalog: Callable[[], Catalog], *, as_json: bool) -> None:
        super().__init__()
        self._queries, self._catalog, self._as_json = queries, catalog, as_json
        self._noted: list[logging.LogRecord] = []
        self._console = Terminal()
        self._deployed: list[Deployed] = []
        self._is_ready = False
        self._held: list[str] | None = None  # lines that go out together
        self._reported: frozenset[PlacedProblem] = frozenset()
        self._passed_over: frozenset[str] = frozenset()
        self._wrong_types: frozenset[str] = frozenset()
        self._wrong_webhooks: frozenset[str] = frozenset()

    # --- functions -------------------------------------------------------------------------------------------------

    def deployed(self, deployed: Deployed) -> None:
        function_id = deployed.function.definition.id
        registered = deployed.registered
        changed = registered is None or registered.is_new or not self._is_ready
        if not changed:
            return
        for warning in (*deployed.function.warnings(), *only_on_aws(deployed.function)):
            self._line("warning", f"[yellow]warning[/] {shown(str(warning))}", message=str(warning))
        for reason in deployed.missing:
            self._line(
                "missing",
                f"[yellow]not live[/] {shown(function_id)}: {shown(reason)}",
                function=function_id,
                why=reason,
            )
        self._say_if_it_waits(deployed)
        if self._is_ready and registered is not None and deployed.is_live:
            text = f"[green]live[/] {shown(function_id)} v{registered.version}"
            self._line("live", text, function=function_id, version=registered.version)
        else:
            self._deployed.append(deployed)

    def _say_if_it_waits(self, deployed: Deployed) -> None:
        function_id, why = deployed.function.definition.id, ""
        if deployed.registered is not None and not deployed.is_live:
            why = "it was deleted, and is live again once it changes"
            text = f"[yellow]not live[/] {shown(function_id)}: {shown(why)}"
        elif deployed.is_paused:
            why = "it starts no runs until it is resumed"
            text = f"[yellow]paused[/] {shown(function_id)}: {shown(why)}"
        if why:
            self._line("missing", text, function=function_id, why=why)

    def removed(self, function_id: str) -> None:
        self._line("removed", f"[yellow]removed[/] {shown(function_id)}: its definition is gone", function=function_id)

    def problems(self, problems: Sequence[PlacedProblem]) -> None:
        """Report what is wrong, each problem once until it is mended."""
        for problem in problems:
            if problem not in self._reported:
                self._line("problem", f"[red]error[/] {shown(str(problem))}", message=str(problem))
        self._reported = frozenset(problems)

    def passed_over(self, definitions: Sequence[PlacedProblem]) -> None:
        """Report definitions that are not used, each once until it is mended."""
        self._passed_over = self._new(
            [("warning", "[yellow]warning[/]", str(definition)) for definition in definitions], self._passed_over
        )

    def types(
        self,
        results: Sequence[TypeChange | TypeRefused],
        problems: Sequence[PlacedProblem],
        warnings: Sequence[PlacedProblem],
    ) -> None:
        """Report which types of events are new, and what is wrong with others, once until it is mended."""
        wrong = [("problem", "[red]error[/]", str(problem)) for problem in problems]
        wrong += [("problem", "[red]error[/]", str(result)) for result in results if isinstance(result, TypeRefused)]
        wrong += [("warning", "[yellow]warning[/]", str(warning)) for warning in warnings]
        self._wrong_types = self._new(wrong, self._wrong_types)
        for result in results:
            if isinstance(result, TypeChange) and result.what != "unchanged":
                what = f"{shown(result.version)} {shown(result.what)}, {shown(result.policy)}"
                text = f"[green]type[/] {shown(result.name)} {what}"
                self._line(
                    "type", text, name=result.name, version=result.version, change=result.what, policy=result.policy
                )

    def webhooks(self, done: Synchronised, found: FoundWebhooks) -> None:
        """Report which webhooks are new or gone, and what is wrong with others, once until it is mended."""
        wrong = [("problem", "[red]error[/]", str(problem)) for problem in found.problems]
        wrong += [("warning", "[yellow]warning[/]", str(warning)) for warning in found.warnings]
        self._wrong_webhooks = self._new(wrong, self._wrong_webhooks)
        for name in done.changed:
            self._line("webhook", f"[green]webhook[/] {shown(name)} at /webhooks/{shown(name)}", name=name)
        for name in done.removed:
            self._line("removed", f"[yellow]removed[/] webhook {shown(name)}: its file is gone", webhook=name)

    def _new(self, wrong: Sequence[tuple[str, str, str]], reported: frozenset[str]) -> frozenset[str]:
        for kind, label, message in wrong:
            if message not in reported:
                self._line(kind, f"{label} {shown(message)}", message=message)
        return frozenset(message for _, _, message in wrong)

    def trouble(self, message: str) -> None:
        self._line("problem", f"[red]error[/] {shown(message)}", message=message)

    def ready(self, url: str, paths: Iterable[Path], broken: int) -> None:
        """The server answers: show where, and the functions. `broken`: how much of what was found is not in service."""
        self._is_ready = True
        live = [d for d in self._deployed if d.is_live]
        if not self._as_json and live:
            table = Table("function", "version", "starts on", "steps", box=None, header_style="dim", pad_edge=False)
            for deployed in live[:_MOST_FUNCTIONS]:
                definition, registered = deployed.function.definition, deployed.registered
                triggers = [t.event if t.event else f"cron {t.cron}" for t in definition.triggers]
                version = f"v{registered.version}" if registered else ""
                version += ", paused" if deployed.is_paused else ""
                table.add_row(
                    shown(definition.id), version, "\n".join(map(shown, triggers)), shown(", ".join(definition.steps))
                )
            self._console.print(table)
            if len(live) > _MOST_FUNCTIONS:
                self._console.print(f"[dim]... {len(live) - _MOST_FUNCTIONS:,} more; stepwell functions shows all[/]")
        if broken:
            words = f"{broken} of what was found is not in service, see above"
            self._line("broken", f"[yellow]warning[/] {words}", count=broken)
        elif not live:
            where = ", ".join(str(path) for path in paths)
            self._line("empty", f"no functions below {shown(where)} yet; `stepwell init` makes one", paths=where)
        self._line(
            "ready", f"\n[bold green]ready[/] at [bold]{shown(url)}[/]  send events to {shown(url)}/e/dev", url=url
        )

    # --- events ----------------------------------------------------------------------------------------------------

    async def follow(self, position: int) -> None:
        """Print every event from this position on, with what it started, which attempts failed and which runs ended."""
        while True:
            await asyncio.sleep(_EVERY_S)
            with self._together():
                position = self._show_new(position)

    def _show_new(self, position: int) -> int:
        """Where to go on from."""
        new = self._queries.read_tail(position, _AT_ONCE)  # a few rows: cheaper here than in a thread
        if new and (skipped := new[0][0].event.seq - position - 1):
            self._line("skipped", f"[dim]... {skipped:,} more events[/]", events=skipped)
        ends = [pair for pair in new if pair[0].event.name.startswith(RUN_EVENTS)]
        for detail, started in (pair for pair in new if pair not in ends):
            self._event(detail, started)
        self._show_noted()
        for detail, started in ends:
            self._event(detail, started)
        return new[-1][0].event.seq if new else position

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what the log says until the events are shown that it is about."""
        self._noted.append(record)

    def _show_noted(self) -> None:
        noted, self._noted = self._noted, []
        if len(noted) > _AT_ONCE:
            self._line("skipped", f"[dim]... {len(noted) - _AT_ONCE:,} more failed attempts, or events again[/]")
        for record in noted[-_AT_ONCE:]:
            fields = getattr(record, "fields", {})
            if record.name == ATTEMPTS:
                self._attempt_failed(**fields)
            elif record.name == EVENTS:
                event = fields["event"]
                text = f"[cyan]event[/] {shown(event.name)} [dim]{shown(event.id)}[/]"
                text += "\n      [yellow]starts nothing: an event of this id was accepted before[/]"
                self._line("duplicate", text, name=event.name, id=event.id)

    def _attempt_failed(self, function: str, run: str, step: str, attempt: int, kind: str, **fields: Any) -> None:
        status, next_at = fields["status"], fields["next_attempt_at"]
        text = (
            f"[yellow]{shown(status)}[/] {shown(function)} [dim]{shown(run)}[/] step {shown(step)} attempt {attempt}: "
        )
        text += shown(fields["error"])
        if next_at is not None:
            at = datetime.fromisoformat(next_at).astimezone()
            text += f"\n      tried again at {at:%H:%M:%S}"
        elif status == "failed":
            text += "\n      not tried again"
        self._line("attempt", text, function=function, run=run, step=step, attempt=attempt, error_kind=kind, **fields)

    def _event(self, detail: EventDetail, started: dict[str, str]) -> None:
        event = detail.event
        if event.name.startswith(RUN_EVENTS):
            self._run_ended(event.name.removeprefix(RUN_EVENTS), event.data)
            if not started:
                return
        if event.name == INVALID_EVENT:
            if event.data["policy"] == "reject":
                self._refused(event.data)
            if not started:
                return
        if event.name == REQUESTED:
            self._asked(event.data)
            if not started:
                return
        misses = orjson.loads(detail.misses) if detail.misses else []
        invalid = orjson.loads(detail.invalid) if detail.invalid else []
        text = f"[cyan]event[/] {shown(event.name)} [dim]{shown(event.id)}[/]"
        for function_id, run_id in started.items():
            text += f"\n      started {shown(function_id)} [dim]{shown(run_id)}[/]"
        for miss in misses[:_MOST_MISSES]:
            why = ": ".join(item for item in (miss["expression"], miss["problem"] or "it is false") if item)
            text += f"\n      [dim]not started {shown(miss['function_id'])}: {shown(why)}[/]"
        if len(misses) > _MOST_MISSES:
            text += f"\n      [dim]nor others; stepwell events {shown(event.id)} names them all[/]"
        silence = None
        if not started and not misses and detail.replay is None:
            silence = why_nothing_started(event.name, self._queries.read_keepers(event.seq), self._catalog())
        if silence is not None:
            text += f"\n      [yellow]{shown(silence)}[/]"
        for item in invalid:
            text += f"\n      [yellow]invalid[/] {shown(item['pointer'])}: {shown(item['message'])}"
        fields = {"name": event.name, "id": event.id, "started": started, "not_started": misses[:_MOST_MISSES]}
        self._line("event", text, **fields, invalid=invalid, why=silence)

    def _refused(self, data: dict[str, Any]) -> None:
        text = f"[red]refused[/] {shown(data['event_name'])} [dim]{shown(data['event_id'])}[/]"
        for error in data["errors"]:
            text += f"\n      {shown(error['pointer'])}: {shown(error['message'])}"
        self._line("refused", text, name=data["event_name"], id=data["event_id"], errors=data["errors"])

    def _asked(self, data: dict[str, Any]) -> None:
        text = f"[blue]asks[/] {shown(data['function_id'])} {shown(data['step_id'])} [dim]{shown(data['run_id'])}[/]"
        text += "".join(f"\n      {shown(text_line)}" for text_line in data["message"].splitlines())
        text += f"\n      approve {shown(data['approve_url'])}\n      decline {shown(data['decline_url'])}"
        fields = {name: data[name] for name in ("message", "approve_url", "decline_url")}
        self._line("asks", text, function=data["function_id"], step=data["step_id"], run=data["run_id"], **fields)

    def _run_ended(self, status: str, data: dict[str, Any]) -> None:
        error = data["error"]
        why = f" at step {error['step']}: {error['message']}" if error else ""
        text = f"[{_ENDS[status]}]{shown(status)}[/] {shown(data['function_id'])} [dim]{shown(data['run_id'])}[/]"
        text += shown(why)
        self._line("run", text, status=status, function=data["function_id"], run=data["run_id"], error=error)

    def _line(self, kind: str, text: str, **fields: Any) -> None:
        if self._as_json:
            print_line({"kind": kind, **fields})
        elif self._held is not None:
            self._held.append(text)
        else:
            self._console.print_markup(text)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What is printed in here goes out at once, which takes a terminal's time once."""
        self._held = []
        try:
            yield
        finally:
            lines, self._held = self._held, None
            if lines:
                self._console.print_markup("\n".join(lines))
