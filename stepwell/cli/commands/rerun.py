"""`stepwell rerun`: run a run's event again."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, fail, json_argument, print_json
from stepwell.terminal import shown


def command(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    from_step: Annotated[
        str | None, typer.Option("--from-step", help="Go on from this step, and keep what ended before it.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option("--with", help="Outputs of kept steps instead of their own, by step: JSON, @file, or -."),
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the same event again, on the version that is live now; from the start, or from a step.

    Example: stepwell rerun 7w2kq4m1 --from-step step-2 --with '{"step-1": {"total": 12}}'
    """
    if outputs is not None and from_step is None:
        fail("--with edits what is kept, so it needs --from-step; add it", 2)
    body = None if from_step is None else {"from_step": from_step}
    if body is not None and outputs is not None:
        body = {**body, "outputs": json_argument(outputs, "--with")}
    answer = Client(env).post(f"/v1/runs/{in_path(run)}/rerun", body)
    if as_json:
        print_json(answer)
    else:
        console.print(f"[green]started[/] {shown(answer['id'])} [dim](version {shown(answer['function_version'])})[/]")
