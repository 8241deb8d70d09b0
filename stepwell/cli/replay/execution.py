"""Executes a replay: writes the selected events to the journal, then sends them to the server.

A replay can be continued after any interruption: each event that was sent is in the journal, or the server has a run
for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.replay.journal import Journal
from stepwell.cli.replay.redact import redact
from stepwell.cli.replay.selection import FIELDS, Choice, Selection
from stepwell.cli.ui.output import confirm, console, print_json, stderr, warn
from stepwell.cli.ui.rate_limit import RateLimit
from stepwell.cli.ui.tables import event_table, local_time
from stepwell.terminal import shown

_MAX_EVENTS = 100  # events in a request
_MAX_BYTES = 3_500_000
_BATCH_S = 0.2  # a request has at most as many events as the rate allows in this time, in seconds
_MAX_LISTED = 10

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to replay. The journal stores it, so --resume needs only the id.

    `source` and `target` are URLs, `rate` is events a second, `redact` contains paths into the events.
    """

    source: str
    target: str
    choice: Choice
    version: int
    rate: float
    redact: list[list[str]] = field(default_factory=list)

    @property
    def is_pulled(self) -> bool:
        """The events come from another server than the one that runs them."""
        return self.source != self.target


class Replaying:
    def __init__(
        self, replay: str, plan: Plan, journal: Journal, source: Client, target: Client, *, quiet: bool
    ) -> None:
        self._replay, self._plan, self._journal = replay, plan, journal
        self._source, self._target, self._quiet = source, target, quiet
        self._path = f"/v1/functions/{in_path(plan.choice.function)}"

    def run(self, *, dry_run: bool, ask: bool) -> None:
        with self._interruptible(dry_run):
            self._choose(dry_run)
            if dry_run or not self._journal.chosen:
                self._show()
            elif ask and console.is_terminal and not confirm(f"{self._summary()}?"):
                self._journal.delete()
                raise typer.Exit(1)
            else:
                self._send()
                self._end()
            self._journal.delete()

    @contextmanager
    def _interruptible(self, dry_run: bool) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, typer.Abort):
            self._stopped(dry_run)
        except typer.Exit as ended:
            if ended.exit_code and not self._journal.is_deleted:
                self._stopped(dry_run)
            raise

    def _stopped(self, dry_run: bool) -> NoReturn:
        self._journal.close()
        if not dry_run:
            stderr.print(f"stopped; to continue: stepwell replay --resume {self._replay}", markup=False)
        raise typer.Exit(1) from None

    # --- selection -------------------------------------------------------------------------------------------------

    def _choose(self, dry_run: bool) -> None:
        journal, plan = self._journal, self._plan
        if journal.is_chosen:
            return
        triggers = self._target.get(self._path)["triggers"]
        selection = Selection(self._source, plan.choice, triggers)
        with self._progress() as progress:
            task = progress.add_task("selecting", total=None)
            for events, cursor in selection.pages(journal.cursor):
                journal.add([self._entry(event, dry_run) for event in events], cursor)
                progress.update(task, completed=journal.chosen)
        if selection.no_value:
            warn(f"--where failed for {selection.no_value:,} events; the error for the newest: {selection.problem}")

    def _entry(self, event: Json, dry_run: bool) -> Json:
        """What the journal stores of an event: the redacted event if it goes to another server, else the id."""
        redact(event, self._plan.redact)
        fields = (*FIELDS, "accepted_at") if self._plan.is_pulled else ("id", "name", "accepted_at")
        return event if dry_run else {field: event[field] for field in fields}

    def _summary(self) -> str:
        plan, journal = self._plan, self._journal
        first, last = journal.entry(0), journal.entry(journal.chosen - 1)
        where = f"from {plan.source} at {plan.target}" if plan.is_pulled else f"at {plan.target}"
        between = f"accepted {local_time(first['accepted_at'])} to {local_time(last['accepted_at'])}"
        events = "1 event" if journal.left == 1 else f"{journal.left:,} events"
        rate = f"{plan.rate:g} a second, in {journal.left / plan.rate:,.0f} s"
        return f"replay {events} {where} on {plan.choice.function} v{plan.version}, {between}, {rate}"

    def _show(self) -> None:
        """Prints what would be done, or that there is nothing to do."""
        journal = self._journal
        first = [journal.entry(n) for n in range(min(journal.chosen, _MAX_LISTED))]
        if self._quiet:
            listed = [{name: event[name] for name in ("id", "name", "accepted_at")} for event in first]
            print_json({**self._result(), "dry_run": True, "first": listed})
        elif not first:
            console.print("no stored event matches")
        else:
            console.print(event_table(first))
            if journal.chosen > len(first):
                console.print(f"[dim]... and {journal.chosen - len(first):,} more[/]")
            console.print(f"would {shown(self._summary())}", soft_wrap=True)

    # --- sending ---------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        journal, plan = self._journal, self._plan
        rate_limit, size = RateLimit(plan.rate), max(1, min(_MAX_EVENTS, int(plan.rate * _BATCH_S)))
        with self._progress() as progress:
            task = progress.add_task("replaying", total=journal.chosen, completed=journal.chosen - journal.left)
            while batch := journal.batch(size, _MAX_BYTES):
                rate_limit.wait(len(batch.entries))
                body = {
                    "replay": self._replay,
                    "version": plan.version,
                    "events": list(map(self._event_in_request, batch.entries)),
                }
                answer = self._target.post(f"{self._path}/replay", body)
                journal.sent(batch, [event["status"] for event in answer["events"]])
                progress.update(task, advance=len(batch.entries))

    def _event_in_request(self, entry: Json) -> Json:
        return {"event": {name: entry[name] for name in FIELDS}} if self._plan.is_pulled else {"id": entry["id"]}

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        is_shown = console.is_terminal and not self._quiet
        return Progress(*columns, console=console, transient=True, disable=not is_shown)

    def _result(self) -> Json:
        plan, counts = self._plan, self._journal.counts
        return {
            "replay": self._replay,
            "function": plan.choice.function,
            "version": plan.version,
            "events": self._journal.chosen,
            "started": counts.get("started", 0),
            "already": counts.get("already", 0),
            "unknown": counts.get("unknown event", 0),
            "not_started": counts.get("not started", 0),
        }

    def _end(self) -> None:
        result = self._result()
        if result["unknown"]:
            warn(f"{result['unknown']:,} events no longer exist")
        if result["not_started"]:
            warn(f"{result['not_started']:,} events did not start a run, because of `singleton`")
        if self._quiet:
            print_json(result)
            return
        again = f", {result['already']:,} were started before" if result["already"] else ""
        runs = f"[dim]stepwell runs --replay {shown(self._replay)}[/]"
        console.print(f"[green]started[/] {result['started']:,} runs{again} {runs}", soft_wrap=True)
