"""`stepwell validate`: errors with their places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import program, write_function

YAML = """\
id: broken
triggers:
  - event: go
steps:
  a:
    path: file://.
    runtme: {type: lambda}
"""


def validate(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, ["validate", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def data(*arguments: str | Path) -> Any:
    return json.loads(validate("--json", *arguments).stdout)


def test_valid_files_are_reported_as_ok(tmp_path: Path) -> None:
    write_function(tmp_path / "one", "one")
    write_function(tmp_path / "two", "two")
    result = validate(tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "one" in result.stdout
    assert "two" in result.stdout
    assert data(tmp_path) == {"functions": ["one", "two"], "webhooks": [], "sources": [], "errors": [], "warnings": []}


def test_an_error_names_file_line_column_and_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "broken" / "stepwell.yaml"
    file.parent.mkdir()
    file.write_text(YAML)
    write_function(tmp_path / "good", "good")
    result = validate(tmp_path)
    assert result.exit_code == 1
    assert f"{file}:7:5: " in result.stderr
    assert "runtime" in result.stderr
    found = data(tmp_path)
    assert found["functions"] == ["good"]
    (error,) = found["errors"]
    assert (error["file"], error["line"], error["column"], error["pointer"]) == (str(file), 7, 5, "/steps/a/runtme")
    assert "runtime" in error["message"]


@pytest.mark.parametrize(
    ("definition", "place"),
    [
        ("{", "1:2"),
        ('{"id": "f",\n "id": "g"}', "2:2"),
        ('{"id": "f",\n "triggers": [{"event": "go", "expression": "data.x >"}]}', "2:31"),
    ],
)
def test_errors_in_json_have_their_place_too(tmp_path: Path, definition: str, place: str) -> None:
    file = tmp_path / "stepwell.json"
    file.write_text(definition)
    result = validate(file)
    assert result.exit_code == 1
    assert f"{file}:{place}: " in result.stderr


def test_every_error_of_a_file_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "stepwell.json"
    file.write_text('{"id": "UPPER", "triggers": [], "steps": {"a": {"path": "file://missing"}}, "colour": 1}')
    assert len(data(tmp_path)["errors"]) >= 3


def test_warnings_do_not_change_the_exit_code(tmp_path: Path) -> None:
    wait = {"event": "x", "match": "async.data.n > 1", "ttl": "1h"}
    step = {"path": "file://.", "runtime": {"type": "lambda", "command": ["true"]}}
    write_function(tmp_path, "f", "go", a=step, b={**step, "after": [{"step": "a", "async": wait}]})
    result = validate(tmp_path)
    assert result.exit_code == 0
    assert "stepwell.json:" in result.stderr
    (warning,) = data(tmp_path)["warnings"]
    assert warning["pointer"].startswith("/steps/b/after/0")


def test_nothing_to_validate_is_a_failure(tmp_path: Path) -> None:
    assert validate(tmp_path).exit_code == 1
    assert "stepwell init" in validate(tmp_path).stderr
    assert validate(tmp_path / "missing").exit_code == 1
    assert str(tmp_path / "missing") in validate(tmp_path / "missing").stderr


def test_a_step_that_ignores_the_decision_of_an_approval_is_a_warning(tmp_path: Path) -> None:
    ask = {"runtime": {"type": "approval", "message": "Really?"}}
    after = [{"step": "ask"}, {"step": "ask", "if": "response.approved"}, {"step": "ask", "on": "failure"}]
    write_function(tmp_path, ask=ask, b=program("echo 1", after=after))
    found = data(tmp_path)
    assert found["errors"] == []
    (warning,) = found["warnings"]
    assert warning["pointer"] == "/steps/b/after/0"
    assert "`b` runs even if `ask` is declined; add `if: response.approved`" in warning["message"]


def test_expressions_are_checked_against_the_types_next_to_the_functions(tmp_path: Path) -> None:
    write_function(tmp_path / "pay", "pay", {"event": "order/placed", "expression": "event.data.totl > 1.0"})
    file = tmp_path / "schemas" / "order" / "placed.1.schema.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"type": "object", "properties": {"total": {"type": "number"}}}')
    for paths in ([tmp_path], [tmp_path / "pay"], [tmp_path / "pay" / "stepwell.json"]):
        result = validate(*paths)
        assert result.exit_code == 1
        assert "pay/stepwell.json:6:" in result.stderr
        assert "there is no field `totl`; did you mean `total`?" in result.stderr
        assert "ok" not in result.stdout
    (error,) = data(tmp_path)["errors"]
    assert error["pointer"] == "/triggers/0/expression"
    assert validate("--no-check", tmp_path).exit_code == 0


def test_a_broken_schema_is_an_error(tmp_path: Path) -> None:
    write_function(tmp_path, "f")
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "go.1.schema.json").write_text('{"type": "objekt"}')
    result = validate(tmp_path)
    assert (result.exit_code, "go.1.schema.json:1:2" in result.stderr) == (1, True)
