"""`stepwell keys`, which opens the database directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.api.access import KeyScope
from stepwell.cli.main import app
from stepwell.local.database.keys import KeyStore


def keys(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, ["keys", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def data(*arguments: str | Path) -> Any:
    result = keys(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def scope_of(db: Path, key: str) -> KeyScope | None:
    store = KeyStore(db)
    try:
        return store.scope_of(key)
    finally:
        store.close()


def test_a_key_is_printed_once_and_may_only_send_unless_asked_for_more(tmp_path: Path) -> None:
    db = tmp_path / "new" / "db"
    result = keys("create", "--db", db)
    assert result.exit_code == 0
    assert scope_of(db, result.stdout.strip()) is KeyScope.SEND
    made = data("create", "--db", db, "--scope", "manage", "--name", "[bold]ops[/]")
    assert scope_of(db, made["key"]) is KeyScope.MANAGE
    assert (made["scope"], made["name"], made["revoked_at"]) == ("manage", "[bold]ops[/]", None)
    listed = keys("list", "--db", db).stdout
    assert made["id"] in listed
    assert "[bold]ops[/]" in listed
    assert made["key"] not in listed + json.dumps(data("list", "--db", db))


def test_a_list_holds_every_key(tmp_path: Path) -> None:
    ids = [data("create", "--db", tmp_path / "db")["id"] for _ in range(3)]
    assert sorted(key["id"] for key in data("list", "--db", tmp_path / "db")) == sorted(ids)


def test_a_revoked_key_is_refused_and_stays_in_the_list(tmp_path: Path) -> None:
    db = tmp_path / "db"
    made, other = data("create", "--db", db), data("create", "--db", db)
    assert data("revoke", made["id"], "--db", db) == {"id": made["id"], "revoked": True}
    assert scope_of(db, made["key"]) is None
    assert scope_of(db, other["key"]) is KeyScope.SEND
    assert {key["id"]: key["revoked_at"] is not None for key in data("list", "--db", db)} == {
        made["id"]: True,
        other["id"]: False,
    }


@pytest.mark.parametrize("key", ["nothing", "", "' OR 1=1 --"])
def test_an_unknown_key_cannot_be_revoked(tmp_path: Path, key: str) -> None:
    made = data("create", "--db", tmp_path / "db")
    for which in (key, made["key"]):
        result = keys("revoke", "--db", tmp_path / "db", "--", which)
        assert result.exit_code == 1
        assert "keys list" in result.stderr
    assert scope_of(tmp_path / "db", made["key"]) is KeyScope.SEND


def test_a_key_can_be_revoked_only_once(tmp_path: Path) -> None:
    made = data("create", "--db", tmp_path / "db")
    assert keys("revoke", made["id"], "--db", tmp_path / "db").exit_code == 0
    assert keys("revoke", made["id"], "--db", tmp_path / "db").exit_code == 1


def test_listing_keys_does_not_create_a_missing_database(tmp_path: Path) -> None:
    for arguments in (("list",), ("revoke", "x")):
        result = keys(*arguments, "--db", tmp_path / "missing")
        assert result.exit_code == 2
        assert "--db" in result.stderr
    assert not (tmp_path / "missing").exists()


def test_a_file_that_is_not_a_database_is_reported_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 1000)
    for arguments in (("create",), ("list",), ("revoke", "x")):
        result = keys(*arguments, "--db", tmp_path / "text")
        assert result.exit_code == 1
        assert str(tmp_path / "text") in result.stderr
    assert keys("create", "--db", tmp_path).exit_code == 1
    assert keys("create", "--db", tmp_path / "text" / "db").exit_code == 1
