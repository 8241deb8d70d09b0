"""`stepwell runs`: lists runs, and shows one."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, print_json
from stepwell.cli.ui.tables import run_table
from stepwell.cli.ui.times import SinceOption, UntilOption, moment
from stepwell.cli.ui.tree import approval_links, run_tree

app = typer.Typer(invoke_without_command=True)


@app.callback()
def command(
    context: typer.Context,
    function: Annotated[str | None, typer.Option(help="The id of the runs' function.")] = None,
    status: Annotated[str | None, typer.Option(help="The status: running, completed, failed or cancelled.")] = None,
    user: Annotated[str | None, typer.Option(help="The user of the runs: external_id, id, email or phone.")] = None,
    replay: Annotated[str | None, typer.Option(help="The id of the replay that started the runs.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of runs to list.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first.

    Example: stepwell runs --status failed --user ada@example.com
    """
    if context.invoked_subcommand is not None:
        return
    filters = {"function": function, "status": status, "user": user, "replay": replay}
    between = {"since": moment(since, "--since"), "until": moment(until, "--until")}
    runs = list(Client(env).pages("/v1/runs", limit, **filters, **between))
    if as_json:
        print_json(runs)
    elif runs:
        console.print(run_table(runs))
    else:
        console.print("no runs")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait until the run has ended.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="Print the logs of the steps too.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run as a tree: steps, attempts, timings, outputs, errors and waits. With --follow, the exit code is 1 if
    the run did not complete.

    Example: stepwell runs show t274kall7kl67sasotbuysxvpu --follow
    """
    client = Client(env)
    found = client.get(f"/v1/runs/{in_path(run)}")
    printed: set[str] = set()
    if follow and not as_json and console.is_terminal:
        from rich.live import Live

        with Live(run_tree(found, logs=logs), console=console, refresh_per_second=10) as live:
            while found["status"] == "running":
                _print_links(found, printed)
                time.sleep(0.2)
                found = client.get(f"/v1/runs/{in_path(run)}")
                live.update(run_tree(found, logs=logs))
    else:
        while follow and found["status"] == "running":
            if not as_json:
                _print_links(found, printed)
            time.sleep(0.2)
            found = client.get(f"/v1/runs/{in_path(run)}")
        print_json(found) if as_json else console.print(run_tree(found, logs=logs))
    if not as_json:
        _print_links(found, printed)
    if follow and found["status"] != "completed":
        raise typer.Exit(1)


def _print_links(run: dict[str, Any], printed: set[str]) -> None:
    """Prints each approval link once, while the run is followed: the run does not continue until someone decides."""
    for line in approval_links(run):
        if line.plain not in printed:
            printed.add(line.plain)
            console.print(line, soft_wrap=True)
