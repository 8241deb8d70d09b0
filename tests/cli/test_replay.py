"""`stepwell replay` and `stepwell run --replay`: output for people, JSON, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Api, Server, api, dev, eventually, program, write_function

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    write_function(folder / "f" / "one", "one", {"event": "go", "expression": "data.n >= 0"}, a=program("cat"))
    write_function(folder / "f" / "two", "two", "go")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with dev(folder / "f", folder / "db") as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[Api]:
    with api(server) as client:
        yield client


@pytest.fixture(scope="module")
def sent(http: Api) -> list[str]:
    """Sends events and waits until their runs have ended."""
    ids = [http.send("go", data={"n": n, "card": {"number": "4242"}}, user={"id": f"u{n % 2}"}) for n in range(6)]
    eventually(lambda: all(run["status"] == "completed" for name in ids for run in http.runs_of(name)))
    return ids


@pytest.fixture
def command(server: Server, tmp_path: Path) -> Command:
    def run(*arguments: str, input: str | None = None, **env: str) -> Any:
        fields = {"STEPWELL_URL": server.url, "COLUMNS": "200", "XDG_STATE_HOME": str(tmp_path / "state"), **env}
        result = CliRunner().invoke(app, list(arguments), input=input, env=fields)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def data(result: Any) -> Any:
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def runs_of(http: Api, replay: str) -> list[dict[str, Any]]:
    """The listed events, oldest first."""
    return list(reversed(http.get("/v1/runs", replay=replay, limit=1000)["data"]))


def test_a_replay_prints_the_started_runs_which_can_be_listed(command: Command, http: Api, sent: list[str]) -> None:
    value = data(command("replay", "--function", "one", "--rate", "1000/s", "--json"))
    assert {**value, "replay": ""} == {
        "replay": "", "function": "one", "version": 1, "events": 6, "started": 6, "already": 0, "unknown": 0,
        "not_started": 0,
    }  # fmt: skip
    assert [run["event_id"] for run in runs_of(http, value["replay"])] == sent
    listed = data(command("runs", "--replay", value["replay"], "--json"))
    assert [run["function_id"] for run in listed] == ["one"] * 6
    assert "replay" in command("runs", "--replay", value["replay"]).stdout


def test_a_dry_run_shows_the_events_and_starts_nothing(command: Command, http: Api, sent: list[str]) -> None:
    before = len(http.get("/v1/runs", limit=1000)["data"])
    shown = command("replay", "--function", "one", "--user", "u1", "--dry-run")
    assert all(event in shown.stdout for event in sent[1::2])
    assert "would replay 3 events" in shown.stdout
    value = data(command("replay", "--function", "one", "--where", "data.n > 3", "--dry-run", "--json"))
    assert ([event["id"] for event in value["first"]], value["started"]) == (sent[4:], 0)
    assert len(http.get("/v1/runs", limit=1000)["data"]) == before


def test_a_replay_without_matching_events_does_nothing(command: Command, sent: list[str]) -> None:
    assert "no stored event matches" in command("replay", "--function", "one", "--until", "3d").stdout
    result = command("replay", "--function", "one", "--where", "data.missing > 1")
    assert (result.exit_code, "no stored event matches" in result.stdout) == (0, True)
    assert '--where failed for 6 events; the error for the newest: there is no key "missing"' in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no function is given"),
        (["--function", "nobody"], "there is no function 'nobody'"),
        (["--function", "one", "--where", "data.n >"], "--where, column"),
        (["--function", "one", "--status", "broken"], "use one of running, completed, failed, cancelled"),
        (["--function", "one", "--rate", "fast"], "is not a rate; write one like 50/s"),
        (["--function", "one", "--since", "yesterday"], "--since 'yesterday' is not a time"),
        (["--function", "one", "--redact", "name"], "is not a path into an event"),
        (["--function", "one", "--redact", "data.card"], "--redact needs two servers"),
        (["--function", "one", "--version", "7", "--yes"], "has no version 7; it has 1"),
        (
            ["--function", "one", "--from", "http://a", "--from-env", "b"],
            "by URL or by environment, not by both",
        ),
        (["--resume", "nobody"], "this machine has no interrupted replay with this id"),
        (["--resume", "x", "--function", "one"], "can only be combined with --rate, --yes and --json"),
    ],
)
def test_wrong_options_are_refused_with_a_reason(
    command: Command, sent: list[str], arguments: list[str], says: str
) -> None:
    result = command("replay", *arguments)
    assert result.exit_code in (1, 2)
    assert says in result.stderr


def test_a_replay_waits_for_an_unreachable_server_and_can_be_resumed(
    command: Command, sent: list[str], monkeypatch: pytest.MonkeyPatch, http: Api, tmp_path: Path
) -> None:
    monkeypatch.setattr("stepwell.cli.replay.command._RETRY_FOR_S", 0.0)
    failed = command(
        "replay", "--function", "one", "--version", "1", "--from", "http://127.0.0.1:1", "--to", http_url(http)
    )
    assert "no server answers at http://127.0.0.1:1" in failed.stderr
    (line,) = [line for line in failed.stderr.splitlines() if "--resume" in line]
    replay = line.split()[-1]
    file = tmp_path / "state" / "stepwell" / "replays" / f"{replay}.db"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "no server answers" in command("replay", "--resume", replay).stderr
    file.unlink()


def http_url(http: Api) -> str:
    return str(http.http.base_url).rstrip("/")


def test_events_are_pulled_from_one_server_into_another(
    command: Command, http: Api, sent: list[str], folder: Path
) -> None:
    with dev(folder / "f", folder / "home") as home, api(home) as there:
        pull = ("replay", "--function", "one", "--from", http_url(http), "--to", home.url)
        value = data(command(*pull, "--where", "data.n > 3", "--redact", "data.card.number", "--json"))
        assert (value["events"], value["started"]) == (2, 2)
        assert [run["event_id"] for run in runs_of(there, value["replay"])] == sent[4:]
        event = there.get(f"/v1/events/{sent[5]}")
        assert (event["data"], event["replay"]) == ({"n": 5, "card": {"number": "[redacted]"}}, value["replay"])
        assert {run["function_id"] for run in there.get("/v1/runs")["data"]} == {"one"}
        again = data(command("replay", "--function", "two", "--json", STEPWELL_URL=home.url))
        assert again["started"] == 2  # copied events can be replayed on the second server
        shown = command("events", "show", sent[5], STEPWELL_URL=home.url).stdout
        assert "from another server" in shown


def test_a_stored_event_runs_once_on_the_local_code(command: Command, folder: Path, sent: list[str], http: Api) -> None:
    run = data(command("run", str(folder / "f" / "one"), "--replay", sent[3], "--json"))
    seen = run["output"]["a"]
    assert (seen["event"]["id"], seen["event"]["data"]["n"], seen["ctx"]["replay"]) == (sent[3], 3, "run")
    run = data(command("run", str(folder / "f" / "one"), "--replay", sent[2], "--from", http_url(http), "--json",
                       STEPWELL_URL="http://127.0.0.1:1"))  # fmt: skip
    assert run["event_id"] == sent[2]
    assert "there is no event 'nobody'" in command("run", str(folder / "f" / "one"), "--replay", "nobody").stderr
    both = command("run", str(folder / "f" / "one"), "--replay", "x", "--event", "{}")
    assert (both.exit_code, "not both" in both.stderr) == (2, True)


def test_lists_take_times(command: Command, sent: list[str]) -> None:
    assert len(data(command("events", "--name", "go", "--since", "1h", "--json"))) == 6
    assert data(command("events", "--until", "1h", "--json")) == []
    assert data(command("runs", "--since", "2999-01-01T00:00", "--json")) == []
    assert command("runs", "--since", "tomorrow").exit_code == 2
