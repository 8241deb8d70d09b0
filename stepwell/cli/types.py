"""`stepwell types`: the types of events, on disk and on a server."""

from __future__ import annotations

import typer

from stepwell.cli import types_check, types_diff, types_generate, types_infer, types_server

app = typer.Typer(no_args_is_help=True, help="The types of events: JSON Schemas by name and version.")

for module in (types_check, types_diff, types_infer, types_generate):
    app.command(module.__name__.rpartition("_")[2])(module.command)
app.command()(types_server.push)
app.command("list")(types_server.list_types)
for command in (
    types_server.show,
    types_server.default,
    types_server.remove,
    types_server.policy,
    types_server.unknown,
):
    app.command()(command)
