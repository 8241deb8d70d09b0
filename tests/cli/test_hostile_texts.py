"""Every command, and the output of `stepwell dev`, with texts from outside that could take over a terminal.

The commands call a server through a proxy that makes every text in the answers hostile, so it does not matter which
fields a command prints.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Api, Json, Server, dev, eventually, program, serve, write_function

HOSTILE = "[red]evil\x1b]52;c;cm0=\x07\x1b[2J\x1b[1A\x9b31m\x7f\u202e[link=http://x]y[/link][/red]\r\nerror: forged\n"
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_KEPT = {"status", "policy", "change", "decision", "type", "state", "level", "default"}
"""Fields whose values the commands interpret."""


def assert_harmless(text: str, what: object) -> None:
    assert not (found := _UNSAFE.findall(text)), (what, found)
    assert not re.search(r"(?<!\[red\])evil", text), (what, "markup was interpreted", text)
    assert not any(line.startswith("error: forged") for line in text.splitlines()), (what, text)


def hostile(value: Any, field: str = "") -> Any:
    if isinstance(value, dict):
        return {name: hostile(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner, field) for inner in value]
    if not isinstance(value, str) or field in _KEPT or _is_time(value):
        return value
    return f"{HOSTILE}{value}" if field != "next" else value


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    target = ""

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name: self.headers[name] for name in ("content-type", "authorization") if name in self.headers}
        answer = httpx.request(self.command, self.target + self.path, content=content, headers=headers)
        body = json.dumps(hostile(answer.json()), ensure_ascii=False).encode()
        self.send_response(answer.status_code)
        self.send_header("content-type", answer.headers["content-type"])
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    escapes = "printf '[red]evil\\033[2J\\233\\r\\nerror: forged\\n' >&2;"
    write_function(tmp_path / "f" / "esc", "esc", "x/esc", ok=program(f"{escapes} echo '{{}}'"))
    fails = program(f"{escapes} exit 1")
    write_function(tmp_path / "f" / "fails", "fails", "x/esc", bad=fails)
    asks = {"runtime": {"type": "approval", "message": "{{ data.m }}?", "timeout": "1d"}}
    write_function(tmp_path / "f" / "asks", "asks", {"event": "x/esc", "expression": "data.m != 1"}, ask=asks)
    write_function(tmp_path / "f" / "never", "never", {"event": "x/esc", "expression": "data.none == 1"})
    hooks = tmp_path / "f" / "webhooks"
    hooks.mkdir()
    (hooks / "w.json").write_text(json.dumps({"event": "w/{{ body.kind }}"}))
    return tmp_path / "f"


@pytest.fixture
def server(folder: Path, tmp_path: Path, key: str) -> Iterator[Server]:
    with serve(folder, tmp_path / "db") as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"target": server.url})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as threading_http_server:
        threading_http_server.daemon_threads = True
        thread = threading.Thread(target=threading_http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{threading_http_server.server_address[1]}"
        threading_http_server.shutdown()
        thread.join()


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all commands, without groups."""
    command = command.load() if hasattr(command, "load") else command
    if not hasattr(command, "commands"):
        yield path
        return
    for name, item in command.commands.items():
        yield from commands(item, (*path, name))
    if command.invoke_without_command:
        yield path


def arguments(event: str, run: str, folder: Path) -> dict[tuple[str, ...], Sequence[str]]:
    """The arguments of commands that need some."""
    body = str(folder / "esc" / "stepwell.json")
    return {
        ("send",): ("x/esc", "--data", json.dumps({"m": HOSTILE})),
        ("run",): (str(folder / "esc"), "--event", json.dumps({"name": "x/esc", "data": {"m": HOSTILE}})),
        ("init",): ("made", "--path", str(folder.parent / HOSTILE.strip().replace("/", ":"))),
        ("validate",): (str(folder),),
        ("push",): (str(folder),),
        ("events", "show"): (event,),
        ("runs", "show"): (run, "--logs"),
        ("rerun",): (run,),
        ("cancel",): (run,),
        ("approve",): (run,),
        ("decline",): (run,),
        ("functions", "show"): ("esc",),
        ("functions", "remove"): ("never", "--yes"),
        ("versions",): ("esc",),
        ("promote",): ("esc",),
        ("rollback",): ("esc",),
        ("pause",): ("esc",),
        ("resume",): ("esc",),
        ("replay",): ("esc", "--event", "x/esc", "--yes", "--dry-run"),
        ("user",): ("esc@x.org",),
        ("user", "show"): ("esc@x.org",),
        ("user", "erase"): ("esc@x.org", "--yes"),
        ("webhooks", "show"): ("w",),
        ("webhooks", "test"): ("w", "--body", body),
        ("webhooks", "push"): (str(folder),),
        ("webhooks", "remove"): ("w",),
        ("types", "show"): ("x/typed",),
        ("types", "infer"): ("--event", "x/esc"),
        ("types", "push"): (str(folder),),
        ("types", "check"): (str(folder),),
        ("keys", "list"): ("--db", str(folder.parent / "db")),
        ("keys", "create"): ("--name", HOSTILE, "--db", str(folder.parent / "db")),
    }


def test_no_command_prints_control_characters_or_markup_from_outside(
    server: Server, proxy: str, http: Api, key: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    user = {"id": HOSTILE, "email": "esc@x.org", "phone": f"{HOSTILE}2", HOSTILE: HOSTILE}
    event = http.send("x/esc", data={"m": HOSTILE, HOSTILE: 1, "l": [HOSTILE]}, user=user)
    schema = {"type": "object", "properties": {HOSTILE: {"type": "string", "description": HOSTILE}}}
    http.http.post("/v1/types", json={"name": "x/typed", "version": "1", "schema": schema}).raise_for_status()
    run = eventually(lambda: next((item["id"] for item in http.runs_of(event) if item["function_id"] == "asks"), ""))
    given = arguments(event, run, folder)
    seen = set()
    last = ("remove", "erase", "cancel", "approve", "decline", "pause")
    for path in sorted(
        commands(typer.main.get_command(app)), key=lambda pair: (pair[-1:] in [(n,) for n in last], pair)
    ):
        if path in (("dev",), ("serve",)):
            continue  # servers do not end; `dev` is tested below
        for more in ((), ("--json",)):
            env = {"STEPWELL_URL": proxy, "STEPWELL_KEY": key, "COLUMNS": "2000", "STEPWELL_ENV": ""}
            done = CliRunner().invoke(app, [*path, *given.get(path, ()), *more], env=env, input="")
            assert done.exception is None or isinstance(done.exception, SystemExit), (path, done.exception)
            assert_harmless(done.stderr, (path, more))
            if more:
                assert not _UNSAFE.search(done.stdout), path
                assert not done.stdout or done.exit_code == 2 or json.loads(done.stdout) is not None
            else:
                assert_harmless(done.stdout, path)
            if "evil" in done.stdout + done.stderr:
                seen.add(path)
    for path in (("runs",), ("runs", "show"), ("events",), ("events", "show"), ("users",), ("user", "show"), ("send",)):
        assert path in seen, "this would prove nothing"
    for path in (("functions",), ("versions",), ("approvals",), ("webhooks", "list"), ("types", "show"), ("rerun",)):
        assert path in seen or (*path, "list") in seen, path
    assert len(seen) > 20, seen


def test_a_project_may_have_any_names(tmp_path: Path) -> None:
    name = "[red]evil\x1b[2J\x9b\u202e[link=x]y"
    broken = tmp_path / name
    broken.mkdir()
    (broken / "stepwell.json").write_text(json.dumps({"id": HOSTILE, HOSTILE: 1, "steps": {HOSTILE: {}}}))
    (tmp_path / "webhooks").mkdir()
    (tmp_path / "webhooks" / f"{name}.json").write_text(json.dumps({"event": HOSTILE, HOSTILE: 1}))
    for command in (("validate",), ("types", "check"), ("push",), ("run",), ("webhooks", "push")):
        for path in (tmp_path, broken):
            env = {"STEPWELL_URL": "http://127.0.0.1:1", "COLUMNS": "2000", "STEPWELL_ENV": ""}
            done = CliRunner().invoke(app, [*command, str(path)], env=env)
            assert done.exit_code != 0, command
            assert_harmless(done.stdout + done.stderr, command)


def test_the_output_of_dev_has_no_control_characters_from_outside(folder: Path, tmp_path: Path) -> None:
    (folder / "never" / "schemas").mkdir()
    log = tmp_path / "log"
    command = [sys.executable, "-m", "stepwell", "dev", folder, "--port", "0", "--db", tmp_path / "dev.db"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, env={"COLUMNS": "2000"} | _env()
        )
        try:
            url = eventually(lambda: re.search(r"ready at (\S+)", log.read_text()))
            sent = {
                "name": "x/esc",
                "id": f"{HOSTILE.replace(chr(10), '')}",
                "data": {"m": HOSTILE},
                "user": {"id": HOSTILE},
            }
            sent["id"] = _UNSAFE.sub("", sent["id"])  # ids cannot have control characters, but markup
            httpx.post(f"{url[1]}/e/x", content=json.dumps(sent)).raise_for_status()
            httpx.post(f"{url[1]}/webhooks/w", content=json.dumps({"kind": HOSTILE}))
            (folder / "fails" / "stepwell.json").write_text(json.dumps({"id": HOSTILE, HOSTILE: 1}))
            eventually(lambda: "asks" in (text := log.read_text()) and "error" in text and "not started" in text)
        finally:
            process.terminate()
            process.wait(20)
    assert "evil" in log.read_text()
    assert_harmless(log.read_text(), "dev")


def _env() -> Json:
    import os

    return dict(os.environ)


def test_devs_json_is_json_without_control_characters(folder: Path, tmp_path: Path) -> None:
    with dev(folder, tmp_path / "dev.db") as server:
        httpx.post(
            f"{server.url}/e/x", content=json.dumps({"name": "x/esc", "data": {"m": HOSTILE}})
        ).raise_for_status()
        asks = server.line(lambda line: line["kind"] == "asks")
        assert asks["message"].startswith("[red]evil")
