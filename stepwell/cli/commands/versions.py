"""`stepwell versions`, `promote`, `rollback`, `pause` and `resume`: control the version that new runs use."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, print_json, warn
from stepwell.cli.ui.shares import share
from stepwell.cli.ui.tables import routing_text, version_table

FunctionArgument = Annotated[str, typer.Argument(help="The function's id.")]


def versions(function: FunctionArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the versions of a function, newest first: the share of new runs, and failure rate and duration of the newest
    1,000 runs.

    Example: stepwell versions welcome
    """
    found = Client(env).get(f"/v1/functions/{in_path(function)}/versions")["data"]
    if as_json:
        print_json(found)
    else:
        console.print(version_table(found))


def promote(
    function: FunctionArgument,
    weight: Annotated[
        str | None, typer.Option(help="The canary's share of new runs, such as 50%; default: all.")
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the canary live, so that all new runs use it, or change the canary's share of new runs. Open runs keep their
    version.

    Example: stepwell promote welcome --weight 50%
    """
    body = {} if weight is None else {"weight": share(weight)}
    _change(function, "promote", body, env, as_json)


def rollback(
    function: FunctionArgument,
    to: Annotated[int | None, typer.Option(min=1, help="The version to make live; default: the previous one.")] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the canary; without a canary, make the previous version live. Open runs keep their version. Event types
    are not rolled back; the command prints the ones that are newer than the version that is live now.

    Example: stepwell rollback welcome --to 3
    """
    routing = _change(function, "rollback", {} if to is None else {"to": to}, env, as_json)
    if not as_json:
        where = f" --env {env}" if env else ""
        for item in routing["types"]:
            command = f"stepwell types default {shlex.quote(item['name'])} {shlex.quote(item['before'])}{where}"
            newer = f"type {item['name']} {item['version']} is newer than v{routing['live']}"
            warn(f"{newer}, and still the default for events without `v`; to go back to {item['before']}: {command}")


def pause(
    function: FunctionArgument,
    drop: Annotated[bool, typer.Option("--drop", help="Discard events instead of keeping them.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause a function. Events that would start it are kept until `stepwell resume`. Open runs continue.

    Example: stepwell pause welcome
    """
    _change(function, "pause", {"drop": drop}, env, as_json)


def resume(function: FunctionArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Resume a paused function. Events that were kept during the pause start their runs first, in order of arrival.

    Example: stepwell resume welcome
    """
    _change(function, "resume", {}, env, as_json)


def _change(function: str, action: str, body: dict[str, Any], env: str | None, as_json: bool) -> Any:
    routing = Client(env).post(f"/v1/functions/{in_path(function)}/{action}", body)
    if as_json:
        print_json(routing)
    else:
        console.print(routing_text(routing))
    return routing
