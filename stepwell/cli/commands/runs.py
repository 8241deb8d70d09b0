"""`stepwell runs`: what ran, and how.

The command has many parameters, since Typer makes an option of each.
"""

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
    function: Annotated[str | None, typer.Option(help="Only runs of this function.")] = None,
    status: Annotated[str | None, typer.Option(help="running, completed, failed or cancelled.")] = None,
    user: Annotated[str | None, typer.Option(help="Only runs of this user.")] = None,
    replay: Annotated[str | None, typer.Option(help="Only runs of this replay.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first.

    Example: stepwell runs --status failed --user ada@example.com
    """
    if context.invoked_subcommand is not None:
        return
    asked = {"function": function, "status": status, "user": user, "replay": replay}
    between = {"since": moment(since, "--since"), "until": moment(until, "--until")}
    runs = list(Client(env).pages("/v1/runs", limit, **asked, **between))
    if as_json:
        print_json(runs)
    elif runs:
        console.print(run_table(runs))
    else:
        console.print("no runs")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the run has ended.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="With what its steps logged.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run as a tree: steps, attempts, timings, outputs, errors and waits. With --follow, exit code 1 tells that
    the run did not complete.

    Example: stepwell runs show 7w2kq4m1 --follow
    """
    client = Client(env)
    found = client.get(f"/v1/runs/{in_path(run)}")
    items: set[str] = set()
    if follow and not as_json and console.is_terminal:
        from rich.live import Live

        with Live(run_tree(found, logs=logs), console=console, refresh_per_second=10) as live:
            while found["status"] == "running":
                _tell_links(found, items)
                time.sleep(0.2)
                found = client.get(f"/v1/runs/{in_path(run)}")
                live.update(run_tree(found, logs=logs))
    else:
        while follow and found["status"] == "running":
            if not as_json:
                _tell_links(found, items)
            time.sleep(0.2)
            found = client.get(f"/v1/runs/{in_path(run)}")
        print_json(found) if as_json else console.print(run_tree(found, logs=logs))
    if not as_json:
        _tell_links(found, items)
    if follow and found["status"] != "completed":
        raise typer.Exit(1)


def _tell_links(run: dict[str, Any], items: set[str]) -> None:
    """Print where people decide, each link once: a run that is followed waits for somebody who has it."""
    for line in approval_links(run):
        if line.plain not in items:
            items.add(line.plain)
            console.print(line, soft_wrap=True)
