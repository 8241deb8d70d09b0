"""`stepwell keys`: who may use a server. The only command that opens the database itself, or an environment's table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stepwell.api.access import Key, KeyScope
from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.server.dev import DATABASE
from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.local.database.keys import KeyStore
from stepwell.local.database.schema import BadDatabase
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.aws.api import keys

app = typer.Typer(help="API keys of a server, or of an environment in AWS: create, list, revoke.", no_args_is_help=True)

DatabaseOption = Annotated[
    Path | None, typer.Option("--db", help=f"The server's database, if it is not {DATABASE}.", show_default=False)
]


@app.command()
def create(
    scope: Annotated[
        KeyScope, typer.Option(help="send: may send events. manage: may use all of the API.")
    ] = KeyScope.SEND,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    db: DatabaseOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is stored hashed, so it cannot be shown again.

    Example: stepwell keys create --scope send --name website
    """
    with _keys(db, env, may_be_new=True) as keys:
        key, secret = keys.create(scope, name, time.time_ns() // 1_000_000)
    if as_json:
        print_json({**_view(key), "key": secret})
    else:
        console.print(secret, markup=False, soft_wrap=True)


@app.command("list")
def list_keys(db: DatabaseOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List keys: their ids, never the keys.

    Example: stepwell keys list
    """
    with _keys(db, env) as store:
        keys = [_view(key) for key in store.list()]
    if as_json:
        print_json(keys)
        return
    table = Table("id", "scope", "name", "created", "revoked", box=None, header_style="dim")
    for key in keys:
        table.add_row(*(shown(key[name] or "") for name in ("id", "scope", "name", "created_at", "revoked_at")))
    console.print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
    db: DatabaseOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: it is refused from now on.

    Example: stepwell keys revoke 1f3a9c02
    """
    with _keys(db, env) as keys:
        revoked = keys.revoke(key, time.time_ns() // 1_000_000)
    if not revoked:
        fail(f"there is no key {key!r} that could be revoked; `stepwell keys list` shows them")
    if as_json:
        print_json({"id": key, "revoked": True})
    else:
        console.print(f"revoked {shown(key)}")


@contextmanager
def _keys(db: Path | None, env: str | None, *, may_be_new: bool = False) -> Iterator[KeyStore | keys.KeyStore]:
    """Those of the database that is named, else of the environment, else of the default database."""
    if db is None and env is not None:
        with aws():
            from stepwell.aws.api import keys

            yield keys.KeyStore(resources_of(env))
        return
    path = db or DATABASE
    if not may_be_new and not path.is_file():
        fail(f"there is no database {path}; name the server's with --db", 2)
    try:
        yield KeyStore(path)
    except (BadDatabase, OSError) as error:
        fail(str(error))


def _view(key: Key) -> dict[str, str | None]:
    return {
        "id": key.id,
        "scope": key.scope.value,
        "name": key.name,
        "created_at": _time(key.created_at),
        "revoked_at": _time(key.revoked_at) if key.revoked_at else None,
    }


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
