"""`stepwell serve` for its operator: logs, API keys, shutdown and restart."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.servers import Server, api, cli, eventually, new_key, program, serve, write_function


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "db"


def test_every_line_of_its_output_is_json(tmp_path: Path, db: Path) -> None:
    write_function(tmp_path / "f" / "good", "good")
    (tmp_path / "f" / "bad").mkdir()
    (tmp_path / "f" / "bad" / "stepwell.json").write_text('{"id": 1}')
    key = new_key(db)
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        http.ended(http.send())
        assert http.http.post("/e", content=b"nonsense").status_code == 400
        assert server.stop() == 0
    for line in server.lines:  # `Server` has parsed each line
        assert {"time", "level", "logger", "message"} <= set(line)
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
    messages = [line["message"] for line in server.lines]
    assert {"live", "listening", "stopping", "stopped"} <= set(messages)
    errors = [line["message"] for line in server.lines if line["level"] == "error"]
    assert errors
    assert all("bad/stepwell.json:1:" in error for error in errors)
    assert server.stderr == ""
    assert key not in str(server.lines)


def test_the_log_shows_why_attempts_and_runs_failed(tmp_path: Path, db: Path) -> None:
    retries = {"attempts": 1, "backoff": {"initial": "1ms"}}
    step = program("echo 'ValueError: boom' >&2; exit 3", retries=retries)
    key = new_key(db)
    with serve(write_function(tmp_path / "f", a=step), db) as server, api(server, key) as http:
        run = http.ended(http.send())
        server.stop()
    lines = [line for line in server.lines if line.get("run") == run["id"]]
    first, second, last = lines
    fields = {"function": "f", "version": 1, "run": run["id"], "step": "a", "kind": "exit"}
    assert all(fields.items() <= line.items() and "boom" in line["error"] for line in lines)
    assert [(line["logger"], line["level"], line["attempt"]) for line in lines] == [
        ("stepwell.attempts", "info", 1),
        ("stepwell.attempts", "warning", 2),
        ("stepwell.runs", "warning", 2),
    ]
    assert first["next_attempt_at"] is not None
    assert second["next_attempt_at"] is None
    assert "boom" in last["message"]


def test_without_keys_it_warns_and_refuses_all_requests(tmp_path: Path, db: Path) -> None:
    with serve(write_function(tmp_path / "f"), db) as server:
        (warning,) = [line["message"] for line in server.lines if line["level"] == "warning"]
        assert "stepwell keys create" in warning
        for headers in ({}, {"authorization": "Bearer x"}):
            answer = httpx.post(f"{server.url}/e", json={"name": "go"}, headers=headers)
            assert answer.status_code == 401
            assert {"status": 401, "error": "unauthorized"}.items() <= answer.json().items()
            assert "stepwell keys create" in answer.json()["message"]


def test_a_key_is_valid_from_creation_until_it_is_revoked(tmp_path: Path, db: Path) -> None:
    with serve(write_function(tmp_path / "f"), db) as server, httpx.Client(base_url=server.url) as http:
        made = json.loads(cli("keys", "create", "--db", str(db), "--json").stdout)

        def send() -> int:
            return http.post(f"/e/{made['key']}", json={"name": "x"}).status_code

        assert send() == 200
        assert cli("keys", "revoke", made["id"], "--db", str(db)).returncode == 0
        assert send() == 401


def test_no_file_contains_a_plain_text_key(tmp_path: Path, db: Path) -> None:
    keys = [new_key(db, "send"), new_key(db, "manage")]
    with serve(write_function(tmp_path / "f"), db) as server:
        assert [httpx.post(f"{server.url}/e/{key}", json={"name": "x"}).status_code for key in keys] == [200, 200]
        files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "f")]
        assert db in files
        for path in files:
            content = path.read_bytes()
            assert not any(key.encode() in content or key[8:].encode() in content for key in keys), path


def test_a_step_gets_the_production_environment(tmp_path: Path, db: Path) -> None:
    write_function(tmp_path / "f", a=program('echo "$1"'))
    (tmp_path / "f" / "main.sh").write_text('echo "$1"')
    step = {"path": "file://.", "runtime": {"type": "lambda"}}
    write_function(tmp_path / "f", a=step)
    key = new_key(db)
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        assert http.ended(http.send())["output"]["a"]["ctx"]["env"] == "production"


def test_a_full_disk_refuses_senders_and_loses_no_accepted_event(tmp_path: Path, db: Path) -> None:
    write_function(tmp_path / "f")
    key = new_key(db)
    file_limit = ("sh", "-c", 'ulimit -f 400; exec "$0" "$@"')
    accepted: list[str] = []
    with serve(tmp_path / "f", db, within=file_limit) as server, api(server, key) as http:
        for n in range(1000):
            answer = http.http.post("/e", json={"name": "go", "id": str(n), "data": {"x": "x" * 20_000}})
            if answer.status_code != 200:
                break
            accepted += answer.json()["ids"]
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert "try again" in answer.json()["detail"]
        assert http.http.get("/healthz").status_code == 200
        assert server.stop() == 0
    assert accepted
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        assert {http.ended(event_id)["status"] for event_id in accepted} == {"completed"}
        assert http.http.get(f"/v1/events/{len(accepted)}").status_code == 404
        http.send(id=str(len(accepted)))


# --- its end ---------------------------------------------------------------------------------------------------------


def test_running_attempts_may_end_within_the_grace_and_no_new_ones_start(tmp_path: Path, db: Path) -> None:
    go, second = tmp_path / "go", tmp_path / "second"
    wait = program(f"touch {tmp_path}/began; while [ ! -e {go} ]; do sleep 0.01; done; echo 1")
    write_function(tmp_path / "f", a=wait, b=program(f"touch {second}; echo 2", after=[{"step": "a"}]))
    key = new_key(db)
    with serve(tmp_path / "f", db, "--grace", "15") as server, api(server, key) as http:
        event_id = http.send()
        eventually((tmp_path / "began").exists)
        server.process.send_signal(signal.SIGTERM)
        assert server.line(lambda line: line["message"] == "stopping")["running"] == 1
        go.touch()
        asked = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - asked < 5
        assert not second.exists()
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        run = http.ended(event_id)
    assert (run["status"], run["output"]) == ("completed", {"b": 2})
    assert [attempt["status"] for attempt in run["steps"]["a"]["attempts"]] == ["completed"]


def test_attempts_that_exceed_the_grace_are_lost_and_run_again(tmp_path: Path, db: Path) -> None:
    pid = tmp_path / "pid"
    stubborn = f"trap '' TERM; if [ ! -e {pid} ]; then echo $$ > {pid}; sleep 60; sleep 60; fi; echo 1"
    write_function(tmp_path / "f", a=program(stubborn), b=program("echo 2", after=[{"step": "a"}]))
    key = new_key(db)
    with serve(tmp_path / "f", db, "--grace", "0.3") as server, api(server, key) as http:
        event_id = http.send()
        eventually(lambda: pid.exists() and pid.read_text().strip())
        asked = time.monotonic()
        assert server.stop() == 0
        assert 0.3 <= time.monotonic() - asked < 5
        assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        run = http.ended(event_id)
    assert (run["status"], run["output"]) == ("completed", {"b": 2})
    assert [attempt["status"] for attempt in run["steps"]["a"]["attempts"]] == ["lost", "completed"]
    assert [attempt["attempt"] for attempt in run["steps"]["a"]["attempts"]] == [1, 2]


def test_a_second_signal_does_not_wait_for_the_grace(tmp_path: Path, db: Path) -> None:
    began = tmp_path / "began"
    write_function(tmp_path / "f", a=program(f"touch {began}; sleep 60"))
    key = new_key(db)
    with serve(tmp_path / "f", db, "--grace", "60") as server, api(server, key) as http:
        http.send()
        eventually(began.exists)
        server.process.send_signal(signal.SIGTERM)
        server.line(lambda line: line["message"] == "stopping")
        asked = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - asked < 30
    assert server.stderr == ""


def test_a_second_signal_does_not_wait_for_slow_clients(tmp_path: Path, db: Path) -> None:
    """The client has sent half of a request, and a step is running."""
    began = tmp_path / "began"
    write_function(tmp_path / "f", a=program(f"touch {began}; sleep 60"))
    key = new_key(db)
    with serve(tmp_path / "f", db, "--grace", "60") as server, api(server, key) as http:
        http.send()
        eventually(began.exists)
        with _in_the_middle_of_a_request(server, key):
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: _is_refused(server))
            asked = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - asked < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_the_default_grace_the_server_ends_in_ten_seconds(
    tmp_path: Path, db: Path, number: signal.Signals
) -> None:
    """As with `docker stop`: a step that never ends, and a client that never completes a request."""
    pid = tmp_path / "pid"
    write_function(tmp_path / "f", a=program(f"trap '' TERM INT; echo $$ > {pid}; while :; do sleep 1; done"))
    key = new_key(db)
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        http.send()
        eventually(lambda: pid.exists() and pid.read_text().strip())
        with _in_the_middle_of_a_request(server, key):
            asked = time.monotonic()
            assert server.stop(number) == 0
            assert time.monotonic() - asked < 9.5
        assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_requests_and_steps_share_one_grace_period(tmp_path: Path, db: Path) -> None:
    """A client with an incomplete request does not shorten or prolong the grace period."""
    began = tmp_path / "began"
    write_function(tmp_path / "f", a=program(f"touch {began}; sleep 60"))
    key = new_key(db)
    with serve(tmp_path / "f", db, "--grace", "3") as server, api(server, key) as http:
        http.send()
        eventually(began.exists)
        with _in_the_middle_of_a_request(server, key):
            asked = time.monotonic()
            assert server.stop() == 0
            assert 3 <= time.monotonic() - asked < 5.9  # not twice 3


def test_a_blocked_server_ends_and_logs_why(tmp_path: Path) -> None:
    """If a thread blocks the event loop, the server must end without waiting for SIGKILL."""
    script = (
        "import asyncio, time, logging\n"
        "from stepwell.cli.server import ending\n"
        "from stepwell.cli.server.dev import start\n"
        "ending.CLOSING_S = 0.3\n"
        "async def main():\n"
        "    try:\n"
        "        print('ready', flush=True); await asyncio.sleep(60)\n"
        "    finally:\n"
        "        time.sleep(60)\n"
        "start(main, 0.2)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1
        assert b"shutdown not finished after" in process.stderr.read()


@contextmanager
def _in_the_middle_of_a_request(server: Server, key: str) -> Iterator[None]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /e HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 100\r\n\r\n"
        client.sendall(head.encode() + b'{"name"')
        yield


def _is_refused(server: Server) -> bool:
    try:
        httpx.get(f"{server.url}/healthz")
    except httpx.HTTPError:
        return True
    return False


def test_a_request_in_progress_is_answered_before_the_end(tmp_path: Path, db: Path) -> None:
    """An event that was accepted just before the end exists after the restart."""
    key = new_key(db)
    write_function(tmp_path / "f")
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        ids = [http.send() for _ in range(20)]
        assert server.stop() == 0
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        assert {http.ended(event_id)["status"] for event_id in ids} == {"completed"}


def test_it_ends_in_order_before_it_is_ready(tmp_path: Path, db: Path) -> None:
    server = Server("serve", write_function(tmp_path / "f"), "--port", "0", "--db", db)
    server.line(lambda line: line["message"] == "live")
    assert server.stop() == 0
    assert server.stderr == ""


# --- why it does not start -------------------------------------------------------------------------------------------


def test_a_second_server_on_one_database_refuses_to_start(tmp_path: Path, db: Path) -> None:
    functions = write_function(tmp_path / "f")
    with serve(functions, db) as server:
        done = subprocess.run(
            [sys.executable, "-m", "stepwell", "serve", functions, "--port", "0", "--db", db],
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.returncode == 1
    assert f"process {server.process.pid}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_function_keeps_its_last_version(tmp_path: Path, db: Path) -> None:
    write_function(tmp_path / "f" / "one", "one")
    key = new_key(db)
    with serve(tmp_path / "f", db) as server:
        assert server.stop() == 0
    (tmp_path / "f" / "one" / "stepwell.json").write_text("{")
    with serve(tmp_path / "f", db) as server, api(server, key) as http:
        assert http.ended(http.send())["output"] == {"a": "done"}


def test_handlers_are_found_when_the_database_is_named_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"path": "file://.", "runtime": {"type": "lambda", "handler": "told.handle"}, "retries": {"attempts": 0}}
    write_function(tmp_path / "functions", a=step)
    (tmp_path / "functions" / "told.py").write_text("def handle(event, context):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    key = new_key(tmp_path / "db")
    with serve(Path("functions"), Path("db")) as server, api(server, key) as http:
        assert http.ended(http.send())["output"] == {"a": 1}
