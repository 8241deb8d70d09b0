"""`stepwell secrets`: secret values of steps, which are stored outside of versions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.ui.output import JsonOption, ask, console, fail, print_json
from stepwell.core.definition.field_validators import variable
from stepwell.terminal import shown

app = typer.Typer(help="Set, list and remove the secrets of an environment in AWS.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The secret's name, as in `secrets` of a step.")]


@app.command("set")
def set_(
    name: NameArgument,
    value: Annotated[
        str | None, typer.Option(help="The value; stdin is safer, because shells and process lists show options.")
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a secret. Running attempts keep the old value; later attempts get the new one.

    Example: stepwell secrets set STRIPE_KEY --env production < stripe-key.txt
    """
    try:
        variable(name)
    except ValueError as error:
        fail(str(error), 2)
    content = _value(value)
    with aws():
        from stepwell.aws.deploy.account import Account
        from stepwell.aws.deploy.values import set_secret

        resources, account = resources_of(env), Account()
        renewed = set_secret(account.ssm, account.lambda_, resources, name, content)
    if as_json:
        print_json({"name": name, "renewed": renewed})
    else:
        console.print(f"[green]set[/] {shown(name)} [dim]{len(renewed)} Lambdas restart with the new value[/]")


@app.command("list")
def list_secrets(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the names of secrets. Values are never shown.

    Example: stepwell secrets list --env production
    """
    with aws():
        from stepwell.aws.deploy import values
        from stepwell.aws.deploy.account import Account

        secrets = values.list_secrets(Account().ssm, resources_of(env).env)
    rows = [
        {"name": secret.name, "version": secret.version, "changed_at": _time(secret.changed_at)} for secret in secrets
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("secret", "version", "set", box=None, header_style="dim")
    for row in rows:
        table.add_row(*(shown(row[name]) for name in ("name", "version", "changed_at")))
    console.print(table)


@app.command()
def remove(name: NameArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Remove a secret. Steps that need it can no longer start.

    Example: stepwell secrets remove STRIPE_KEY --env production
    """
    with aws():
        from stepwell.aws.deploy.account import Account
        from stepwell.aws.deploy.values import remove_secret

        removed = remove_secret(Account().ssm, resources_of(env).env, name)
    if not removed:
        fail(f"there is no secret {name}; `stepwell secrets list` lists the names")
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        console.print(f"removed {shown(name)}")


def _value(given: str | None) -> str:
    """The value of the option, else of stdin without the last newline. Ends the command if it is empty."""
    if given is None and sys.stdin.isatty():
        given = ask("Value", hide=True)
    value = given if given is not None else sys.stdin.read().removesuffix("\n")
    if not value:
        fail("the value is empty; pass it on stdin, or with --value", 2)
    return value


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
