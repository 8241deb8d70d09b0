"""`stepwell rerun`: run a run's event again."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.client import Client, in_path
from stepwell.cli.environments import EnvOption
from stepwell.cli.output import JsonOption, console, print_json


def command(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the same event again, on the version that is live now.

    Example: stepwell rerun 7w2kq4m1
    """
    answer = Client(env).post(f"/v1/runs/{in_path(run)}/rerun")
    if as_json:
        print_json(answer)
    else:
        console.print(f"[green]started[/] {answer['id']} [dim](version {answer['function_version']})[/]")
