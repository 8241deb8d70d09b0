"""`stepwell send`: sends an event."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, json_argument, print_json
from stepwell.terminal import shown


def command(
    name: Annotated[str, typer.Argument(help="The event's name, such as user/signed.up.")],
    data: Annotated[str, typer.Option("--data", "-d", help="The event's data: JSON, @file, or - for stdin.")] = "{}",
    user: Annotated[str, typer.Option("--user", "-u", help="The event's user: JSON, @file, or - for stdin.")] = "{}",
    id: Annotated[
        str | None, typer.Option("--id", help="The event's id; an event with the same id is accepted only once.")
    ] = None,
    v: Annotated[str | None, typer.Option("--v", help="The version of the event's type.")] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an event.

    Example: stepwell send user/signed.up --data '{"plan": "pro"}' --user '{"email": "ada@example.com"}'
    """
    event = {"name": name, "data": json_argument(data, "--data"), "user": json_argument(user, "--user")}
    event |= {field: value for field, value in (("id", id), ("v", v)) if value is not None}
    answer = Client(env).post("/e", event)
    if as_json:
        print_json(answer)
        return
    (event_id,) = answer["ids"]
    where = f" --env {shown(env)}" if env not in (None, os.environ.get("STEPWELL_ENV")) else ""
    console.print(f"[green]sent[/] {shown(name)}")
    console.print(f"[dim]stepwell events show {shown(event_id)}{where}[/]", soft_wrap=True)
