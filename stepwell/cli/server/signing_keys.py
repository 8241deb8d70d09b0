"""`stepwell signing-keys`: the keys of an environment in AWS that sign approval links and outcomes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.ui.output import JsonOption, confirm, console, fail, print_json
from stepwell.core.times import time_text
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.aws.resources import Resources
    from stepwell.aws.signing.signing_keys import Keys

app = typer.Typer(
    help="Keys of an environment in AWS that sign approval links and outcomes: list, rotate, drop.",
    no_args_is_help=True,
)
_BREAKS = (
    "Open approval links that it signed lead nowhere; `stepwell approvals` shows new ones. What attempts that it signed"
    " for report is refused; each is taken for lost and made again, later than usual."
)
_SOON = "Lambdas that are running know of it within five minutes."

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_keys(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List signing keys: their ids, never the keys.

    Example: stepwell signing-keys list --env production
    """
    with _environment(env) as (ssm, resources):
        from stepwell.aws.signing.signing_keys import read_keys

        found = read_keys(ssm, resources.env)
    _show(found, as_json)


@app.command()
def rotate(
    drop_older: Annotated[
        bool, typer.Option(help="Let nothing count that another key signed; use it when a key has leaked.")
    ] = False,
    yes: YesOption = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign with a new key from now on. What older keys signed counts until they are dropped, at last after 367 days.

    Example: stepwell signing-keys rotate --env production
    """
    if drop_older and not yes and not confirm(f"Drop all older signing keys? {_BREAKS}", err=True):
        raise typer.Exit(1)
    with _environment(env) as (ssm, resources):
        from stepwell.aws.signing import signing_keys

        keys = signing_keys.rotate(ssm, resources, _now(), drop_older=drop_older)
    _show(keys, as_json)
    if not as_json:
        kept = "All older keys are dropped." if drop_older else "Links and attempts of the older keys stay valid."
        console.print(f"[green]{shown(keys.current.id)} signs now.[/] {shown(kept)} {shown(_SOON)}")


@app.command()
def drop(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as `signing-keys list` shows them.")],
    yes: YesOption = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let nothing count any longer that these keys signed.

    Example: stepwell signing-keys drop 0 --env production
    """
    if not yes and not confirm(f"Drop {', '.join(ids)}? {_BREAKS}", err=True):
        raise typer.Exit(1)
    with _environment(env) as (ssm, resources):
        from stepwell.aws.signing import signing_keys

        keys = signing_keys.drop(ssm, resources, ids)
    _show(keys, as_json)
    if not as_json:
        console.print(f"dropped {shown(', '.join(ids))}. {shown(_SOON)}")


@contextmanager
def _environment(env: str | None) -> Iterator[tuple[Any, Resources]]:
    """A client of SSM, and what the environment consists of. Ends the command if the keys cannot be changed so."""
    with aws():
        from stepwell.aws.deploy.account import Account
        from stepwell.aws.signing.signing_keys import CannotChange, NoKeys

        try:
            yield Account().ssm, resources_of(env)
        except (CannotChange, NoKeys) as error:
            fail(str(error))


def _show(keys: Keys, as_json: bool) -> None:
    rows: list[dict[str, str | bool | None]] = [
        {
            "id": key.id,
            "signs": key is keys.current,
            "made_at": time_text(key.made_at),
            "retired_at": None if key.retired_at is None else time_text(key.retired_at),
            "counts_until": None if (until := key.valid_until) is None else time_text(until),
        }
        for key in keys.all
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("key", "made", "signs", "counts until", box=None, header_style="dim")
    for row in rows:
        signs = "yes" if row["signs"] else f"until {row['retired_at']}"
        table.add_row(*(shown(str(text)) for text in (row["id"], row["made_at"], signs, row["counts_until"] or "")))
    console.print(table)


def _now() -> int:
    return time.time_ns() // 1_000_000
