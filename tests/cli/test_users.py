"""`stepwell users` and `stepwell user`, on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Server, api, dev, program, write_function

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("users")
    write_function(folder / "f" / "bad", "bad", "bad", a=program('echo \'{"status": 404, "message": "not [there]"}\''))
    with dev(folder / "f", folder / "db") as server:
        yield server


@pytest.fixture
def command(server: Server) -> Command:
    def run(*arguments: str, input: str | None = None) -> Any:
        env = {"STEPWELL_URL": server.url, "COLUMNS": "200"}
        return CliRunner().invoke(app, list(arguments), input=input, env=env)

    return run


def ok(result: Any) -> str:
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return str(result.stdout)


def send(server: Server, **user: Any) -> None:
    with api(server) as http:
        http.ended(http.send("bad", user=user))


def test_a_user_is_shown_with_what_happened(server: Server, command: Command) -> None:
    send(server, external_id="u-1", email="[ada]@b.c", plan="pro")
    shown = ok(command("user", "[ada]@b.c"))
    for part in ("u-1", "email  [ada]@b.c", 'plan = "pro"', "bad v1  failed", "bad a  failed", "not [there]"):
        assert part in shown
    found = json.loads(ok(command("user", "u-1", "--json", "--limit", "1")))
    assert (found["ids"]["external_id"], len(found["timeline"])) == (["u-1"], 1)
    assert json.loads(ok(command("user", "show", "u-1", "--json")))["id"] == "u-1"
    listed = ok(command("users"))
    assert "u-1" in listed
    assert "[ada]@b.c" in listed
    assert [its["id"] for its in json.loads(ok(command("users", "--json")))] == ["u-1"]


def test_a_user_is_erased_if_one_says_so(server: Server, command: Command) -> None:
    send(server, id="bob", email="bob@b.c")
    refused = command("user", "erase", "bob", input="n\n")
    assert refused.exit_code == 1
    assert "nothing was erased" in refused.stderr
    erased = json.loads(ok(command("user", "erase", "bob@b.c", "--yes", "--json")))
    assert erased["ids"]["id"] == ["bob"]
    assert (erased["erased"]["runs"], erased["erased"]["attempts"]) == (1, 1)
    for arguments in (("user", "bob"), ("user", "erase", "bob", "--yes")):
        unknown = command(*arguments)
        assert (unknown.exit_code, unknown.stdout) == (1, "")
        assert "there is no user 'bob'" in unknown.stderr


def test_what_was_erased_is_said(server: Server, command: Command) -> None:
    send(server, id="eve", email="eve@b.c")
    said = ok(command("user", "erase", "eve", "--yes"))
    for part in ("erased eve, eve@b.c", "runs  1", "attempts  1"):
        assert part in said
