"""`stepwell keys`: API keys. Opens the database, or the table of an environment in AWS, without calling a server."""

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

app = typer.Typer(
    help="Create, list and revoke the API keys of a server, or of an environment in AWS.", no_args_is_help=True
)

DatabaseOption = Annotated[
    Path | None, typer.Option("--db", help=f"The server's database file; default: {DATABASE}.", show_default=False)
]


@app.command()
def create(
    scope: Annotated[
        KeyScope, typer.Option(help="What the key allows. send: sending events. manage: the whole API.")
    ] = KeyScope.SEND,
    name: Annotated[str, typer.Option(help="A name that describes the use of the key.")] = "",
    db: DatabaseOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print it. Only a hash is stored, so the key cannot be shown again.

    Example: stepwell keys create --scope send --name website
    """
    with _key_store(db, env, may_be_new=True) as keys:
        key, secret = keys.create(scope, name, time.time_ns() // 1_000_000)
    if as_json:
        print_json({**_view(key), "key": secret})
    else:
        console.print(secret, markup=False, soft_wrap=True)


@app.command("list")
def list_keys(db: DatabaseOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the ids of all keys. The keys themselves are never shown.

    Example: stepwell keys list
    """
    with _key_store(db, env) as store:
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
    key: Annotated[str, typer.Argument(help="The key's id, from `stepwell keys list`.")],
    db: DatabaseOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key. Requests that use it are refused from now on.

    Example: stepwell keys revoke 1f3a9c02
    """
    with _key_store(db, env) as keys:
        revoked = keys.revoke(key, time.time_ns() // 1_000_000)
    if not revoked:
        fail(f"there is no active key with the id {key!r}; `stepwell keys list` prints the ids")
    if as_json:
        print_json({"id": key, "revoked": True})
    else:
        console.print(f"revoked {shown(key)}")


@contextmanager
def _key_store(db: Path | None, env: str | None, *, may_be_new: bool = False) -> Iterator[KeyStore | keys.KeyStore]:
    """Yields the keys of the database `db`, else those of the environment `env`, else those of the default database."""
    if db is None and env is not None:
        with aws():
            from stepwell.aws.api import keys

            yield keys.KeyStore(resources_of(env))
        return
    path = db or DATABASE
    if not may_be_new and not path.is_file():
        fail(f"there is no database {path}; pass the path of the server's database with --db", 2)
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
