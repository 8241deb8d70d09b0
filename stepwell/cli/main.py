"""The `stepwell` command. Each subcommand's module is imported only when that subcommand is used."""

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
    "init": ("commands.init:command", "Create a function from a template."),
    "validate": ("commands.validate:command", "Check definitions and print the place of every error."),
    "schema": ("commands.schema:command", "Print the JSON Schema with which editors complete definitions."),
    "dev": ("server.dev:command", "Start the development server: it watches files and prints what each event did."),
    "serve": ("server.serve:command", "Start the production server: API keys, JSON logs, graceful shutdown."),
    "push": ("push.command:command", "Deploy functions to a server or to AWS."),
    "send": ("commands.send:command", "Send an event."),
    "run": ("run.command:command", "Run a function once, without a server, and print the steps."),
    "cancel": ("commands.cancel:command", "Cancel a run."),
    "rerun": ("commands.rerun:command", "Run the event of a run again, from the start or from a step."),
    "replay": ("replay.command:command", "Run stored events again, on one function."),
    "users": ("commands.users:command", "List users, newest first."),
    "import": ("commands.import_events:command", "Send the events of a file."),
    "versions": ("commands.versions:versions", "List the versions of a function and their failure rates."),
    "promote": ("commands.versions:promote", "Make the canary live, or change the canary's share of new runs."),
    "rollback": ("commands.versions:rollback", "Remove the canary, or go back to an earlier version."),
    "pause": ("commands.versions:pause", "Pause a function: no new runs start, and events are kept."),
    "resume": ("commands.versions:resume", "Resume a paused function."),
    "approvals": ("commands.approvals:approvals", "List open approvals."),
    "approve": ("commands.approvals:approve", "Approve a step that waits for a decision."),
    "decline": ("commands.approvals:decline", "Decline a step that waits for a decision."),
    "events": ("commands.events:app", "List events, newest first; show one."),
    "runs": ("commands.runs:app", "List runs, newest first; show one."),
    "functions": ("commands.functions:app", "List live functions; show, retire, delete or prune them."),
    "types": ("types.group:app", "Manage event types: push, list, check, compare, infer, generate code."),
    "webhooks": ("commands.webhooks:app", "Manage webhooks, which turn requests of any sender into events."),
    "sources": ("commands.sources:app", "Manage sources, which turn records of other queues into events."),
    "limits": ("commands.limits:limits", "List the limits of functions, with what waits for them, and set them."),
    "workers": ("commands.workers:app", "List and stop the Faktory workers that are connected to a server."),
    "backup": ("server.backup:command", "Write the database and the code of all versions to one file."),
    "restore": ("server.restore:command", "Restore the database and the code of all versions from a backup."),
    "keys": ("server.keys:app", "Create, list and revoke API keys."),
    "signing-keys": ("server.signing_keys:app", "Rotate the keys that sign approval links and outcomes in AWS."),
    "dead-letters": (
        "commands.dead_letters:app",
        "List and redrive the dead letters of an environment in AWS.",
    ),
    "policy": ("commands.policy:command", "Print the IAM policy that a push, or another command, needs."),
    "secrets": ("commands.secrets:app", "Set, list and remove the secrets of an environment in AWS."),
    "user": ("commands.user:app", "Show the history of a user, or erase the user's data."),
}


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a usage error of click, or of the copy of click that typer may contain
        for name in ("message", "option_name"):
            if isinstance(text := getattr(error, name, None), str):
                setattr(error, name, visible(text))
        raise


class _Commands(lazy_group("stepwell.cli", COMMANDS)):  # type: ignore[misc]
    """Replaces control characters of the arguments in the messages of usage errors."""

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
    epilog="Commands that call a server use --env, or STEPWELL_URL (default http://127.0.0.1:8288), and STEPWELL_KEY.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stepwell {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
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
