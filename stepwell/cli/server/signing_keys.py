"""`stepwell signing-keys`: the keys that sign approval links and outcomes of an environment in AWS."""

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
    help="List, rotate and drop the keys that sign approval links and outcomes of an environment in AWS.",
    no_args_is_help=True,
)
_CONSEQUENCES = (
    "Open approval links that they signed stop working; `stepwell approvals` prints new ones. Outcomes of attempts that"
    " started under these keys are refused; each such attempt is later closed as lost and started again."
)
_DELAY = "Running Lambdas use the change within five minutes."

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")]


@app.command("list")
def list_keys(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the ids of all signing keys. The keys themselves are never shown.

    Example: stepwell signing-keys list --env production
    """
    with _environment(env) as (ssm, resources):
        from stepwell.aws.signing.signing_keys import read_keys

        found = read_keys(ssm, resources.env)
    _show(found, as_json)


@app.command()
def rotate(
    drop_older: Annotated[
        bool, typer.Option(help="Reject everything that older keys signed. Use it when a key has leaked.")
    ] = False,
    yes: YesOption = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a new key, which signs from now on. Signatures of older keys stay valid until those keys are dropped, for
    at most 367 days.

    Example: stepwell signing-keys rotate --env production
    """
    if drop_older and not yes and not confirm(f"Drop all older signing keys? {_CONSEQUENCES}", err=True):
        raise typer.Exit(1)
    with _environment(env) as (ssm, resources):
        from stepwell.aws.signing import signing_keys

        keys = signing_keys.rotate(ssm, resources, _now(), drop_older=drop_older)
    _show(keys, as_json)
    if not as_json:
        older = "All older keys are dropped." if drop_older else "Links and attempts of older keys stay valid."
        console.print(f"[green]{shown(keys.current.id)} signs now.[/] {shown(older)} {shown(_DELAY)}")


@app.command()
def drop(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Key ids, from `stepwell signing-keys list`.")],
    yes: YesOption = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop keys. Signatures of these keys are rejected from now on.

    Example: stepwell signing-keys drop mfzg2zlo --env production
    """
    if not yes and not confirm(f"Drop {', '.join(ids)}? {_CONSEQUENCES}", err=True):
        raise typer.Exit(1)
    with _environment(env) as (ssm, resources):
        from stepwell.aws.signing import signing_keys

        keys = signing_keys.drop(ssm, resources, ids)
    _show(keys, as_json)
    if not as_json:
        console.print(f"dropped {shown(', '.join(ids))}. {shown(_DELAY)}")


@contextmanager
def _environment(env: str | None) -> Iterator[tuple[Any, Resources]]:
    """Yields an SSM client and the environment's resources. Ends the command if the keys cannot be read or changed."""
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
