"""`stepwell users` and `stepwell user`, on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
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


def test_a_user_is_shown_with_the_timeline(server: Server, command: Command) -> None:
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
    assert [load["id"] for load in json.loads(ok(command("users", "--json")))] == ["u-1"]


def test_a_user_is_erased_after_confirmation(server: Server, command: Command) -> None:
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


def test_erase_prints_the_counts_of_erased_items(server: Server, command: Command) -> None:
    send(server, id="eve", email="eve@b.c")
    text = ok(command("user", "erase", "eve", "--yes"))
    for part in ("erased eve, eve@b.c", "runs  1", "attempts  1"):
        assert part in text


IDS = ["a?b", "a/b", "..", "%2F", "a#b", "%", "a b", "a+b&id=x", "\u00fcn\u00ef", "/", "a/"]


@pytest.mark.parametrize("text", IDS)
def test_user_ids_may_contain_any_characters(server: Server, command: Command, text: str) -> None:
    send(server, external_id=text, name="him")
    send(server, external_id="a", name="her")
    assert json.loads(ok(command("user", text, "--json")))["ids"]["external_id"] == [text]
    assert json.loads(ok(command("user", "erase", text, "--yes", "--json")))["erased"]["events"] == 2
    gone = command("user", "show", text)
    assert gone.exit_code == 1
    assert gone.stderr.startswith(f"error: there is no user {text!r} at http://")
    assert json.loads(ok(command("user", "a", "--json")))["traits"]["name"]["value"] == "her"


@pytest.mark.parametrize("text", IDS)
def test_event_ids_may_contain_any_characters(server: Server, command: Command, text: str) -> None:
    ok(command("send", "bad", "--id", text))
    ok(command("send", "other", "--id", "a"))
    shown = json.loads(ok(command("events", "show", text, "--json")))
    assert (shown["id"], [run["event_id"] for run in shown["runs"]]) == (text, [text])


@pytest.mark.parametrize(
    "arguments",
    [("send", "t/\udcff"), ("user", "\udcff"), ("user", "erase", "\udcff"), ("events", "show", "\udcff"),
     ("runs", "show", "\udcff"), ("runs", "show", ".."), ("runs", "--user", "\udcff"), ("functions", "show", "."),
     ("send", "t", "--data", '{"a": "\udcff"}'), ("send", "t", "--id", "\udcff"), ("webhooks", "show", "\udcff")],
)  # fmt: skip
def test_an_invalid_name_is_reported_in_one_line(command: Command, arguments: tuple[str, ...]) -> None:
    result = command(*arguments)
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_a_byte_order_mark_is_ignored(server: Server, command: Command, tmp_path: Path) -> None:
    """PowerShell and Excel write a byte order mark."""
    (tmp_path / "data.json").write_bytes(b'\xef\xbb\xbf{"x": 1}')
    (tmp_path / "lines").write_bytes(b'\xef\xbb\xbf{"name": "bom"}\r\n{"name": "bom"}\r\n')
    ok(command("send", "bom", "--data", f"@{tmp_path}/data.json"))
    ok(command("import", str(tmp_path / "lines")))
    assert len(json.loads(ok(command("events", "--name", "bom", "--json")))) == 3
