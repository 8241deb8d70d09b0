"""`stepwell dev`: what it finds, prints, notices and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.servers import Api, Json, Server, api, dev, eventually, program, write_function


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    write_function(tmp_path / "functions" / "one", "one", "one")
    write_function(
        tmp_path / "functions" / "deep" / "down" / "two", "two", {"event": "two", "expression": "data.ok == true"}
    )
    return tmp_path / "functions"


@pytest.fixture
def server(functions: Path, tmp_path: Path) -> Iterator[Server]:
    with dev(functions, tmp_path / "db") as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[Api]:
    with api(server) as client:
        yield client


def live(http: Api) -> dict[str, int]:
    return {function["id"]: function["version"] for function in http.get("/v1/functions")["data"]}


# --- failures --------------------------------------------------------------------------------------------------------


def test_it_shows_each_failed_attempt_while_it_is_retried(tmp_path: Path) -> None:
    """Each failed attempt is printed with the first line of the error, and the time of the next attempt."""
    retries = {"attempts": 1, "backoff": {"initial": "1h"}}
    step = program("echo 'ValueError: boom' >&2; echo more >&2; exit 3", retries=retries)
    with dev(write_function(tmp_path / "f", a=step), tmp_path / "db") as server, api(server) as http:
        event = http.send()
        line = server.line(lambda line: line["kind"] == "attempt")
        (run,) = http.runs_of(event)
    assert (line["function"], line["run"], line["step"], line["attempt"]) == ("f", run["id"], "a", 1)
    assert line["status"] == "failed"
    assert "more" in line["error"]  # the last line on stderr, as in the run
    assert "\n" not in line["error"]
    due = datetime.fromisoformat(line["next_attempt_at"])
    assert timedelta(minutes=50) < due - datetime.now(UTC) < timedelta(minutes=70)


def test_a_final_failure_is_printed_as_final(tmp_path: Path) -> None:
    with dev(write_function(tmp_path / "f", a=program("exit 3")), tmp_path / "db") as server, api(server) as http:
        http.ended(http.send())
        assert server.line(lambda line: line["kind"] == "attempt")["next_attempt_at"] is None
        server.line(lambda line: line["kind"] == "run" and line["status"] == "failed")


def test_the_time_of_the_next_attempt_is_printed(tmp_path: Path) -> None:
    step = program("echo boom >&2; exit 3", retries={"attempts": 1, "backoff": {"initial": "1h"}})
    folder = write_function(tmp_path / "f", a=step)
    command = [sys.executable, "-m", "stepwell", "dev", str(folder), "--port", "0", "--db", str(tmp_path / "db")]
    printed = tmp_path / "printed"
    with printed.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            eventually(lambda: "ready" in printed.read_text())
            url = next(word for word in printed.read_text().split() if word.startswith("http"))
            httpx.post(f"{url}/e", json={"name": "go"})
            httpx.post(f"{url}/e", json={"name": "goo"})
            eventually(lambda: "next attempt at" in printed.read_text() and "did you mean go?" in printed.read_text())
        finally:
            process.terminate()
    assert "failed f" in printed.read_text()
    assert "step a attempt 1: " in printed.read_text()
    assert "boom" in printed.read_text()


def why(server: Server, event: str) -> str | None:
    text: str | None = server.line(lambda line: line.get("id") == event and line["kind"] == "event")["why"]
    return text


def test_it_prints_which_run_has_replaced_another(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "f", control={"singleton": {"mode": "cancel"}}, a=program("sleep 30"))
    with dev(folder, tmp_path / "db") as server, api(server) as http:
        first, _ = http.send(), http.send()
        old = http.ended(first)
        line = server.line(lambda line: line["kind"] == "run" and line["status"] == "cancelled")
        assert (line["run"], line["reason"], line["replaced_by"]) == (old["id"], "singleton", old["replaced_by"])


def test_it_prints_why_an_event_started_nothing(server: Server, http: Api, functions: Path) -> None:
    assert why(server, http.send("one")) is None
    assert why(server, http.send("On")) == "starts nothing: no trigger names On; triggers are one, two"
    assert why(server, http.send("tow")) == "starts nothing: no trigger names tow; did you mean two?"
    false = http.send("two", data={"ok": False})
    assert why(server, false) is None  # the reason is in `not_started`
    assert server.line(lambda line: line.get("id") == false)["not_started"][0]["problem"] is None
    limited = write_function(functions / "limited", "limited", "l", {"rate_limit": {"limit": 1, "period": "1h"}})
    server.line(lambda line: line["kind"] == "live" and line.get("function") == "limited")
    http.ended(http.send("l"))
    dropped = http.send("l")
    assert why(server, dropped) is None
    (miss,) = server.line(lambda line: line.get("id") == dropped)["not_started"]
    assert miss["problem"].startswith("`rate_limit` is reached (1 start in 1h); the next start is possible at ")
    shutil.rmtree(limited)
    assert http.http.post("/v1/functions/one/pause").status_code == 200
    assert why(server, http.send("one")) == "kept for one, which is paused; starts a run when it is resumed"


def wait_for_payment(**edge: object) -> Json:
    paid = {"event": "order/paid", "match": "async.data.id == event.data.id", "ttl": "1d"}
    return program("echo 1", after=[{"step": "$trigger", "async": paid, **edge}])


def waiting_run(http: Api, event: str = "order/placed", **data: object) -> str:
    """The id of a run that waits for an event."""
    sent = http.send(event, data=data)
    (run,) = eventually(lambda: [run for run in http.runs_of(sent) if "waiting" in str(run["steps"])])
    return str(run["id"])


def test_it_prints_the_runs_that_an_event_resumed(tmp_path: Path) -> None:
    late = program("echo 2", after=[{"step": "$trigger", "async": {"event": "order/paid", "ttl": "1d"}}])
    write_function(tmp_path / "f" / "ship", "ship", "order/placed", b=wait_for_payment(), c=wait_for_payment(), d=late)
    with dev(tmp_path / "f", tmp_path / "db") as server, api(server) as http:
        runs = [waiting_run(http, id=number) for number in (1, 2)]
        paid = http.send("order/paid", data={"id": 1})
        line = server.line(lambda line: line.get("id") == paid and line["kind"] == "event")
        resumed = sorted(line["resumed"], key=lambda item: (runs.index(item["run"]), item["steps"]))
        assert resumed == [
            {"function": "ship", "run": runs[0], "steps": ["b", "c"]},
            {"function": "ship", "run": runs[0], "steps": ["d"]},
            {"function": "ship", "run": runs[1], "steps": ["d"]},
        ]
        assert (line["started"], line["why"], line["cancelled"]) == ({}, None, [])
        nothing = "starts nothing: no trigger names order/paid, and no open wait matches it"
        assert why(server, http.send("order/paid", data={"id": 1})) == nothing
        assert server.line(lambda line: line["kind"] == "event")["resumed"] == []


def test_it_prints_the_runs_that_an_event_cancelled(tmp_path: Path) -> None:
    definition = write_function(tmp_path / "f", "f", "order/placed", a=wait_for_payment()) / "stepwell.json"
    definition.write_text(json.dumps({**json.loads(definition.read_text()), "cancel": [{"event": "order/stopped"}]}))
    with dev(tmp_path / "f", tmp_path / "db") as server, api(server) as http:
        run = waiting_run(http, id=1)
        stopped = http.send("order/stopped")
        line = server.line(lambda line: line.get("id") == stopped)
        assert (line["cancelled"], line["resumed"], line["why"]) == ([{"function": "f", "run": run}], [], None)


def test_it_prints_why_a_run_was_cancelled_by_a_timeout(tmp_path: Path) -> None:
    write_function(tmp_path / "f", "f", "order/placed", {"timeouts": {"start": "100ms"}}, a=wait_for_payment())
    with dev(tmp_path / "f", tmp_path / "db") as server, api(server) as http:
        http.send("order/placed", data={"id": 1})
        line = server.line(lambda line: line["kind"] == "run")
        assert (line["status"], line["reason"], line["timeout"]) == ("cancelled", "timeout", "start")


def test_it_prints_a_run_that_an_event_resumes_after_a_delay(tmp_path: Path) -> None:
    write_function(tmp_path / "f", "f", "order/placed", a=wait_for_payment(wait="2s"))
    with dev(tmp_path / "f", tmp_path / "db") as server, api(server) as http:
        run = waiting_run(http, id=1)
        paid = http.send("order/paid", data={"id": 1})
        server.line(lambda line: line.get("id") == paid and line["kind"] == "event")
        line = server.line(lambda line: line["kind"] == "resumed")
        assert (line["id"], line["name"]) == (paid, "order/paid")
        assert line["resumed"] == [{"function": "f", "run": run, "steps": ["a"]}]


def test_resumed_runs_are_printed_for_people(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "f", "ship", "order/placed", b=wait_for_payment())
    command = [sys.executable, "-m", "stepwell", "dev", str(folder), "--port", "0", "--db", str(tmp_path / "db")]
    printed = tmp_path / "printed"
    with printed.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            eventually(lambda: "ready" in printed.read_text())
            url = next(word for word in printed.read_text().split() if word.startswith("http"))
            httpx.post(f"{url}/e", json={"name": "order/placed", "data": {"id": 1}})
            eventually(lambda: "started ship" in printed.read_text())
            httpx.post(f"{url}/e", json={"name": "order/paid", "data": {"id": 1}})
            eventually(lambda: "completed ship" in printed.read_text())
        finally:
            process.terminate()
    assert re.search(r"event order/paid \w+\n      resumed ship \w+ at step b\n", printed.read_text())
    assert "starts nothing" not in printed.read_text()


def test_a_duplicate_event_is_shown_as_duplicate(server: Server, http: Api) -> None:
    http.send("one", id="same")
    http.send("one", id="same")
    assert server.line(lambda line: line["kind"] == "duplicate")["id"] == "same"


def test_without_functions_it_prints_that_nothing_can_start(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with dev(tmp_path / "none", tmp_path / "db") as server, api(server) as http:
        assert "no live function" in str(why(server, http.send("x")))


# --- functions and events --------------------------------------------------------------------------------------------


def test_it_finds_every_definition_below_its_paths(http: Api) -> None:
    assert live(http) == {"one": 1, "two": 1}


def test_it_prints_what_each_event_did(server: Server, http: Api) -> None:
    started, not_started, nothing = http.send("one"), http.send("two", data={"ok": False}), http.send("three")
    run_id = http.ended(started)["id"]
    line = server.line(lambda line: line.get("id") == started)
    assert (line["kind"], line["name"], line["started"], line["not_started"]) == ("event", "one", {"one": run_id}, [])
    line = server.line(lambda line: line.get("id") == not_started)
    assert (line["started"], line["not_started"][0]["function_id"]) == ({}, "two")
    assert server.line(lambda line: line.get("id") == nothing)["started"] == {}
    ended = server.line(lambda line: line["kind"] == "run")
    assert (ended["run"], ended["function"], ended["status"], ended["error"]) == (run_id, "one", "completed", None)


def test_it_prints_where_a_run_failed(server: Server, http: Api, functions: Path) -> None:
    write_function(functions / "bad", "bad", "bad", a=program("echo '{\"status\": 404}'"))
    server.line(lambda line: line["kind"] == "live")
    http.send("bad")
    ended = server.line(lambda line: line["kind"] == "run")
    assert (ended["status"], ended["error"]["step"], ended["error"]["status"]) == ("failed", "a", 404)


def test_it_prints_a_table_and_the_address_for_people(functions: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stepwell", "dev", str(functions), "--port", "0", "--db", str(tmp_path / "db")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = ""
    while "ready" not in seen:
        line = process.stdout.readline()
        assert line, "it ended"
        seen += line
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "one" in seen
    assert "two" in seen
    assert "http://127.0.0.1:" in seen
    assert (process.returncode, errors) == (0, "")


def test_for_an_empty_folder_it_prints_how_to_begin(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with dev(tmp_path / "empty", tmp_path / "db") as server:
        assert server.line(lambda line: line["kind"] == "empty")


def test_a_database_in_the_folder_of_functions_is_ignored(functions: Path) -> None:
    with dev(functions, functions / "my.db") as server, api(server) as http:
        http.ended(http.send("one"))
        write_function(functions / "one", "one", "one", a=program("echo 2"))
        server.line(lambda line: line["kind"] == "live")
        assert live(http) == {"one": 2, "two": 1}
        assert [line for line in server.lines if line["kind"] == "problem"] == []


# --- changes ---------------------------------------------------------------------------------------------------------


def test_a_saved_change_is_a_new_version_within_two_seconds(server: Server, http: Api, functions: Path) -> None:
    write_function(functions / "one", "one", "one", a=program("echo '\"changed\"'"))
    saved = time.monotonic()
    line = server.line(lambda line: line["kind"] == "live")
    assert time.monotonic() - saved < 2
    assert (line["function"], line["version"]) == ("one", 2)
    assert http.ended(http.send("one"))["output"] == {"a": "changed"}
    assert live(http) == {"one": 2, "two": 1}


def test_a_name_that_is_not_utf_8_does_not_end_the_watching(server: Server, http: Api, functions: Path) -> None:
    odd = os.fsencode(functions) + b"/\xff"
    os.mkdir(odd)  # noqa: PTH102
    with open(odd + b"/stepwell.json", "wb") as file:  # noqa: PTH123
        file.write(b"{}")
    server.line(lambda line: "not UTF-8" in str(line))
    write_function(functions / "late", "late", "late")
    server.line(lambda line: "late" in str(line))


def test_changed_code_is_a_new_version(server: Server, http: Api, functions: Path) -> None:
    (functions / "one" / "note.txt").write_text("new")
    assert server.line(lambda line: line["kind"] == "live")["function"] == "one"


def test_a_broken_file_keeps_the_old_version_until_it_is_fixed(server: Server, http: Api, functions: Path) -> None:
    definition = functions / "one" / "stepwell.json"
    whole = definition.read_text()
    definition.write_text(whole[:-1] + ",")
    message = server.line(lambda line: line["kind"] == "problem")["message"]
    lines = len(whole.splitlines())
    assert message.startswith(f"{definition}:{lines}:")
    assert http.ended(http.send("one"))["output"] == {"a": "done"}
    definition.write_text(whole.replace("done", "mended"))
    server.line(lambda line: line["kind"] == "live")
    assert http.ended(http.send("one"))["output"] == {"a": "mended"}


def test_a_different_error_in_a_file_is_reported_again(server: Server, functions: Path) -> None:
    definition = functions / "one" / "stepwell.json"
    definition.write_text("{")
    first = server.line(lambda line: line["kind"] == "problem")
    definition.write_text('{"id": "one", "triggers": [{"event": "x"}], "colour": "red"}')
    assert "colour" in server.line(lambda line: line["kind"] == "problem" and line != first)["message"]


def test_a_second_definition_beside_the_first_keeps_what_is_live(server: Server, http: Api, functions: Path) -> None:
    (functions / "one" / "stepwell.yaml").write_text("id: other\ntriggers: [{event: other}]\n")
    assert "another definition" in server.line(lambda line: line["kind"] == "problem")["message"]
    assert live(http) == {"one": 1, "two": 1}


def test_a_new_function_starts_and_a_removed_one_starts_no_more(server: Server, http: Api, functions: Path) -> None:
    write_function(functions / "three", "three", "three")
    assert server.line(lambda line: line["kind"] == "live")["function"] == "three"
    assert http.ended(http.send("three"))["status"] == "completed"
    (functions / "three" / "stepwell.json").unlink()
    assert server.line(lambda line: line["kind"] == "removed")["function"] == "three"
    assert live(http) == {"one": 1, "two": 1}
    assert http.runs_of(http.send("three")) == []


def test_an_open_run_keeps_its_version(server: Server, http: Api, functions: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = program(f"while [ ! -e {go} ]; do sleep 0.01; done; echo 1")
    write_function(functions / "one", "one", "one", a=wait, b=program("echo '\"old\"'", after=[{"step": "a"}]))
    server.line(lambda line: line.get("version") == 2)
    event_id = http.send("one")
    eventually(lambda: http.runs_of(event_id)[0]["steps"]["a"]["status"] == "running")
    write_function(functions / "one", "one", "one", a=wait, b=program("echo '\"new\"'", after=[{"step": "a"}]))
    server.line(lambda line: line.get("version") == 3)
    go.touch()
    run = http.ended(event_id)
    assert (run["function_version"], run["output"]) == (2, {"b": "old"})


def test_changes_made_while_it_was_down_are_live_at_the_next_start(functions: Path, tmp_path: Path) -> None:
    with dev(functions, tmp_path / "db") as server:
        assert server.stop() == 0
    write_function(functions / "one", "one", "one", a=program("echo 2"))
    (functions / "deep" / "down" / "two" / "stepwell.json").unlink()
    with dev(functions, tmp_path / "db") as server, api(server) as http:
        assert live(http) == {"one": 2}


# --- removed and replaced folders ------------------------------------------------------------------------------------


def test_it_continues_when_the_folder_is_removed_and_created_again(server: Server, http: Api, functions: Path) -> None:
    for version in (2, 3):  # as git checkout and rsync do
        functions.rename(functions.with_name(f"old{version}"))
        server.line(lambda line: "does not exist" in str(line))
        assert live(http) == {"one": version - 1, "two": 1}  # a definition that cannot be read keeps the old version
        write_function(functions / "deep" / "down" / "two", "two", {"event": "two", "expression": "data.ok == true"})
        write_function(functions / "one", "one", "one", a=program(f"echo {version}"))
        server.line(lambda line, version=version: line.get("version") == version)  # type: ignore[misc]
    write_function(functions / "one", "one", "one", a=program("echo 4"))
    server.line(lambda line: line.get("version") == 4)


@pytest.mark.parametrize("removed", [".", "one"])
def test_it_continues_when_a_folder_is_replaced_at_once(server: Server, functions: Path, removed: str) -> None:
    for version in range(2, 6):  # a new folder may get the inode number of the old one
        shutil.rmtree(functions / removed)
        write_function(functions / "one", "one", "one", a=program(f"echo {version}"))
        server.line(lambda line, version=version: line.get("version") == version)  # type: ignore[misc]


def test_it_notices_that_the_folder_was_replaced(server: Server, functions: Path) -> None:
    write_function(functions.with_name("new") / "other", "other", "other")
    functions.rename(functions.with_name("old"))
    functions.with_name("new").rename(functions)
    server.line(lambda line: line.get("function") == "other" and line["kind"] == "live")
    write_function(functions / "third", "third", "third")
    server.line(lambda line: line.get("function") == "third")


def test_a_linked_function_is_live_and_so_are_its_saves(server: Server, functions: Path, tmp_path: Path) -> None:
    elsewhere = write_function(tmp_path / "elsewhere" / "shared", "shared", "shared")
    (functions / "shared").symlink_to(elsewhere)
    server.line(lambda line: line.get("function") == "shared")
    write_function(elsewhere, "shared", "shared", a=program("echo 2"))
    server.line(lambda line: line.get("function") == "shared" and line.get("version") == 2)


def test_definitions_ignored_by_git_are_reported_and_not_live_unless_named(
    server: Server, http: Api, functions: Path, tmp_path: Path
) -> None:
    (functions / ".gitignore").write_text("scratch/\n")
    write_function(functions / "scratch", "scratch", "scratch")
    write_function(functions / "three", "three", "three")
    server.line(lambda line: line.get("function") == "three")
    warned = server.line(lambda line: line["kind"] == "warning")["message"]
    assert warned == f"{functions}/scratch/stepwell.json:1:1: " + (
        "is skipped: git ignores it; name the folder explicitly to use it"
    )
    assert live(http) == {"one": 1, "two": 1, "three": 1}
    with dev(functions / "scratch", tmp_path / "db2") as other, api(other) as at_other:
        assert live(at_other) == {"scratch": 1}


def test_temporary_files_of_editors_are_ignored(server: Server, http: Api, functions: Path) -> None:
    for name in (".main.sh.swp", ".DS_Store", "4913", "main.sh~", ".idea/workspace.xml"):
        (functions / "one" / name).parent.mkdir(exist_ok=True)
        (functions / "one" / name).write_text("x")
    write_function(functions / "three", "three", "three")
    server.line(lambda line: line.get("function") == "three")
    assert live(http) == {"one": 1, "two": 1, "three": 1}


# --- servers that do not start ---------------------------------------------------------------------------------------


def refused(*arguments: str | Path) -> str:
    """The error of a server that does not start; checks exit code 1 and no traceback."""
    server = Server("dev", *arguments, "--json")
    assert server.wait() == 1, server.lines
    assert server.stderr.startswith("error: ")
    assert len(server.stderr.splitlines()) == 1
    return server.stderr


def test_a_second_server_on_one_database_refuses_to_start(server: Server, functions: Path, tmp_path: Path) -> None:
    text = refused(functions, "--port", "0", "--db", tmp_path / "db")
    assert f"process {server.process.pid}" in text
    assert "--db" in text
    (tmp_path / "link").symlink_to(tmp_path / "db")
    assert "in use" in refused(functions, "--port", "0", "--db", tmp_path / "link")


def test_a_database_is_free_again_after_a_kill(functions: Path, tmp_path: Path) -> None:
    with dev(functions, tmp_path / "db") as server:
        server.kill()
    with dev(functions, tmp_path / "db") as server:
        assert server.stop() == 0


def test_a_port_in_use_is_reported_with_advice(functions: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(functions, "--port", str(port), "--db", tmp_path / "db")
    assert f"127.0.0.1:{port}" in text
    assert "--port" in text


def test_an_invalid_host_is_reported(functions: Path, tmp_path: Path) -> None:
    assert "no.such.host.invalid" in refused(functions, "--host", "no.such.host.invalid", "--db", tmp_path / "db")


@pytest.mark.parametrize(
    "content", [b"this is no database, and never was " * 100, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_a_file_that_is_not_a_database_is_refused(functions: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert str(tmp_path / "file") in refused(functions, "--port", "0", "--db", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content


def test_a_folder_is_no_database(functions: Path, tmp_path: Path) -> None:
    assert str(tmp_path) in refused(functions, "--port", "0", "--db", tmp_path)


def test_a_newer_database_is_refused(functions: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    assert "upgrade" in refused(functions, "--port", "0", "--db", tmp_path / "db")


# --- shutdown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_at_once_with_all_its_processes(tmp_path: Path, number: signal.Signals) -> None:
    pids = tmp_path / "pids"
    script = program(f"sleep 60 & echo $$ $! >> {pids}; wait")
    with dev(write_function(tmp_path / "f", a=script, b=script), tmp_path / "db") as server, api(server) as http:
        http.send()
        eventually(lambda: pids.exists() and len(pids.read_text().split()) == 4)
        asked = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - asked < 3
    assert server.stderr == ""
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split()), within=2)


# --- a database in memory --------------------------------------------------------------------------------------------


def test_a_database_in_memory_leaves_nothing_behind(
    functions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    for _ in range(2):
        with dev(functions, ":memory:") as server, api(server) as http:
            assert http.get("/v1/runs")["data"] == []
            http.runs_of(http.send("one"))
            assert any(path.name.startswith("stepwell-dev-") for path in temporary.iterdir())
            assert server.stop() == 0
        assert not any(path.name.startswith("stepwell-dev-") for path in temporary.iterdir())
    assert not Path(":memory:").exists()
