"""The command `stepwell`: puts the commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell import __version__
from stepwell.cli import (
    approvals,
    cancel,
    dev,
    events,
    functions,
    import_events,
    init,
    keys,
    push,
    replay,
    rerun,
    routing,
    run,
    runs,
    secrets,
    send,
    serve,
    types,
    user,
    users,
    validate,
    webhooks,
)

app = typer.Typer(
    name="stepwell",
    help="Send events; functions run. An event-driven queue and DAG engine with no SDK.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Commands that use a server take --env, or STEPWELL_URL (default http://127.0.0.1:8288), and STEPWELL_KEY.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stepwell {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for module in (init, validate, dev, serve, push, send, run, cancel, rerun, replay, users):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.command("import")(import_events.command)  # no module can be called so
for routed in (routing.versions, routing.promote, routing.rollback, routing.pause, routing.resume):
    app.command(routed.__name__)(routed)
for asked in (approvals.approvals, approvals.approve, approvals.decline):
    app.command(asked.__name__)(asked)
for group in (events, runs, functions, types, webhooks, keys, secrets, user):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


def main() -> None:
    app()
