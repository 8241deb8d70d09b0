"""`stepwell types` with real servers, and what servers print about types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Json, Server, dev, write_function

SCHEMA: Json = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("types")
    write_function(folder / "f" / "large", "large", {"event": "order/placed", "expression": "event.data.ammount > 1.0"})
    write_schema(folder / "f", "order/placed.1", SCHEMA)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with dev(folder / "f", folder / "db") as server:
        yield server


def write_schema(folder: Path, name: str, schema: Any) -> None:
    file = folder / "schemas" / f"{name}.schema.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(schema))


def run(server: Server, *arguments: str | Path) -> Any:
    fields = {"STEPWELL_URL": server.url, "COLUMNS": "200"}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=fields)


def ok(server: Server, *arguments: str | Path) -> str:
    result = run(server, *arguments)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_a_server_registers_types_and_prints_wrong_expressions(server: Server) -> None:
    line = server.line(lambda line: line["kind"] == "type")
    assert (line["name"], line["version"], line["change"], line["policy"]) == ("order/placed", "1", "created", "warn")
    assert "ammount" in server.line(lambda line: line["kind"] == "warning")["message"]


def test_types_are_listed_shown_and_given_a_policy(server: Server) -> None:
    assert "order/placed" in ok(server, "types", "list")
    shown = json.loads(ok(server, "types", "show", "order/placed", "--json"))
    assert (shown["version"], shown["schema"]) == ("1", SCHEMA)
    assert '"amount"' in ok(server, "types", "show", "order/placed", "--version", "1")
    assert ok(server, "types", "policy", "order/placed", "reject") == "order/placed: reject\n"
    refused = run(server, "send", "order/placed", "--data", '{"amount": "3"}')
    assert (refused.exit_code, "/data/amount" in refused.stderr) == (1, True)
    line = server.line(lambda line: line["kind"] == "refused")
    assert (line["name"], line["errors"][0]["pointer"]) == ("order/placed", "/data/amount")
    assert ok(server, "types", "policy", "order/placed", "warn") == "order/placed: warn\n"
    ok(server, "send", "order/placed", "--data", '{"amount": "3"}')
    line = server.line(lambda line: line["kind"] == "event" and line.get("invalid"))
    assert line["invalid"][0]["pointer"] == "/data/amount"
    assert "invalid /data/amount" in ok(server, "events", "show", line["id"])


def test_the_policy_for_unknown_types_is_set_and_shown(server: Server) -> None:
    assert ok(server, "types", "unknown", "warn") == "events of unknown types: warn\n"
    assert json.loads(ok(server, "types", "unknown", "off", "--json")) == {"unknown_types": "off"}


def test_a_push_refuses_to_break_a_version_and_prints_what_a_new_version_affects(
    server: Server, tmp_path: Path
) -> None:
    broken = {"type": "object", "properties": {"amount": {"type": "string"}}}
    write_schema(tmp_path, "order/placed.1", broken)
    refused = run(server, "types", "push", tmp_path)
    assert refused.exit_code == 1
    assert "`amount` was number, is string now" in refused.stderr
    assert "new version" in refused.stderr
    (tmp_path / "schemas" / "order" / "placed.1.schema.json").rename(
        tmp_path / "schemas" / "order" / "placed.2.schema.json"
    )
    text = ok(server, "types", "push", tmp_path)
    assert "created order/placed 2" in text
    assert "breaks 1 /properties/amount/type" in text
    assert "affects large /triggers/0: starts on order/placed" in text
    (again,) = json.loads(ok(server, "types", "push", tmp_path, "--json"))
    assert again["change"] == "unchanged"


def test_a_push_without_types_prints_how_to_add_one(server: Server, tmp_path: Path) -> None:
    result = run(server, "types", "push", tmp_path)
    assert (result.exit_code, "schemas/order/placed.1.schema.json" in result.stderr) == (1, True)


def test_a_broken_schema_is_reported_with_the_place(server: Server, tmp_path: Path) -> None:
    write_schema(tmp_path, "order/placed.3", {"type": "objekt"})
    result = run(server, "types", "push", tmp_path)
    assert (result.exit_code, "placed.3.schema.json:1:" in result.stderr) == (1, True)
