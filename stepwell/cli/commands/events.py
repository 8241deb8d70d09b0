"""`stepwell events`: lists events, and shows one."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, print_json
from stepwell.cli.ui.tables import event_lines, event_table
from stepwell.cli.ui.times import SinceOption, UntilOption, moment

app = typer.Typer(invoke_without_command=True)


@app.callback()
def command(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="The name of the events.")] = None,
    user: Annotated[str | None, typer.Option(help="The user of the events: external_id, id, email or phone.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of events to list.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List events, newest first.

    Example: stepwell events --name user/signed.up --limit 5
    """
    if context.invoked_subcommand is not None:
        return
    between = {"since": moment(since, "--since"), "until": moment(until, "--until")}
    events = list(Client(env).pages("/v1/events", limit, name=name, user=user, **between))
    if as_json:
        print_json(events)
    elif events:
        console.print(event_table(events))
    else:
        console.print("no events; `stepwell send NAME` sends one")


@app.command()
def show(
    event: Annotated[str, typer.Argument(help="The event's id.")], env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Show an event, the runs it started, and why other functions did not start.

    Example: stepwell events show 01a22be8ce9d905e7491eb963752b6bb
    """
    client = Client(env)
    found = client.get_by_id("/v1/events", "event", event)
    runs = client.get("/v1/runs", event=event)["data"]
    if as_json:
        print_json({**found, "runs": runs})
    else:
        console.print(event_lines(found, runs))
