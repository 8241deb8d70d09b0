"""`stepwell rerun`: runs the event of a run again."""

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
        str | None, typer.Option("--from-step", help="The step to start from; results of earlier steps are kept.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option("--with", help="Other outputs for kept steps, by step id: JSON, @file, or - for stdin."),
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the event of a run again, on the live version, from the start or from a step.

    Example: stepwell rerun t274kall7kl67sasotbuysxvpu --from-step step-2 --with '{"step-1": {"total": 12}}'
    """
    if outputs is not None and from_step is None:
        fail("--with changes outputs of kept steps, so it needs --from-step; add it", 2)
    body = None if from_step is None else {"from_step": from_step}
    if body is not None and outputs is not None:
        body = {**body, "outputs": json_argument(outputs, "--with")}
    answer = Client(env).post(f"/v1/runs/{in_path(run)}/rerun", body)
    if as_json:
        print_json(answer)
    else:
        console.print(f"[green]started[/] {shown(answer['id'])} [dim](version {shown(answer['function_version'])})[/]")
