"""The command `stepwell`: puts the commands together. Who asks for one does not wait for the modules of all others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from stepwell import __version__
from stepwell.cli.lazy import lazy_group
from stepwell.core.terminal_text import visible
from stepwell.log_lines import log_lines

COMMANDS = {
    "init": ("commands.init:command", "Make a function from a template."),
    "validate": ("commands.validate:command", "Check definitions, with the place of every error."),
    "schema": ("commands.schema:command", "Print the JSON Schema by which editors complete definitions."),
    "dev": ("server.dev:command", "Start the server to develop with: it watches, and shows what every event did."),
    "serve": ("server.serve:command", "Start the server for production: keys, JSON logs, orderly SIGTERM."),
    "push": ("push.command:command", "Make functions live, on a server or in AWS."),
    "send": ("commands.send:command", "Send an event."),
    "run": ("run.command:command", "Run a function once, in process, and show its steps."),
    "cancel": ("commands.cancel:command", "Stop a run."),
    "rerun": ("commands.rerun:command", "Run the event of a run again."),
    "replay": ("replay.command:command", "Run stored events again, on one function."),
    "users": ("commands.users:command", "List users, newest first."),
    "import": ("commands.import_events:command", "Send the events of a file."),
    "versions": ("commands.versions:versions", "List the versions of a function, and how their runs do."),
    "promote": ("commands.versions:promote", "Make the canary live, or give it more of the new runs."),
    "rollback": ("commands.versions:rollback", "Take the canary away, or go back to an earlier version."),
    "pause": ("commands.versions:pause", "Start no runs of a function; its events are kept."),
    "resume": ("commands.versions:resume", "Start runs of a function again."),
    "approvals": ("commands.approvals:approvals", "List what waits for people."),
    "approve": ("commands.approvals:approve", "Approve what a run asks."),
    "decline": ("commands.approvals:decline", "Decline what a run asks."),
    "events": ("commands.events:app", "List events, newest first; show one."),
    "runs": ("commands.runs:app", "List runs, newest first; show one."),
    "functions": ("commands.functions:app", "List the functions that are live; show, delete or prune them."),
    "types": ("types.group:app", "What events must look like: push, list, check, compare, infer, generate code."),
    "webhooks": ("commands.webhooks:app", "Rules that make events of any sender's requests: push, list, try."),
    "backup": ("server.backup:command", "Write the database, and the code of its versions, to one file."),
    "restore": ("server.restore:command", "Make the database, and the code of its versions, from a backup."),
    "keys": ("server.keys:app", "Create, list and revoke the keys of a server."),
    "signing-keys": ("server.signing_keys:app", "Rotate the keys that sign approval links and outcomes in AWS."),
    "dead-letters": (
        "commands.dead_letters:app",
        "List what an environment in AWS gave up; send it to its queue again.",
    ),
    "policy": ("commands.policy:command", "Print the AWS permissions that a push, or another command, needs."),
    "secrets": ("commands.secrets:app", "Set what steps must not show."),
    "user": ("commands.user:app", "Show what happened to one user, or erase it."),
}


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # typer's, which may be click's or a copy of its own
        for name in ("message", "option_name"):
            if isinstance(text := getattr(error, name, None), str):
                setattr(error, name, visible(text))
        raise


class _Commands(lazy_group("stepwell.cli", COMMANDS)):  # type: ignore[misc]
    """What a command has against its arguments is shown without their control characters."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _plain_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _plain_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="stepwell",
    help="Send events; functions run. An event-driven queue and DAG engine with no SDK.",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Commands that use a server take --env, or STEPWELL_URL (default http://127.0.0.1:8288), and STEPWELL_KEY.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stepwell {__version__}")  # nothing is imported for that
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    log_lines()
    try:
        app()
    except Exception:
        from traceback import format_exc

        from stepwell.cli.ui.output import stderr

        stderr.print(format_exc(), markup=False, soft_wrap=True)
        sys.exit(1)
