"""`stepwell cancel`: cancels a run."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, print_json
from stepwell.terminal import shown


def command(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a run. Steps that have not ended are cancelled, and running programs are killed.

    Example: stepwell cancel t274kall7kl67sasotbuysxvpu
    """
    answer = Client(env).delete(f"/v1/runs/{in_path(run)}")
    if as_json:
        print_json(answer)
    else:
        console.print(f"[yellow]cancelled[/] {shown(run)}")
