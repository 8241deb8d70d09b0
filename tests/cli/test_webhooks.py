"""`stepwell webhooks`, and the rules that servers load from files."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Json, Server, api, dev, eventually, new_key, serve, write_function

RULE: Json = {
    "event": "github/{{ headers['x-github-event'] }}",
    "user": "body.sender",
    "verify": {"type": "github", "secret": "GITHUB_SECRET"},
}
OPEN: Json = {"event": "order/{{ body.kind }}", "id": "body.id", "if": "body.kind != 'test'"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_function(tmp_path / "f" / "pushed", "pushed", "github/push")
    write(tmp_path / "f", "github", RULE)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with dev(folder / "f", folder / "db", env={"GITHUB_SECRET": "hush"}) as server:
        yield server


def write(folder: Path, name: str, rule: Any) -> Path:
    file = folder / "webhooks" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(rule if isinstance(rule, str) else json.dumps(rule))
    return file


def run(server: Server, *arguments: str | Path, input: str | None = None, env: dict[str, str] | None = None) -> Any:
    fields = {"STEPWELL_URL": server.url, "COLUMNS": "200", **(env or {})}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=fields, input=input)


def ok(server: Server, *arguments: str | Path, input: str | None = None) -> str:
    result = run(server, *arguments, input=input)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def refused(server: Server, *arguments: str | Path) -> str:
    result = run(server, *arguments)
    assert result.exit_code == 1, result.output
    return str(result.stderr)


def post(server: Server, name: str, body: bytes = b"{}", **headers: str) -> httpx.Response:
    fields = {header.replace("_", "-"): value for header, value in headers.items()}
    return httpx.post(
        f"{server.url}/webhooks/{name}", content=body, headers={"content-type": "application/json", **fields}
    )


def test_a_server_has_the_webhooks_that_it_finds_and_follows_their_files(folder: Path, server: Server) -> None:
    assert server.line(lambda line: line["kind"] == "webhook")["name"] == "github"
    body = b'{"sender": {"id": 7}}'
    digest = hmac.new(b"hush", body, "sha256").hexdigest()
    signed = {"x_hub_signature_256": f"sha256={digest}", "x_github_event": "push", "x_github_delivery": "1"}
    assert post(server, "github", body, **signed).json() == {"ids": ["webhook:github:1"], "status": 200}
    assert post(server, "github", body).status_code == 401
    with api(server) as http:
        run = http.ended("webhook:github:1")
    assert (run["function_id"], run["user"]) == ("pushed", "7")
    file = write(folder / "f", "open", {"event": "open"})
    assert "anyone can send requests" in server.line(lambda line: line["kind"] == "warning")["message"]
    server.line(lambda line: line["kind"] == "webhook" and line["name"] == "open")
    file.write_text('{"evnt": 1}')
    assert "`event` is missing" in server.line(lambda line: line["kind"] == "problem")["message"]
    assert post(server, "open").status_code == 200, "the last rule stays"
    file.unlink()
    server.line(lambda line: line["kind"] == "removed" and line.get("webhook") == "open")
    assert post(server, "open").status_code == 404


def test_rules_that_are_not_from_a_file_stay(folder: Path) -> None:
    rule = write(folder / "other", "open", OPEN)
    with dev(folder / "f", folder / "db") as server:
        assert "created webhook open" in ok(server, "webhooks", "push", folder / "other")
    rule.unlink()
    (folder / "f" / "webhooks" / "github.json").unlink()
    with dev(folder / "f", folder / "db") as server:
        assert [load["name"] for load in json.loads(ok(server, "webhooks", "list", "--json"))] == ["open"]


def test_serve_has_the_webhooks_of_its_folders(folder: Path) -> None:
    key = new_key(folder / "db")
    write(folder / "f", "broken", {"event": 5})
    with serve(folder / "f", folder / "db") as server, api(server, key) as http:
        eventually(lambda: [line for line in server.lines if line["message"] == "webhook"])
        assert [item["name"] for item in http.get("/v1/webhooks")["data"]] == ["github"]
        answer = post(server, "github", x_hub_signature_256="sha256=00")
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
        server.stop()
    errors = [line["message"] for line in server.lines if line["level"] == "error"]
    assert "event must be text" in errors[0]
    assert "secret GITHUB_SECRET: it is not set" in errors[1]


def test_webhooks_are_pushed_listed_shown_and_removed(folder: Path, server: Server) -> None:
    file = write(folder / "other", "orders", OPEN)
    pushed = run(server, "webhooks", "push", file)
    assert "anyone can send requests" in pushed.stderr
    assert "created webhook orders" in pushed.stdout
    assert "nothing has changed" in ok(server, "webhooks", "push", file)
    write(folder / "other", "orders", {**OPEN, "ts": "body.at"})
    assert json.loads(ok(server, "webhooks", "push", folder / "other", "--json")) == [
        {"name": "orders", "change": "updated"}
    ]
    table = ok(server, "webhooks", "list")
    assert "orders" in table
    assert "github/{{ headers['x-github-event'] }}" in table
    assert f"{server.url}/webhooks/orders" in ok(server, "webhooks", "show", "orders")
    assert json.loads(ok(server, "webhooks", "show", "orders", "--json"))["ts"] == "body.at"
    assert "removed orders" in ok(server, "webhooks", "remove", "orders")
    assert "there is no webhook 'orders'" in refused(server, "webhooks", "remove", "orders")
    write(folder / "other", "orders", {"event": "{{ bdy }}"})
    assert "did you mean `body`?" in refused(server, "webhooks", "push", folder / "other")
    (folder / "empty").mkdir()
    assert "no webhooks found" in refused(server, "webhooks", "push", folder / "empty")


def test_a_push_brings_the_webhooks_too(folder: Path, server: Server) -> None:
    write(folder / "f", "orders", {**OPEN, "verify": RULE["verify"]})
    server.line(lambda line: line["kind"] == "webhook" and line["name"] == "orders")

    def changes() -> dict[str, str]:
        """The change of a push. The server may read the files once more meanwhile, and create the webhook again."""
        run(server, "webhooks", "remove", "orders")
        dry = json.loads(ok(server, "push", folder / "f", "--dry-run", "--json"))
        return {webhook["name"]: webhook["change"] for webhook in dry["webhooks"]}

    eventually(lambda: changes() == {"github": "unchanged", "orders": "created"})
    assert "created webhook orders" in ok(server, "push", folder / "f")
    assert "webhook" not in ok(server, "push", folder / "f")


def test_a_rule_can_be_tested_before_and_after_a_push(folder: Path, server: Server) -> None:
    file = write(folder / "other", "orders", OPEN)
    body = folder / "body.json"
    body.write_text('{"kind": "placed", "id": 7}')
    event = {"name": "order/placed", "data": {"kind": "placed", "id": 7}, "user": {}, "id": "webhook:orders:7"}
    assert json.loads(ok(server, "webhooks", "test", file, "--body", body, "--json")) == event
    ok(server, "webhooks", "push", file)
    assert json.loads(ok(server, "webhooks", "test", "orders", "--body", body)) == event
    made = ok(
        server, "webhooks", "test", "github", "--body", "-", "-H", "X-GitHub-Event: ping", input='{"sender": "ada"}'
    )
    assert json.loads(made)["name"] == "github/ping"
    assert "ignored" in ok(server, "webhooks", "test", "orders", "--body", "-", input='{"kind": "test"}')
    with api(server) as http:
        assert http.get("/v1/events")["data"] == [], "nothing was sent"


def test_webhooks_test_can_check_signatures_and_shows_answers_to_challenges(folder: Path, server: Server) -> None:
    verify = {"type": "slack", "secret": "SLACK", "tolerance": "1h"}
    challenge = {"answer": "body.challenge"}
    rule = {"event": "slack/{{ body.payload.type }}", "verify": verify, "challenge": challenge}
    file = write(folder / "other", "slack", rule)
    form = folder / "body.form"
    form.write_text("payload=%7B%22type%22%3A%22click%22%7D")
    assert json.loads(ok(server, "webhooks", "test", file, "--body", form))["name"] == "slack/click"
    at = round(time.time())
    digest = hmac.new(b"hush", f"v0:{at}:{form.read_text()}".encode(), "sha256").hexdigest()
    signed = ("-H", f"X-Slack-Request-Timestamp:{at}", "-H", f"X-Slack-Signature:v0={digest}")
    checked = ("webhooks", "test", file, "--body", form, *signed, "--check")
    result = run(server, *checked, env={"SLACK": "hush"})
    assert json.loads(result.stdout)["name"] == "slack/click"
    assert "no signature is right" in run(server, *checked, env={"SLACK": "other"}).stderr
    asked = run(
        server,
        "webhooks",
        "test",
        file,
        "--body",
        "-",
        "-H",
        "content-type:text/plain",
        input='{"challenge": "[red]x"}',
    )
    assert asked.stdout == "no event; the answer is this text/plain; charset=utf-8:\n[red]x\n"
    assert '"ids"' in ok(server, "webhooks", "test", file, "--method", "GET")
    assert "pass the file" in run(server, "webhooks", "test", file).stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("none", "--body", "-"), "there is no webhook 'none'"),
        (("github", "--body", "-"), 'there is no key "x-github-event"'),
        (("github", "--body", "/none.json"), "cannot read /none.json"),
        (("github", "--body", "-", "-H", "bad"), "is not a header"),
        (("none.json", "--body", "-"), "none.json:1:1"),
    ],
)
def test_webhooks_test_without_an_event_prints_the_reason(
    server: Server, arguments: tuple[str, ...], text: str
) -> None:
    result = run(server, "webhooks", "test", *arguments, input='{"sender": "ada"}')
    assert result.exit_code in (1, 2)
    assert text in result.stderr


def test_validate_checks_rules(folder: Path, server: Server) -> None:
    result = ok(server, "validate", folder / "f", "--json")
    assert json.loads(result) == {
        "functions": ["pushed"], "webhooks": ["github"], "sources": [], "errors": [], "warnings": [],
    }  # fmt: skip
    assert "webhook github" in ok(server, "validate", folder / "f")
    write(folder / "f", "open", {"event": "a", "ids": "x"})
    assert "unknown field `ids`; did you mean `id`?" in refused(server, "validate", folder / "f")
