"""`stepwell keys`: who may use a server. The only command that opens the database itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from stepwell.api.access import KeyScope
from stepwell.cli.dev import DATABASE
from stepwell.cli.output import JsonOption, console, fail, print_json
from stepwell.local.keys import Key, KeyStore
from stepwell.local.schema import BadDatabase

app = typer.Typer(help="API keys of a server's database: create, list, revoke.", no_args_is_help=True)

DatabaseOption = Annotated[Path, typer.Option("--db", help="The server's database.")]


@app.command()
def create(
    scope: Annotated[
        KeyScope, typer.Option(help="send: may send events. manage: may use all of the API.")
    ] = KeyScope.SEND,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    db: DatabaseOption = DATABASE,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is stored hashed, so it cannot be shown again.

    Example: stepwell keys create --scope send --name website
    """
    key, secret = _open(db).create(scope, name, time.time_ns() // 1_000_000)
    if as_json:
        print_json({**_view(key), "key": secret})
    else:
        console.print(secret, markup=False, soft_wrap=True)


@app.command("list")
def list_keys(db: DatabaseOption = DATABASE, as_json: JsonOption = False) -> None:
    """List keys: their ids, never the keys.

    Example: stepwell keys list
    """
    keys = [_view(key) for key in _existing(db).list()]
    if as_json:
        print_json(keys)
        return
    table = Table("id", "scope", "name", "created", "revoked", box=None, header_style="dim")
    for key in keys:
        table.add_row(key["id"], key["scope"], escape(key["name"] or ""), key["created_at"], key["revoked_at"] or "")
    console.print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
    db: DatabaseOption = DATABASE,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: it is refused from now on.

    Example: stepwell keys revoke 1f3a9c02
    """
    if not _existing(db).revoke(key, time.time_ns() // 1_000_000):
        fail(f"there is no key {key!r} that could be revoked; `stepwell keys list` shows them")
    if as_json:
        print_json({"id": key, "revoked": True})
    else:
        console.print(f"revoked {key}")


def _existing(db: Path) -> KeyStore:
    if not db.is_file():
        fail(f"there is no database {db}; name the server's with --db", 2)
    return _open(db)


def _open(db: Path) -> KeyStore:
    try:
        return KeyStore(db)
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
