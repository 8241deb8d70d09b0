"""The checks of a push before anything becomes live: breaking type versions, and expressions that do not fit their
types; and the ways back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Api, Json, Server, api, program, serve, write_function

Command = Callable[..., Any]
NUMBER: Json = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}
TEXT: Json = {"type": "object", "required": ["total"], "properties": {"total": {"type": "string"}}}
REJECT = {"x-stepwell-policy": "reject"}


@pytest.fixture
def server(tmp_path: Path, key: str) -> Iterator[Server]:
    (tmp_path / "none").mkdir()
    with serve(tmp_path / "none", tmp_path / "db") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A function `pay` with the trigger order/placed, and event types next to it."""
    return write(tmp_path / "f" / "pay", "echo 1")


def write(folder: Path, script: str, expression: str | None = None) -> Path:
    trigger = {"event": "order/placed"} | ({"expression": expression} if expression else {})
    return write_function(folder, "pay", trigger, a=program(script))


def write_type(folder: Path, version: str, schema: Json) -> Path:
    file = folder.parent / "schemas" / "order" / f"placed.{version}.schema.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(schema, indent=1))
    return file


def is_accepted(http: Api, **data: Any) -> bool:
    return bool(http.http.post("/e", json={"name": "order/placed", "data": data}).status_code == 200)


def versions(command: Command) -> list[int]:
    return [item["version"] for item in command("versions", "pay", "--json")]


def test_a_push_that_would_reject_events_of_today_is_refused_as_a_whole(
    folder: Path, command: Command, http: Api
) -> None:
    write_type(folder, "1", NUMBER | REJECT)
    command("push", folder)
    file = write_type(folder, "2", TEXT | REJECT)
    write(folder, "echo 2")
    for options in ((), ("--dry-run",)):
        words = command("push", folder, *options, code=1)
        assert f"{file}:8:4: `total` was number, is string now" in words
        assert "order/placed 2 breaks 1" in words
        assert "nothing was pushed" in words
        for way in ("--breaking", '"x-stepwell-policy": "warn"', "stepwell types default order/placed 1"):
            assert way in words
    assert versions(command) == [1]
    assert command("types", "show", "order/placed", "--json")["version"] == "1"
    assert is_accepted(http, total=5)


def test_a_breaking_type_can_be_pushed_and_the_default_set_back(folder: Path, command: Command, http: Api) -> None:
    write_type(folder, "1", NUMBER | REJECT)
    command("push", folder)
    write_type(folder, "2", TEXT | REJECT)
    write(folder, "echo 2")
    assert "breaks 1" in command("push", folder, "--breaking")
    assert not is_accepted(http, total=5)
    words = command("rollback", "pay")
    assert "type order/placed 2 is newer than v1, and still the default for events without `v`" in words
    assert "stepwell types default order/placed 1" in words
    assert "1 is the default for events without `v`" in command("types", "default", "order/placed", "1")
    assert is_accepted(http, total=5)
    assert command("rollback", "pay", "--to", "2", "--json")["types"] == []
    assert command("types", "default", "order/placed", "--newest", "--json")["default"] == "2"
    assert not is_accepted(http, total=5)
    words = command("types", "remove", "order/placed", "2")
    assert "removed order/placed 2" in words
    assert "1 is the default for events without `v`" in words
    assert is_accepted(http, total=5)
    assert "order/placed 2 breaks 1" in command("push", folder, code=1)
    assert command("types", "remove", "order/placed", "1", "--json")["default"] is None


def test_a_breaking_version_with_a_policy_or_that_is_not_the_default_is_accepted(
    folder: Path, command: Command, http: Api
) -> None:
    write_type(folder, "1", NUMBER | REJECT)
    command("push", folder)
    command("types", "default", "order/placed", "1")
    write_type(folder, "2", TEXT | REJECT)
    assert "1 stays the default for events without `v`" in command("push", folder)
    assert is_accepted(http, total=5)
    command("types", "default", "order/placed", "--newest")
    write_type(folder, "3", NUMBER | {"x-stepwell-policy": "warn"})
    command("push", folder)
    assert is_accepted(http, total="5")


def test_versions_that_cannot_be_removed_or_chosen_are_refused_with_a_reason(folder: Path, command: Command) -> None:
    write_type(folder, "1", NUMBER)
    write_type(folder, "2", NUMBER)
    command("push", folder)
    assert "has no version '3'" in command("types", "remove", "order/placed", "3", code=1)
    assert "no type is registered for 'order/payed'" in command("types", "remove", "order/payed", "1", code=1)
    assert "has no version '3'" in command("types", "default", "order/placed", "3", code=1)
    assert "name a version, or pass --newest" in command("types", "default", "order/placed", code=2)
    command("types", "default", "order/placed", "1")
    words = command("types", "remove", "order/placed", "1", code=1)
    assert "stepwell types default order/placed 2" in words


def test_the_same_checks_apply_to_a_type_in_a_trigger(tmp_path: Path, command: Command) -> None:
    def carried(schema: Json) -> Path:
        trigger = {"event": "order/placed", "definition": {"def": schema}}
        return write_function(tmp_path / "f", "pay", trigger)

    command("push", carried(NUMBER))
    words = command("push", carried(TEXT), code=1)
    assert "stepwell.json:" in words
    assert "breaks def-" in words
    assert versions(command) == [1]
    command("push", carried(TEXT), "--breaking")


def test_expressions_are_checked_against_the_types_of_the_server(folder: Path, command: Command, http: Api) -> None:
    file = write_type(folder, "1", NUMBER)
    command("push", folder)
    file.unlink()
    write(folder, "echo 2", "event.data.totl > 1.0")
    words = command("push", folder, code=1)
    assert "stepwell.json:6:4: expression:" in words
    assert "there is no field `totl`; did you mean `total`?" in words
    assert "--no-check" in words
    assert versions(command) == [1]
    command("types", "policy", "order/placed", "off")
    assert "did you mean `total`?" in command("push", folder)  # only a warning, because the type's policy is off
    command("types", "policy", "order/placed", "warn")
    write(folder, "echo 3", "event.data.totl > 1.0")
    command("push", folder, code=1)
    command("push", folder, "--no-check")
    assert versions(command) == [3, 2, 1]


def test_expressions_must_fit_the_default_version(folder: Path, command: Command) -> None:
    renamed = {"type": "object", "properties": {"sum": {"type": "number"}}}
    write_type(folder, "1", NUMBER)
    command("push", folder)
    command("types", "default", "order/placed", "1")
    write_type(folder, "2", renamed)
    write(folder, "echo 2", "data.total > 1.0")
    command("push", folder)
    write(folder, "echo 3", "data.sum > 1.0")
    assert "no field `sum`" in command("push", folder, code=1)
    command("types", "default", "order/placed", "2")
    command("push", folder)
    write(folder, "echo 4", "event.v == '1' ? data.total > 1.0 : data.sum > 1.0")
    command("push", folder)
    write(folder, "echo 5", "event.v == '1' ? data.totale > 1.0 : data.sum > 1.0")
    assert "no field `totale`" in command("push", folder, code=1)


def test_a_restarted_server_does_not_reject_events_of_today(tmp_path: Path, key: str) -> None:
    folder = write(tmp_path / "f" / "pay", "echo 1")
    write_type(folder, "1", NUMBER | REJECT)
    with serve(tmp_path / "f", tmp_path / "db") as server:
        assert server.stop() == 0
    write_type(folder, "2", TEXT | REJECT)
    write(folder, "echo 2")
    write_function(tmp_path / "f" / "other", "other", "go")
    with serve(tmp_path / "f", tmp_path / "db") as server, api(server, key) as http:
        errors = [line["message"] for line in server.lines if line["level"] == "error"]
        assert any("order/placed 2 breaks 1" in error for error in errors)
        assert any("keeps its last version" in error for error in errors)
        assert is_accepted(http, total=5)
        assert {f["id"]: f["version"] for f in http.get("/v1/functions")["data"]} == {"pay": 1, "other": 1}
        assert server.stop() == 0
    write_type(folder, "2", TEXT | {"x-stepwell-policy": "warn"})
    with serve(tmp_path / "f", tmp_path / "db") as server, api(server, key) as http:
        assert is_accepted(http, total=5)
        assert {f["id"]: f["version"] for f in http.get("/v1/functions")["data"]} == {"pay": 2, "other": 1}
