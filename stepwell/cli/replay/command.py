"""`stepwell replay`: stored events run again, on one function.

The command has many parameters, since Typer makes an option of each.
"""

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

_PATIENCE_S = 60.0  # how long to wait for a server that is gone
_STATUSES = ("running", "completed", "failed", "cancelled")
_RATE = "50/s"


WhereOption = Annotated[str | None, typer.Option(metavar="CEL", help="Only events for which this is true.")]
StatusOption = Annotated[
    str | None, typer.Option(help="Only events whose latest run of the function has this status now.")
]
RedactOption = Annotated[
    list[str] | None,
    typer.Option("--redact", metavar="PATHS", help="Values that stay where they are: data.card.number,user.email"),
]


def command(
    function: Annotated[str | None, typer.Option(help="The one function that runs.")] = None,
    event: Annotated[str | None, typer.Option(help="Only events of this name.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    user: Annotated[str | None, typer.Option(help="Only events of this user.")] = None,
    where: WhereOption = None,
    status: StatusOption = None,
    version: Annotated[int | None, typer.Option(min=1, help="Of the function; else the live one.")] = None,
    rate: Annotated[str | None, typer.Option(help=f"50/s, 600/m, 1000/h; default {_RATE}.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which events it would be.")] = False,
    from_url: Annotated[str | None, typer.Option("--from", metavar="URL", help="Events of this server ...")] = None,
    to_url: Annotated[str | None, typer.Option("--to", metavar="URL", help="... run on that one.")] = None,
    from_env: Annotated[str | None, typer.Option(metavar="NAME", help="--from an environment in AWS.")] = None,
    to_env: Annotated[str | None, typer.Option(metavar="NAME", help="--to an environment in AWS.")] = None,
    hide: RedactOption = None,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Go on with a replay that was interrupted.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run stored events again, on one function, the oldest first. Each becomes a run that is marked as a replay; no
    other function starts. Without --event: those that the function's triggers name, and whose expressions hold.

    With --from and --to, events of one server run on another. Keys: STEPWELL_FROM_KEY, STEPWELL_TO_KEY; STEPWELL_KEY.

    Example: stepwell replay --function welcome --status failed --since 2h --rate 50/s
    """
    if resume is not None:
        others = (function, event, since, until, user, where, status, version, from_url, to_url, from_env, to_env, hide)
        replay, plan, journal = _resumed(resume, rate, alone=not dry_run and all(other is None for other in others))
    else:
        function = function or fail("name the one function that is to run: --function ID", 2)
        between = (moment(since, "--since"), moment(until, "--until"))
        choice = Choice(function, event, user, *between, _expression(where), _status(status))
        plan = _planned(_url(from_url, from_env, env), _url(to_url, to_env, env), choice, version, rate, hide)
        replay = secrets.token_hex(5)
        journal = Journal.in_memory() if dry_run else Journal.create(replay, asdict(plan))
    with _source(plan.source).session() as from_server, _target(plan.target).session() as to_server:
        Replaying(replay, plan, journal, from_server, to_server, quiet=as_json).run(dry_run=dry_run, ask=not yes)


def _url(url: str | None, own_env: str | None, env: str | None) -> str:
    """The address of a server that is named by its URL, by its own environment, or by that of both servers."""
    if url and own_env:
        fail("name a server by its URL or by its environment, not by both", 2)
    return Client(own_env or env, url=url).url


def _planned(
    source: str, target: str, choice: Choice, version: int | None, rate: str | None, hide: list[str] | None
) -> Plan:
    number = version or _live_version(_target(target), choice.function)
    plan = Plan(source, target, choice, number, _rate(rate or _RATE), _paths(hide))
    if plan.redact and not plan.is_pulled:
        fail("--redact is for events that go to another server: name it with --to, or theirs with --from", 2)
    return plan


def _source(url: str) -> Client:
    return Client(url=url, key=os.environ.get("STEPWELL_FROM_KEY"), patience_s=_PATIENCE_S)


def _target(url: str) -> Client:
    return Client(url=url, key=os.environ.get("STEPWELL_TO_KEY"), patience_s=_PATIENCE_S)


def _resumed(replay: str, rate: str | None, *, alone: bool) -> tuple[str, Plan, Journal]:
    """What a replay had begun. `alone`: no option was given with it that would change that."""
    if not alone:
        fail("--resume goes on as it was begun; of the other options it takes --rate, --yes and --json", 2)
    try:
        journal = Journal.open(replay)
    except (NoJournal, InUse) as error:
        fail(f"replay {replay}: {type(error).__doc__}")
    plan = journal.plan
    if plan is None:
        journal.delete()
        fail(f"replay {replay} was interrupted before it began; begin another")
    plan |= {"choice": Choice(**plan["choice"]), **({"rate": _rate(rate)} if rate else {})}
    return replay, Plan(**plan), journal


def _live_version(target: Client, function: str) -> int:
    version: int | None = target.get(f"/v1/functions/{in_path(function)}")["version"]
    return version or fail(f"function {function} is not live at {target.url}; name a version with --version")


def _status(text: str | None) -> str | None:
    if text is not None and text not in _STATUSES:
        fail(f"--status {text!r} is unknown; it is one of {', '.join(_STATUSES)}", 2)
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
