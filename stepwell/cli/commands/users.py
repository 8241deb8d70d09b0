"""`stepwell users`: lists the users of events."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, print_json
from stepwell.cli.ui.tables import local_time, short
from stepwell.terminal import shown


def command(
    limit: Annotated[int, typer.Option(min=1, help="The number of users to list.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List users with several ids or with traits, newest first.

    Example: stepwell users --limit 5
    """
    users = list(Client(env).pages("/v1/users", limit))
    if as_json:
        print_json(users)
        return
    if not users:
        console.print("no users; an event creates one if its `user` has several ids, or traits")
        return
    table = Table("user", "known since", "other ids", "traits", box=None, header_style="dim", pad_edge=False)
    for user in users:
        others = ", ".join(item for ids in user["ids"].values() for item in ids if item != user["id"])
        traits = short({name: trait["value"] for name, trait in user["traits"].items()})
        table.add_row(shown(user["id"]), local_time(user["known_since"]), shown(others), shown(traits))
    console.print(table)
