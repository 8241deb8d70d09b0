"""`stepwell run`: runs a function once, in this process, without a server."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import orjson
import typer

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.run.approval_prompt import ApprovalPrompt
from stepwell.cli.run.sample_event import sample_event
from stepwell.cli.server.dev import NoContainersOption
from stepwell.cli.ui.output import JsonOption, console, fail, json_argument, print_json, warn
from stepwell.cli.ui.tables import duration, elapsed, short, status
from stepwell.cli.ui.tree import run_tree
from stepwell.project.cache_folder import modules_cache
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.api.views.models import AttemptView, RunView, StepView
    from stepwell.local.server import LocalServer
    from stepwell.local.store.functions import Registered
    from stepwell.project.load import LoadedFunction

_QUIET_LOGS = 4000  # characters of an attempt's log that are printed


EventOption = Annotated[str | None, typer.Option("--event", "-e", help="The event: JSON, @file, or - for stdin.")]
ThenOption = Annotated[
    list[str] | None, typer.Option("--then", help="An event to send when the run waits for one. Repeatable.")
]
ReplayOption = Annotated[
    str | None,
    typer.Option("--replay", metavar="EVENT_ID", help="The id of a stored event of the server, or of --from, to use."),
]
ApproveOption = Annotated[
    list[str] | None, typer.Option("--approve", metavar="STEP", help="An approval step to approve. Repeatable.")
]
DeclineOption = Annotated[
    list[str] | None, typer.Option("--decline", metavar="STEP", help="An approval step to decline. Repeatable.")
]


def command(
    path: Annotated[Path, typer.Argument(help="The function's definition, or the folder with the definition.")],
    event: EventOption = None,
    then: ThenOption = None,
    replay: ReplayOption = None,
    from_url: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="The server with the --replay event.")
    ] = None,
    env: EnvOption = None,
    seed: Annotated[int | None, typer.Option(help="The seed of the generated event, if no event is given.")] = None,
    approve: ApproveOption = None,
    decline: DeclineOption = None,
    real_time: Annotated[bool, typer.Option("--real-time", help="Do not skip delays and retries.")] = False,
    no_containers: NoContainersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a function once and print each step when it ends. Delays are skipped, and waits without an event time out at
    once. Approvals are asked for at the terminal. The exit code is 1 if the run does not complete.

    Example: stepwell run functions/welcome --event '{"name": "user/signed.up", "data": {"plan": "pro"}}'
    Example: stepwell run functions/welcome --replay 01a22be8ce9d905e7491eb963752b6bb --from https://stepwell.example.com
    """
    import uvloop

    logging.getLogger("stepwell.runs").setLevel(logging.ERROR)  # the tree at the end shows the same
    function = _loaded(path)
    if replay is not None and event is not None:
        fail("pass --event or --replay, not both", 2)
    if replay is not None:
        first: Any = _stored_event(Client(env, url=from_url, key=os.environ.get("STEPWELL_FROM_KEY")), replay)
    else:
        first = json_argument(event, "--event") if event is not None else sample_event(function, path, seed)
    later = [json_argument(text, "--then") for text in then or ()]
    approval_prompt = ApprovalPrompt(function.normalised(), approve or (), decline or (), may_ask=not as_json)
    with (
        tempfile.TemporaryDirectory(prefix="stepwell-run-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        single = _SingleRun(Path(folder), real_time, no_containers, approval_prompt, quiet=as_json)
        run = runner.run(single.run(function, first, later, is_replay=replay is not None))
    _end(run, as_json=as_json)


def _end(run: RunView, *, as_json: bool) -> None:
    """Prints the run, and ends the command with code 1 if it did not complete."""
    if as_json:
        print_json(run)
    else:
        console.print()
        console.print(run_tree(run))
    if run["status"] != "completed":
        raise typer.Exit(1)


def _loaded(path: Path) -> LoadedFunction:
    from stepwell.project.load import LoadError, load
    from stepwell.project.only_on_aws import only_on_aws

    try:
        function = load(path)
    except LoadError as error:
        fail(str(error))
    for warning in (*function.warnings(), *only_on_aws(function)):
        warn(str(warning))
    return function


def _stored_event(client: Client, event_id: str) -> dict[str, Any]:
    """An event of a server, as it was sent."""
    event = client.get_by_id("/v1/events", "event", event_id)
    return {name: event[name] for name in ("name", "data", "user", "id", "ts", "v")}


class _SingleRun:
    """One run on a private platform, whose clock skips delays unless `real_time`."""

    def __init__(
        self, folder: Path, real_time: bool, no_containers: bool, approval_prompt: ApprovalPrompt, *, quiet: bool
    ) -> None:
        self._folder, self._real_time, self._no_containers = folder, real_time, no_containers
        self._approval_prompt = approval_prompt
        self._quiet = quiet
        self._shown: set[tuple[str, int]] = set()

    async def run(self, function: LoadedFunction, first: Any, later: list[Any], *, is_replay: bool) -> RunView:
        from stepwell.local.server import ServerSettings, open_server

        database, compiled = self._folder / "run.db", modules_cache()
        settings = ServerSettings(database, no_containers=self._no_containers, compiled=compiled)
        async with open_server(settings) as server:
            deployed = await server.deploy(function)
            if deployed.missing:
                fail("\n".join(deployed.missing))
            if is_replay:
                assert deployed.registered is not None
                run_id = await self._replay(server, deployed.registered, first)
                return await self._to_the_end(server, run_id, deque(later))
            event_id = await self._send(server, function.normalised(), first)
            page = server.queries.read_runs(event=event_id)
            if not page.items:
                self._not_started(server, event_id, function.definition.id)
            return await self._to_the_end(server, page.items[0].run.id, deque(later))

    async def _replay(self, server: LocalServer, registered: Registered, event: dict[str, Any]) -> str:
        """Runs the function on a stored event, without regard to triggers. Returns the run's id."""
        from stepwell.core.events.request import events_accepted_before

        events = events_accepted_before([event], server.platform.clock.now())
        done = await server.platform.runs.replay(registered.function_id, registered.version, events, "run")
        run_id = done[0].run_id if done else None
        assert run_id is not None
        return run_id

    async def _send(self, server: LocalServer, definition: dict[str, Any], event: Any) -> str:
        from stepwell.core.events.cron import tick_event
        from stepwell.core.events.events import event_from

        crons = [trigger["cron"] for trigger in definition["triggers"] if "cron" in trigger]
        if isinstance(event, dict) and event.get("name") == "stepwell/scheduled.timer" and crons:
            tick = event_from(tick_event(definition["id"], crons[0], server.platform.clock.now()))
            await server.platform.intake.tick(definition["id"], tick)
            return tick.id
        return await self._accept(server, event, "--event")

    async def _accept(self, server: LocalServer, event: Any, option: str) -> str:
        from stepwell.api.ingest.event_ids import new_event_id
        from stepwell.core.events.request import BadRequest, events_accepted_before, parse_events

        now = server.platform.clock.now()
        try:
            if isinstance(event, dict) and str(event.get("name")).startswith("stepwell/"):  # refused by parse_events
                (accepted,) = events_accepted_before([{"id": new_event_id(), **event}], now)
            else:
                (accepted,) = parse_events(orjson.dumps(event), now, new_event_id)
        except BadRequest as bad:
            fail("\n".join(f"{option}: {error.pointer} {error.message}".replace("  ", " ") for error in bad.errors), 2)
        except ValueError:
            fail(f"{option} must be one event, not {len(event)}", 2)
        await server.platform.send([accepted])
        return accepted.id

    def _not_started(self, server: LocalServer, event_id: str, function_id: str) -> NoReturn:
        detail = server.queries.read_event(event_id)
        assert detail is not None
        misses = orjson.loads(detail.misses) if detail.misses else []
        for miss in misses:
            reason = ": ".join(text for text in (miss["expression"], miss["problem"] or "is false") if text)
            fail(f"the event does not start {function_id}: {reason}")
        fail(f"{function_id} has no trigger for the event {detail.event.name!r}; pass another with --event")

    async def _to_the_end(self, server: LocalServer, run_id: str, later: deque[Any]) -> RunView:
        from stepwell.api.views.runs import run_view

        while True:
            found = server.queries.read_run(run_id)
            assert found is not None
            view = run_view(found, lambda: server.platform.links)
            self._show(view)
            if view["status"] != "running" and server.platform.virtual_time.is_idle:
                break
            if not server.platform.virtual_time.is_idle or not await self._move_on(server, view, later):
                await asyncio.sleep(0.01)
        for event in later:
            warn(f"--then {short(event)} was not sent; the run did not wait for it")
        return view

    async def _move_on(self, server: LocalServer, view: RunView, later: deque[Any]) -> bool:
        """Moves an idle run on: sends the next event to an open wait, decides on an approval, or skips time. Returns
        False if nothing can be done."""
        edges = [edge for step in view["steps"].values() for edge in step["after"]]
        if later and any(edge.get("state") == "awaiting" for edge in edges):
            event = later.popleft()
            self._print(f"[cyan]then[/]  {shown(event.get('name') if isinstance(event, dict) else event)}")
            await self._accept(server, event, "--then")
            return True
        if await self._approval_prompt.decide(server, view):
            return True
        if self._real_time or server.platform.virtual_time.next_due is None:
            return False
        skipped = server.platform.virtual_time.next_due - server.platform.clock.now()
        if skipped > 50:
            self._print(f"[dim]... {shown(elapsed(skipped / 1000))} later[/]")
        await server.platform.travel(max(0, skipped))
        return True

    def _show(self, view: RunView) -> None:
        for step_id, step in view["steps"].items():
            for attempt in step["attempts"]:
                if attempt["ended_at"] is None or (step_id, attempt["attempt"]) in self._shown:
                    continue
                self._shown.add((step_id, attempt["attempt"]))
                self._show_attempt(step_id, step, attempt)

    def _show_attempt(self, step_id: str, step: StepView, attempt: AttemptView) -> None:
        if self._quiet:
            return
        for line in attempt["logs"][:_QUIET_LOGS].splitlines():
            console.print(f"      [dim]{shown(step_id)} │[/] ", end="")
            console.print(line, markup=False, soft_wrap=True)
        text = status(attempt["status"])
        text.append(f"  {step_id}", "bold")
        text.append(f"  attempt {attempt['attempt']}, {duration(attempt['started_at'], attempt['ended_at'])}", "dim")
        if attempt["error"]:
            text.append(f"  {attempt['error']['message']}", "red")
        elif step["status"] == "completed":
            text.append(f"  {short(step['output'], 100)}")
        console.print(text, soft_wrap=True)

    def _print(self, text: str) -> None:
        if not self._quiet:
            console.print(text)
