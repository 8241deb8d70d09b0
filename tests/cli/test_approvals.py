"""`stepwell approvals`, `approve`, `decline` and `runs show` with real servers, and the approval links."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Api, Json, Server, api, dev, eventually, new_key, program, serve, serving, write_function

Command = Callable[..., Any]


def ask(message: str = "Pay {{ data.n }}?") -> Json:
    return {"runtime": {"type": "approval", "message": message, "approvers": ["Ada"]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    yes = program("echo '\"paid\"'", after=[{"step": "ask", "if": "response.approved"}])
    write_function(tmp_path / "f" / "one", "one", "one", ask=ask(), yes=yes)
    write_function(tmp_path / "f" / "two", "two", "two", first=ask("First?"), second=ask("Second?"))
    return tmp_path / "f"


@pytest.fixture
def columns() -> int:
    return 60


@pytest.fixture
def server(folder: Path, tmp_path: Path, key: str) -> Iterator[Server]:
    with serve(folder, tmp_path / "db") as server:
        yield server


def started(http: Api, name: str = "one", step: str = "ask", **data: Any) -> Json:
    """A run with an open approval."""
    event = http.send(name, data=data)
    (run,) = eventually(lambda: http.runs_of(event))
    return eventually(lambda: fields if "approval" in (fields := http.run(run["id"]))["steps"][step] else None) or {}


def test_open_approvals_are_listed_and_decided(http: Api, command: Command) -> None:
    assert "no open approvals" in command("approvals")
    run = started(http, n=7)
    shown = command("approvals")
    assert run["id"] in shown
    assert "Pay 7?" in shown
    (listed,) = command("approvals", "--json")
    assert (listed["run_id"], listed["step_id"], listed["approvers"]) == (run["id"], "ask", ["Ada"])
    value = command("approve", run["id"], "--comment", "as agreed", "--by", "Grace")
    assert f"approved ask of run {run['id']}" in value
    ended = eventually(lambda: fields if (fields := http.run(run["id"]))["status"] == "completed" else None)
    assert ended is not None
    output = ended["steps"]["ask"]["output"]
    assert (output["comment"], output["by"]) == ("as agreed", "Grace")
    assert command("approvals", "--json") == []
    value = command("decline", run["id"], code=1)
    assert "waits for a decision" in value
    value = command("decline", run["id"], "ask", code=1)
    assert '"decision":"approved"' in value


@pytest.mark.parametrize("columns", [80, 120])
def test_messages_of_approvals_have_the_width_of_the_terminal(http: Api, command: Command, columns: int) -> None:
    first = "1,250.00 EUR to Grace Hopper for the compiler, invoice 1952-05?"
    run = started(http, n=f"{first}\n{'x' * 200}")
    lines = command("approvals").splitlines()
    assert lines[0] == f"{run['id']}  one ask"
    assert lines[1].rstrip() == f"  Pay {first}"
    assert all(len(line.rstrip()) <= columns for line in lines)
    assert sum(line.count("x") for line in lines[2:]) >= 200
    assert re.fullmatch(r"  asked [\d:]+, to be decided by Ada until \S+ [\d:]+", lines[-1].rstrip())


def test_with_several_open_approvals_the_step_must_be_named(http: Api, command: Command) -> None:
    run = started(http, "two", "first")
    assert "name one: first, second" in command("approve", run["id"], code=1)
    assert "the steps are first, second" in command("approve", run["id"], "third", code=1)
    answer = command("decline", run["id"], "second", "--json")
    assert (answer["step_id"], answer["decision"], answer["approved"]) == ("second", "declined", False)
    assert answer["by"]  # the user's name on this machine
    assert command("approve", run["id"], "--json")["step_id"] == "first"
    assert "there is no run" in command("approve", "a" * 26, code=1)


def test_a_run_is_shown_with_its_links_in_one_line_each(http: Api, command: Command) -> None:
    run = started(http, n=7)
    asked = run["steps"]["ask"]["approval"]
    shown = command("runs", "show", run["id"])
    assert "Pay 7?" in shown
    assert "by Ada" in shown
    assert asked["approve_url"] in shown
    assert asked["decline_url"] in shown


def test_following_a_run_prints_approval_links_once_and_then_the_end(
    http: Api, server: Server, key: str, command: Command
) -> None:
    run = started(http, n=7)
    env = {**os.environ, "STEPWELL_URL": server.url, "STEPWELL_KEY": key}
    follow = [sys.executable, "-m", "stepwell", "runs", "show", run["id"], "--follow"]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        asked = run["steps"]["ask"]["approval"]
        assert [process.stdout.readline().split()[-1] for _ in range(2)] == [asked["approve_url"], asked["decline_url"]]
        command("approve", run["id"])
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "completed" in rest
    assert "/approvals/" not in rest


def test_approval_links_point_to_the_server_and_need_no_key(http: Api, server: Server) -> None:
    url = started(http, n=1)["steps"]["ask"]["approval"]["approve_url"]
    assert url.startswith(f"{server.url}/approvals/")
    assert server.line(lambda line: "give --public-url" in line["message"])
    assert "Pay 1?" in httpx.get(url).text
    assert httpx.get(f"{server.url}/v1/approvals").status_code == 401
    done = httpx.post(url, data={"comment": "fine"}, headers={"origin": "https://elsewhere.example"})
    assert done.status_code == 200
    assert "You approved" in done.text


def test_approval_links_use_the_public_address(folder: Path, tmp_path: Path) -> None:
    db, base = tmp_path / "db", "https://stepwell.example.com/base/"
    key = new_key(db)
    arguments = ("serve", folder, "--port", "0", "--db", db)
    for options, env in ((("--public-url", base), {}), ((), {"STEPWELL_PUBLIC_URL": base})):
        with serving(*arguments, *options, env=env) as server, api(server, key) as http:
            url = started(http, n=7)["steps"]["ask"]["approval"]["approve_url"]
            assert url.startswith("https://stepwell.example.com/base/approvals/")
            there = urlsplit(url).path.removeprefix("/base")
            assert http.http.get(there).status_code == 200
            assert not [line for line in server.lines if "--public-url" in line["message"]]


@pytest.mark.parametrize("url", ["stepwell.example", "ftp://x", "https://", "https://x/?a=b", "https://x/#a", "//x"])
def test_an_invalid_public_address_is_refused(url: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--db", str(tmp_path / "db"), "--public-url", url])
    assert result.exit_code == 2
    assert "is not a valid address" in result.stderr


def test_links_outlive_a_restart_and_a_kill(folder: Path, tmp_path: Path) -> None:
    key = new_key(tmp_path / "db")
    with serve(folder, tmp_path / "db") as first, api(first, key) as http:
        run = started(http, n=1)
        first.kill()
    path = urlsplit(run["steps"]["ask"]["approval"]["approve_url"]).path
    with serve(folder, tmp_path / "db") as second, api(second, key) as http:
        assert httpx.post(f"{second.url}{path}").status_code == 200
        ended = eventually(lambda: fields if (fields := http.run(run["id"]))["status"] == "completed" else None)
        assert ended is not None
        assert [attempt["status"] for attempt in ended["steps"]["ask"]["attempts"]] == ["completed"]


def test_the_dev_server_prints_approval_links_and_accepts_only_forms_of_its_own_page(
    folder: Path, tmp_path: Path
) -> None:
    with dev(folder, tmp_path / "dev-db") as server, api(server) as http:
        started(http, n=3)
        line = server.line(lambda line: line["kind"] == "asks")
        assert (line["function"], line["step"], line["message"]) == ("one", "ask", "Pay 3?")
        assert re.fullmatch(rf"{server.url}/approvals/[a-z0-9.]+", line["approve_url"])
        for origin in ("https://elsewhere.example", "null"):
            assert httpx.post(line["approve_url"], headers={"origin": origin}).status_code == 403
        assert httpx.get(line["approve_url"]).status_code == 200
        assert httpx.post(line["approve_url"], headers={"origin": server.url}).status_code == 200
