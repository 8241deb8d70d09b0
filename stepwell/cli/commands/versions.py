"""`stepwell versions`, `promote`, `rollback`, `pause` and `resume`: which version of a function its new runs use."""

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
    """List the versions of a function, the newest first: which part of new runs uses each, and how its runs do (of the
    newest 1,000).

    Example: stepwell versions welcome
    """
    found = Client(env).get(f"/v1/functions/{in_path(function)}/versions")["data"]
    if as_json:
        print_json(found)
    else:
        console.print(version_table(found))


def promote(
    function: FunctionArgument,
    weight: Annotated[str | None, typer.Option(help="Only give the canary this share, such as 50%.")] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the canary live: all new runs use it. Open runs keep their version.

    Example: stepwell promote welcome --weight 50%
    """
    body = {} if weight is None else {"weight": share(weight)}
    _change(function, "promote", body, env, as_json)


def rollback(
    function: FunctionArgument,
    to: Annotated[int | None, typer.Option(min=1, help="The version; default: the one that was live before.")] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the canary away, or make the version live that was so before. Open runs keep their version. Types of events
    stay as they are; those that came with what is rolled back are named.

    Example: stepwell rollback welcome --to 3
    """
    routing = _change(function, "rollback", {} if to is None else {"to": to}, env, as_json)
    if not as_json:
        where = f" --env {env}" if env else ""
        for item in routing["types"]:
            command = f"stepwell types default {shlex.quote(item['name'])} {shlex.quote(item['before'])}{where}"
            came = f"{item['name']} {item['version']} came later than v{routing['live']}"
            warn(f"{came}, and still counts for events without `v`; to go back to {item['before']}: {command}")


def pause(
    function: FunctionArgument,
    drop: Annotated[bool, typer.Option("--drop", help="Drop events instead of keeping them.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start no runs of a function: events that would start it are kept until `resume`. Open runs go on.

    Example: stepwell pause welcome
    """
    _change(function, "pause", {"drop": drop}, env, as_json)


def resume(function: FunctionArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Start runs again: first those of events that were kept, in the order in which they came.

    Example: stepwell resume welcome
    """
    _change(function, "resume", {}, env, as_json)


def _change(function: str, how: str, body: dict[str, Any], env: str | None, as_json: bool) -> Any:
    routing = Client(env).post(f"/v1/functions/{in_path(function)}/{how}", body)
    if as_json:
        print_json(routing)
    else:
        console.print(routing_text(routing))
    return routing
