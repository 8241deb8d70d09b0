"""`stepwell functions`: what is live."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.client import Client, in_path
from stepwell.cli.output import JsonOption, console, print_json
from stepwell.cli.tables import function_lines, function_table

app = typer.Typer(invoke_without_command=True)


@app.callback()
def command(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the functions that are live, with their versions and triggers.

    Example: stepwell functions --json
    """
    if context.invoked_subcommand is not None:
        return
    functions = Client().get("/v1/functions")["data"]
    if as_json:
        print_json(functions)
    elif functions:
        console.print(function_table(functions))
    else:
        console.print("no functions are live; `stepwell init` makes one")


@app.command()
def show(function: Annotated[str, typer.Argument(help="The function's id.")], as_json: JsonOption = False) -> None:
    """Show a function: its versions, what starts it, and its steps as they are defined.

    Example: stepwell functions show welcome
    """
    found = Client().get(f"/v1/functions/{in_path(function)}")
    if as_json:
        print_json(found)
    else:
        console.print(function_lines(found))
