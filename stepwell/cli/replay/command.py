"""`stepwell replay`: runs stored events again, on one function."""

from __future__ import annotations

import os
import secrets
from dataclasses import asdict
from typing import Annotated

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.replay.execution import Plan, Replaying
from stepwell.cli.replay.journal import InUse, Journal, NoJournal
from stepwell.cli.replay.redact import read_paths
from stepwell.cli.replay.selection import Choice
from stepwell.cli.ui.output import JsonOption, fail
from stepwell.cli.ui.rate_limit import per_second
from stepwell.cli.ui.times import SinceOption, UntilOption, moment
from stepwell.core.cel.expressions import ExpressionError, Scope, compile_expression

_RETRY_FOR_S = 60.0  # how long to wait for a server that does not answer
_STATUSES = ("running", "completed", "failed", "cancelled")
_RATE = "50/s"


WhereOption = Annotated[str | None, typer.Option(metavar="CEL", help="An expression that must be true of the event.")]
StatusOption = Annotated[str | None, typer.Option(help="The current status of the event's latest run of the function.")]
RedactOption = Annotated[
    list[str] | None,
    typer.Option(
        "--redact", metavar="PATHS", help="Values to replace before events are copied: data.card.number,user.email"
    ),
]


def command(
    function: Annotated[str | None, typer.Option(help="The id of the function to run.")] = None,
    event: Annotated[str | None, typer.Option(help="The name of the events.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    user: Annotated[str | None, typer.Option(help="The user of the events: external_id, id, email or phone.")] = None,
    where: WhereOption = None,
    status: StatusOption = None,
    version: Annotated[int | None, typer.Option(min=1, help="The version of the function; default: live.")] = None,
    rate: Annotated[str | None, typer.Option(help=f"The highest rate: 50/s, 600/m, 1000/h; default: {_RATE}.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the events that would run; start nothing.")] = False,
    from_url: Annotated[str | None, typer.Option("--from", metavar="URL", help="The server with the events.")] = None,
    to_url: Annotated[str | None, typer.Option("--to", metavar="URL", help="The server that runs the events.")] = None,
    from_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment in AWS with the events.")
    ] = None,
    to_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment in AWS that runs the events.")
    ] = None,
    hide: RedactOption = None,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="The id of an interrupted replay to continue.")] = (
        None
    ),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run stored events again on one function, oldest first. Each event starts a run that is marked as a replay; no
    other function starts. Without --event, all events that satisfy the function's triggers run. With --from and --to,
    events of one server run on another. The API keys are STEPWELL_FROM_KEY and STEPWELL_TO_KEY, or STEPWELL_KEY for
    both.

    Example: stepwell replay --function welcome --status failed --since 2h --rate 50/s
    """
    if resume is not None:
        options = (
            *(function, event, since, until, user, where, status, version),
            *(from_url, to_url, from_env, to_env, hide),
        )
        is_alone = not dry_run and all(option is None for option in options)
        replay, plan, journal = _resumed(resume, rate, alone=is_alone)
    else:
        function = function or fail("no function is given; pass --function ID", 2)
        between = (moment(since, "--since"), moment(until, "--until"))
        choice = Choice(function, event, user, *between, _expression(where), _status(status))
        plan = _planned(_url(from_url, from_env, env), _url(to_url, to_env, env), choice, version, rate, hide)
        replay = secrets.token_hex(5)
        journal = Journal.in_memory() if dry_run else Journal.create(replay, asdict(plan))
    with _source(plan.source).session() as from_server, _target(plan.target).session() as to_server:
        Replaying(replay, plan, journal, from_server, to_server, quiet=as_json).run(dry_run=dry_run, ask=not yes)


def _url(url: str | None, own_env: str | None, env: str | None) -> str:
    """The address of one server: its URL, else the address of `own_env`, else that of `env`, which is for both
    servers."""
    if url and own_env:
        fail("name a server by URL or by environment, not by both", 2)
    return Client(own_env or env, url=url).url


def _planned(
    source: str, target: str, choice: Choice, version: int | None, rate: str | None, hide: list[str] | None
) -> Plan:
    number = version or _live_version(_target(target), choice.function)
    plan = Plan(source, target, choice, number, _rate(rate or _RATE), _paths(hide))
    if plan.redact and not plan.is_pulled:
        fail("--redact needs two servers; pass the other one with --to or --from", 2)
    return plan


def _source(url: str) -> Client:
    return Client(url=url, key=os.environ.get("STEPWELL_FROM_KEY"), retry_for_s=_RETRY_FOR_S)


def _target(url: str) -> Client:
    return Client(url=url, key=os.environ.get("STEPWELL_TO_KEY"), retry_for_s=_RETRY_FOR_S)


def _resumed(replay: str, rate: str | None, *, alone: bool) -> tuple[str, Plan, Journal]:
    """The id, plan and journal of an interrupted replay. `alone`: no option was given that would change the plan."""
    if not alone:
        fail("--resume continues the replay unchanged; it can only be combined with --rate, --yes and --json", 2)
    try:
        journal = Journal.open(replay)
    except (NoJournal, InUse) as error:
        fail(f"replay {replay}: {error}")
    plan = journal.plan
    if plan is None:
        journal.delete()
        fail(f"replay {replay} was interrupted before it began; start a new one")
    plan |= {"choice": Choice(**plan["choice"]), **({"rate": _rate(rate)} if rate else {})}
    return replay, Plan(**plan), journal


def _live_version(target: Client, function: str) -> int:
    version: int | None = target.get(f"/v1/functions/{in_path(function)}")["version"]
    return version or fail(f"function {function} is not live at {target.url}; name a version with --version")


def _status(text: str | None) -> str | None:
    if text is not None and text not in _STATUSES:
        fail(f"--status {text!r} is not a status; use one of {', '.join(_STATUSES)}", 2)
    return text


def _expression(text: str | None) -> str | None:
    try:
        if text is not None:
            compile_expression(text, Scope.TRIGGER)
    except ExpressionError as error:
        fail(f"--where, column {error.column}: {error.message}", 2)
    return text


def _rate(text: str) -> float:
    try:
        return per_second(text)
    except ValueError as error:
        fail(f"--rate: {error}", 2)


def _paths(texts: list[str] | None) -> list[list[str]]:
    try:
        return [list(path) for path in read_paths(texts or ())]
    except ValueError as error:
        fail(f"--redact: {error}", 2)
