"""The commands that call a server: output for people, JSON, exit codes, help."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Api, Server, api, cli, dev, eventually, new_key, program, serve, write_function

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("commands")
    write_function(
        folder / "f" / "good",
        "good",
        "good",
        one=program("echo log >&2; echo 1"),
        two=program("echo 2", after=[{"step": "one"}]),
    )
    write_function(folder / "f" / "bad", "bad", "bad", a=program('echo \'{"status": 404, "message": "not [there]"}\''))
    write_function(folder / "f" / "slow", "slow", "slow", a=program("sleep 30"))
    write_function(folder / "f" / "choosy", "choosy", {"event": "good", "expression": "data.x > 1"})
    write_function(folder / "f" / "resting", "resting", "rest")
    once_a_day = {"rate_limit": {"limit": 1, "period": "1d", "key": "data.customer"}}
    write_function(folder / "f" / "limited", "limited", "news", control=once_a_day)
    write_function(
        folder / "f" / "single", "single", "sync", control={"singleton": {"mode": "skip"}}, a=program("sleep 30")
    )
    newest = {"singleton": {"mode": "cancel"}}
    write_function(folder / "f" / "newest", "newest", "newest", control=newest, a=program("sleep 30"))
    with dev(folder / "f", folder / "db") as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[Api]:
    with api(server) as client:
        yield client


@pytest.fixture
def command(server: Server) -> Command:
    def run(*arguments: str, input: str | bytes | None = None, **env: str) -> Any:
        fields = {"STEPWELL_URL": server.url, "COLUMNS": "200", **env}
        result = CliRunner().invoke(app, list(arguments), input=input, env=fields)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def ok(result: Any) -> str:
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return str(result.stdout)


def data(result: Any) -> Any:
    return json.loads(ok(result))


def refused(result: Any, code: int = 1) -> str:
    """The text on stderr; stdout must be empty."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return str(result.stderr)


# --- send ------------------------------------------------------------------------------------------------------------


def test_send_prints_the_event(command: Command) -> None:
    (event_id,) = data(command("send", "nothing", "--json"))["ids"]
    assert event_id in ok(command("events", "show", event_id))
    assert "nothing" in ok(command("send", "nothing"))


def test_send_takes_every_field_of_an_event(command: Command) -> None:
    options = ("--data", '{"n": 1}', "--user", '{"id": "ada"}', "--id", "mine", "--v", "2")
    assert data(command("send", "nothing", *options, "--json")) == {"ids": ["mine"], "status": 200}
    event = data(command("events", "show", "mine", "--json"))
    assert (event["data"], event["user"], event["v"], event["runs"]) == ({"n": 1}, {"id": "ada"}, "2", [])


def test_data_may_come_from_a_file_or_stdin(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"from": "file"}')
    for option, stdin, source in ((f"@{tmp_path}/data.json", None, "file"), ("-", '{"from": "stdin"}', "stdin")):
        (event_id,) = data(command("send", "nothing", "--data", option, "--json", input=stdin))["ids"]
        assert data(command("events", "show", event_id, "--json"))["data"] == {"from": source}


@pytest.mark.parametrize("option", ["--data", "--user"])
@pytest.mark.parametrize(
    ("value", "says"), [("{", "not JSON"), ("{'a': 1}", "not JSON"), ("@/no/such", "/no/such"), ("", "not JSON")]
)
def test_invalid_json_is_wrong_usage(command: Command, option: str, value: str, says: str) -> None:
    text = refused(command("send", "x", option, value), 2)
    assert option in text
    assert says in text


def test_errors_of_the_server_are_printed_with_the_place(command: Command) -> None:
    assert "/data" in refused(command("send", "x", "--data", "[1]"))
    assert "/name" in refused(command("send", "stepwell/x"))


@pytest.mark.parametrize("number", ["18446744073709551616", "1" + "0" * 30])
def test_a_number_that_does_not_fit_is_refused_and_not_changed(command: Command, number: str) -> None:
    text = refused(command("send", "x", "--data", f'{{"n": {number}}}'), 2)
    assert "--data, /n" in text
    assert "64 bits" in text


# --- events, runs, functions -----------------------------------------------------------------------------------------


def test_events_lists_the_newest_first(command: Command, http: Api) -> None:
    ids = [http.send("listed", data={"n": n}) for n in range(3)]
    assert [event["id"] for event in data(command("events", "--name", "listed", "--json"))] == ids[::-1]
    assert [event["id"] for event in data(command("events", "--name", "listed", "--limit", "2", "--json"))] == ids[
        :0:-1
    ]
    shown = ok(command("events", "--name", "listed"))
    assert shown.index(ids[2]) < shown.index(ids[0])


def test_events_goes_over_as_many_pages_as_the_limit_takes(command: Command, http: Api) -> None:
    for _ in range(2):
        http.http.post("/e", json=[{"name": "paged"}] * 750)
    assert len(data(command("events", "--name", "paged", "--limit", "1400", "--json"))) == 1400


def test_an_event_is_shown_with_the_functions_that_it_started_or_not(command: Command, http: Api) -> None:
    event_id = http.send("good", data={"x": "text"})
    run_id = http.ended(event_id)["id"]
    shown = ok(command("events", "show", event_id))
    assert run_id in shown
    assert "not started choosy" in shown
    assert "data.x > 1" in shown
    found = data(command("events", "show", event_id, "--json"))
    assert [run["id"] for run in found["runs"]] == [run_id]


def test_an_event_beyond_a_rate_limit_is_shown_with_the_time_of_the_next_start(command: Command, http: Api) -> None:
    http.ended(http.send("news", data={"customer": 7}))
    shown = ok(command("events", "show", http.send("news", data={"customer": 7})))
    assert "not started limited  data.customer: `rate_limit` is reached (1 start in 1d); the next" in shown
    shown = ok(command("runs", "show", http.ended(http.send("news"))["id"]))
    assert 'rate_limit: there is no key "customer"; the run is not limited' in shown


def test_an_event_is_shown_with_the_open_run_that_skips_it(command: Command, http: Api) -> None:
    event_id = http.send("sync")
    eventually(lambda: http.runs_of(event_id))
    (run,) = http.runs_of(event_id)
    shown = ok(command("events", "show", http.send("sync")))
    assert f"not started single  `singleton`: run {run['id']} is open and has the same key" in shown
    error = refused(command("rerun", run["id"]))
    assert f"run {run['id']} is open and has the same key; cancel that run, or rerun once it has ended" in error
    http.http.delete(f"/v1/runs/{run['id']}")


def test_a_run_that_another_one_replaced_is_shown_with_it(command: Command, http: Api) -> None:
    old, new = http.send("newest"), http.send("newest")
    replaced = http.ended(old)
    (run,) = http.runs_of(new)
    shown = ok(command("runs", "show", replaced["id"]))
    assert f"cancelled, reason: singleton; run {run['id']} has taken its place" in shown
    http.http.delete(f"/v1/runs/{run['id']}")


def test_an_event_is_shown_with_the_paused_functions_that_keep_it(command: Command, http: Api) -> None:
    assert http.http.post("/v1/functions/resting/pause").status_code == 200
    event_id = http.send("rest")
    shown = ok(command("events", "show", event_id))
    assert "not started resting  the function is paused and keeps the event until it is resumed\n" in shown
    assert "no function has a trigger" not in shown
    assert http.http.post("/v1/functions/resting/resume").status_code == 200
    run_id = http.ended(event_id)["id"]
    shown = ok(command("events", "show", event_id))
    assert run_id in shown
    assert "paused" not in shown


@pytest.mark.parametrize("event_id", ["a/b", "50%?x=1#y", "[red]id[/]", "ü"])
def test_an_event_is_shown_whatever_its_id(command: Command, http: Api, event_id: str) -> None:
    http.send("nothing", id=event_id)
    assert data(command("events", "show", event_id, "--json"))["id"] == event_id
    assert event_id in ok(command("events", "show", event_id))
    assert event_id in ok(command("events", "--name", "nothing"))


def test_runs_are_filtered(command: Command, http: Api) -> None:
    user = {"id": "runs-ada"}
    good, bad = (http.ended(http.send(name, user=user))["id"] for name in ("good", "bad"))
    assert [run["id"] for run in data(command("runs", "--user", "runs-ada", "--json"))] == [bad, good]
    assert [run["id"] for run in data(command("runs", "--user", "runs-ada", "--status", "failed", "--json"))] == [bad]
    assert [run["id"] for run in data(command("runs", "--user", "runs-ada", "--function", "good", "--json"))] == [good]
    shown = ok(command("runs", "--user", "runs-ada"))
    assert all(text in shown for text in (good, bad, "completed", "failed"))
    assert "no runs" in ok(command("runs", "--user", "nobody"))
    assert "status" in refused(command("runs", "--status", "done"))


def test_a_run_is_drawn_as_a_tree(command: Command, http: Api) -> None:
    run = http.ended(http.send("good"))
    shown = ok(command("runs", "show", run["id"]))
    assert all(text in shown for text in ("good v1", "completed", "one", "two", "output"))
    assert "log" not in shown
    assert "log" in ok(command("runs", "show", run["id"], "--logs"))
    assert data(command("runs", "show", run["id"], "--json")) == run


def test_a_failed_run_shows_its_error(command: Command, http: Api) -> None:
    run = http.ended(http.send("bad"))
    shown = ok(command("runs", "show", run["id"]))
    assert "failed at step a" in shown
    assert "not [there]" in shown


def test_following_a_run_waits_for_the_end_and_sets_the_exit_code(command: Command, http: Api) -> None:
    for name, code in (("good", 0), ("bad", 1)):
        (run,) = http.runs_of(http.send(name))
        result = command("runs", "show", run["id"], "--follow", "--json")
        assert result.exit_code == code
        assert json.loads(result.stdout)["status"] == ("failed" if code else "completed")
        assert command("runs", "show", run["id"], "--follow").exit_code == code
        assert command("runs", "show", run["id"]).exit_code == 0


def test_functions_lists_live_functions(command: Command) -> None:
    listed = data(command("functions", "--json"))
    assert [function["id"] for function in listed] == [
        "bad",
        "choosy",
        "good",
        "limited",
        "newest",
        "resting",
        "single",
        "slow",
    ]
    shown = ok(command("functions"))
    assert all(text in shown for text in ("choosy", "data.x > 1", "one, two"))
    assert data(command("functions", "show", "good", "--json"))["version"] == 1
    shown = ok(command("functions", "show", "good"))
    assert "good  v1" in shown
    assert '"timeout": "15m"' in shown


# --- cancel and rerun ------------------------------------------------------------------------------------------------


def test_a_run_is_cancelled(command: Command, http: Api) -> None:
    (run,) = http.runs_of(http.send("slow"))
    eventually(lambda: http.run(run["id"])["steps"]["a"]["status"] == "running")
    assert run["id"] in ok(command("cancel", run["id"]))
    assert data(command("cancel", run["id"], "--json"))["status"] == "cancelled"
    done = http.ended(http.send("good"))
    assert "completed" in refused(command("cancel", done["id"]))


def test_a_run_is_run_again(command: Command, http: Api) -> None:
    first = http.ended(http.send("good"))
    again = data(command("rerun", first["id"], "--json"))
    assert (again["rerun_of"], again["event_id"]) == (first["id"], first["event_id"])
    assert "started" in ok(command("rerun", first["id"]))


@pytest.mark.parametrize(
    "arguments", [("runs", "show"), ("cancel",), ("rerun",), ("events", "show"), ("functions", "show")]
)
def test_a_missing_item_is_reported(command: Command, arguments: tuple[str, ...]) -> None:
    assert "nothing/there" in refused(command(*arguments, "nothing/there"))


# --- servers that do not answer, or refuse ---------------------------------------------------------------------------

SPEAKING = [
    ("send", "x"), ("events",), ("events", "show", "x"), ("runs",), ("runs", "show", "x"), ("functions",),
    ("functions", "show", "x"), ("cancel", "x"), ("rerun", "x"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", SPEAKING, ids=" ".join)
def test_without_a_server_the_error_names_its_address_and_the_variable(
    command: Command, arguments: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = refused(command(*arguments, STEPWELL_URL=f"http://127.0.0.1:{port}"))
    assert f"http://127.0.0.1:{port}" in text
    assert "STEPWELL_URL" in text


@pytest.mark.parametrize("url", ["localhost:8288", "nonsense", "http://[", "http://x:99999", "ftp://127.0.0.1"])
def test_an_invalid_address_is_reported_without_a_traceback(command: Command, url: str) -> None:
    result = command("events", STEPWELL_URL=url)
    assert result.exit_code in (1, 2)
    assert url in result.stderr


def test_a_wrong_path_in_the_address_is_reported(command: Command, server: Server) -> None:
    assert "/nowhere" in refused(command("events", STEPWELL_URL=f"{server.url}/nowhere"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """A `stepwell serve`: the URL, a send key and a manage key."""
    folder = tmp_path_factory.mktemp("guarded")
    send, manage = new_key(folder / "db", "send"), new_key(folder / "db", "manage")
    with serve(write_function(folder / "f"), folder / "db") as server:
        yield server.url, send, manage


def test_a_wrong_key_is_refused_and_the_variable_named(command: Command, guarded: tuple[str, str, str]) -> None:
    url, send, manage = guarded
    for key in ("", "wrong", "schlüssel"):
        assert "STEPWELL_KEY" in refused(command("events", STEPWELL_URL=url, STEPWELL_KEY=key))
    assert "manage" in refused(command("events", STEPWELL_URL=url, STEPWELL_KEY=send))
    ok(command("send", "x", STEPWELL_URL=url, STEPWELL_KEY=send))
    ok(command("events", STEPWELL_URL=url, STEPWELL_KEY=manage))


# --- help and usage --------------------------------------------------------------------------------------------------

COMMANDS = [
    ("init",), ("validate",), ("dev",), ("serve",), ("send",), ("run",), ("cancel",), ("rerun",), ("events",),
    ("events", "show"), ("runs",), ("runs", "show"), ("functions",), ("functions", "show"), ("keys", "create"),
    ("keys", "list"), ("keys", "revoke"), ("users",), ("user", "show"), ("user", "erase"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_help_shows_an_example_of_every_command(command: Command, arguments: tuple[str, ...]) -> None:
    shown = " ".join(ok(command(*arguments, "--help")).split())
    assert f"Example: stepwell {' '.join(arguments)}" in shown


def test_help_lists_every_command(command: Command) -> None:
    shown = ok(command("--help"))
    assert all(f" {arguments[0]} " in shown for arguments in COMMANDS)
    assert "STEPWELL_URL" in shown


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("send",), ("send", "x", "--nonsense"), ("events", "--limit", "0"), ("events", "--limit", "x"),
     ("runs", "show"), ("keys", "create", "--scope", "all"), ("dev", "--port", "70000"), ("serve", "--grace", "-1"),
     ("dev", "no/such/folder"), ("serve", "no/such/folder")],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_exits_with_2(command: Command, arguments: tuple[str, ...]) -> None:
    refused(command(*arguments), 2)


def test_the_version_is_printed() -> None:
    done = cli("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("stepwell ")
