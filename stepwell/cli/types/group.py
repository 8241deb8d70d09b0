"""`stepwell types`: the subcommands for event types, on disk and on a server."""

from __future__ import annotations

import typer

from stepwell.cli.types import check, diff, generate, infer, server

app = typer.Typer(no_args_is_help=True, help="Manage event types: JSON Schemas by event name and version.")

for module in (check, diff, infer, generate):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.command()(server.push)
app.command("list")(server.list_types)
for command in (
    server.show,
    server.default,
    server.remove,
    server.policy,
    server.unknown,
):
    app.command()(command)
