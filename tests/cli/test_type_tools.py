"""`stepwell types check|diff|infer|generate`, and the event that `stepwell run` generates from a schema."""

from __future__ import annotations

import ast
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Server, api, dev, program, write_function

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["order_id", "amount", "plan"],
    "properties": {
        "order_id": {"type": "string", "pattern": "^o-[0-9]{4}$"},
        "amount": {"type": "number", "minimum": 1, "maximum": 500},
        "plan": {"enum": ["free", "pro"]},
        "coupon": {"type": "string"},
    },
}


def run(*arguments: str | Path, input: str | None = None, **env: str) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)], input=input, env={"COLUMNS": "200", **env})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def types(*arguments: str | Path, **more: Any) -> Any:
    return run("types", *arguments, **more)


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return file


def with_amount(of: Any) -> dict[str, Any]:
    return {**ORDER, "properties": {**ORDER["properties"], "amount": of}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A valid function, and the type of the event that starts it."""
    trigger = {"event": "order/placed", "expression": "event.data.amount > 10 && has(event.data.coupon)"}
    write_function(tmp_path / "welcome", "welcome", trigger)
    write(tmp_path / "schemas" / "order" / "placed.2026-11-23.1.schema.json", ORDER)
    return tmp_path


# --- check -----------------------------------------------------------------------------------------------------------


def test_valid_files_are_reported_as_ok(project: Path) -> None:
    result = types("check", project)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "welcome" in result.stdout
    assert "order/placed 2026-11-23.1" in result.stdout


def test_a_misspelt_field_is_found_with_its_place(project: Path) -> None:
    write_function(project / "welcome", "welcome", {"event": "order/placed", "expression": "event.data.ammount > 10"})
    result = types("check", project)
    assert result.exit_code == 1
    line = next(
        i
        for i, text in enumerate((project / "welcome" / "stepwell.json").read_text().splitlines(), 1)
        if "ammount" in text
    )
    assert f"{project / 'welcome' / 'stepwell.json'}:{line}:4: expression: `event.data.ammount`" in result.stderr
    assert "did you mean `amount`?" in result.stderr


def test_a_type_error_is_found(project: Path) -> None:
    step = program("true", after=[{"step": "a", "if": "event.data.amount == 'ten'"}])
    write_function(project / "welcome", "welcome", "order/placed", a=program("true"), b=step)
    result = types("check", project / "welcome", "--json")
    assert result.exit_code == 1
    (error,) = json.loads(result.stdout)["errors"]
    assert error["pointer"] == "/steps/b/after/0/if"
    assert 'a number, with "ten", a string, which is never true' in error["message"]


def test_a_breaking_change_is_found_with_the_functions_it_affects(project: Path) -> None:
    file = write(project / "schemas" / "order" / "placed.2026-11-23.2.schema.json", with_amount({"type": "string"}))
    write_function(project / "other", "other", "something/else")
    result = types("check", project)
    assert result.exit_code == 1
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if '"amount": {' in text) + 1
    expected = "order/placed 2026-11-23.2 breaks 2026-11-23.1: `amount` was number, is string now; affects welcome"
    assert f"{file}:{line}:4: {expected}\n" in result.stderr
    assert "a string, with 10, a number" in result.stderr, "the expression is wrong now too"
    write_function(project / "welcome", "welcome", "order/placed")
    allowed = types("check", project, "--allow-breaking")
    assert allowed.exit_code == 0
    assert "breaks 2026-11-23.1" in allowed.stderr


def test_a_new_optional_field_breaks_nothing(project: Path) -> None:
    new = {**ORDER, "properties": {**ORDER["properties"], "note": {"type": "string"}}}
    write(project / "schemas" / "order" / "placed.2026-11-23.2.schema.json", new)
    assert types("check", project).exit_code == 0


def test_an_optional_field_without_has_is_a_warning(project: Path) -> None:
    write_function(project / "welcome", "welcome", {"event": "order/placed", "expression": "event.data.coupon == 'x'"})
    result = types("check", project, "--json")
    assert result.exit_code == 0
    assert "has(event.data.coupon)" in json.loads(result.stdout)["warnings"][0]["message"]


def test_the_type_in_a_trigger_is_checked(tmp_path: Path) -> None:
    trigger = {"event": "a", "expression": "event.data.ammount > 1", "definition": {"def": ORDER}}
    write_function(tmp_path, "f", trigger)
    assert "did you mean `amount`?" in types("check", tmp_path).stderr


def test_a_broken_schema_is_reported_and_no_network_is_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> Any:
        raise AssertionError("something connected")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    write(project / "schemas" / "a.1.schema.json", {"properties": {"x": {"$ref": "http://127.0.0.1:1/x.json"}}})
    result = types("check", project)
    assert result.exit_code == 1
    assert "is not fetched" in result.stderr


# --- diff ------------------------------------------------------------------------------------------------------------


def test_diff_prints_breaks_in_both_directions(tmp_path: Path) -> None:
    old, new = write(tmp_path / "a.json", ORDER), write(tmp_path / "b.json", with_amount({"type": "string"}))
    result = types("diff", old, new)
    assert result.exit_code == 1
    assert "neither backward nor forward compatible" in result.stdout
    assert "`amount` was number, is string now" in result.stdout
    found = json.loads(types("diff", old, new, "--json").stdout)
    assert found["level"] == "none"
    assert found["backward"][0] == {
        "pointer": "/properties/amount/type", "message": "`amount` was number, is string now", "additive": False,
    }  # fmt: skip


def test_the_level_that_is_required_decides_the_exit_code(tmp_path: Path) -> None:
    old = write(tmp_path / "a.json", ORDER)
    new = write(tmp_path / "b.json", {**ORDER, "properties": {**ORDER["properties"], "note": {"type": "string"}}})
    assert types("diff", old, new).exit_code == 0
    assert types("diff", old, new, "--require", "forward").exit_code == 0
    assert types("diff", old, new, "--require", "backward").exit_code == 1
    assert types("diff", old, old, "--require", "full").exit_code == 0
    assert types("diff", old, tmp_path / "missing.json").exit_code == 2


# --- infer -----------------------------------------------------------------------------------------------------------


def test_infer_describes_the_events_of_a_file(tmp_path: Path) -> None:
    events = [{"name": "a", "data": {"n": 1}}, {"name": "a", "data": {"n": 1.5, "x": ["y"]}}, {"name": "b"}]
    file = write(tmp_path / "events.ndjson", "\n".join(map(json.dumps, events)))
    out = tmp_path / "schemas" / "a.1.schema.json"
    assert types("infer", file, "--event", "a", "--out", out).exit_code == 0
    made = json.loads(out.read_text())
    assert made["required"] == ["n"]
    assert made["properties"]["n"] == {"type": "number"}
    assert types("check", tmp_path).exit_code == 0
    assert types("infer", file, "--event", "a", "--out", out).exit_code == 1, "what is there is not overwritten"
    piped = types("infer", "-", input=file.read_text())
    assert piped.exit_code == 2
    assert "choose one with --event" in piped.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", ":1: not JSON"), ("3", ":1: not an event"), ('{"name": "a", "data": 3}', ":1: data must be a JSON object")],
)
def test_infer_names_the_line_that_is_not_an_event(tmp_path: Path, line: str, message: str) -> None:
    result = types("infer", write(tmp_path / "e.ndjson", line))
    assert result.exit_code == 1
    assert message in result.stderr


# --- generate --------------------------------------------------------------------------------------------------------


def test_generate_writes_python(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("datamodel_code_generator", reason="pip install datamodel-code-generator")
    result = types("generate", project, "--lang", "python", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    code = (tmp_path / "out" / "order_placed.py").read_text()
    assert {"OrderPlaced", "OrderPlacedData"} <= {
        node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef)
    }
    assert "plan: Literal['free', 'pro']" in code


FAKE = """#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --input) in=$2; shift;; --output) out=$2; shift;; esac; shift; done
cat "$in" > "$out"
"""


@pytest.mark.parametrize(
    ("lang", "tool", "file"),
    [("typescript", "json2ts", "order_placed.ts"), ("python", "datamodel-codegen", "order_placed.py")],
)
def test_generate_calls_the_tool_and_says_how_to_get_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, lang: str, tool: str, file: str
) -> None:
    monkeypatch.setattr("sys.prefix", str(project))
    monkeypatch.chdir(project)
    arguments = ("generate", project, "--lang", lang, "--out", project / "out")
    missing = types(*arguments, PATH="/usr/bin:/bin")
    assert missing.exit_code == 1
    assert "install" in missing.stderr
    assert not (project / "out").exists()
    write(project / "bin" / tool, FAKE).chmod(0o755)
    done = types(*arguments, PATH=f"{project / 'bin'}:/usr/bin:/bin")
    assert done.exit_code == 0, done.stderr
    whole = json.loads((project / "out" / file).read_text())
    assert whole["properties"]["name"] == {"const": "order/placed"}
    assert whole["properties"]["data"] == {"$ref": "#/$defs/OrderPlacedData"}


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_generates_an_event_from_the_schema_and_repeats_it_with_the_seed(project: Path) -> None:
    (project / "welcome" / "step.sh").write_text("#!/bin/sh\ncat\n")
    trigger = {"event": "order/placed", "expression": "event.data.amount > 10 && event.data.plan == 'pro'"}
    echo = {"path": "file://.", "runtime": {"type": "lambda", "command": ["sh", "step.sh"]}}
    write_function(project / "welcome", "welcome", trigger, a=echo)
    first = run("run", project / "welcome", "--seed", "7", "--json")
    assert first.exit_code == 0, first.stderr
    assert "--seed 7 generates it again" in first.stderr
    data = json.loads(first.stdout)["steps"]["a"]["output"]["event"]["data"]
    assert (data["plan"], data["amount"] > 10, data["order_id"][:2]) == ("pro", True, "o-")
    again = run("run", project / "welcome", "--seed", "7", "--json")
    assert json.loads(again.stdout)["steps"]["a"]["output"]["event"]["data"] == data


# --- with a server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("types")
    write_function(folder / "f", "f", "order/placed")
    with dev(folder / "f", folder / "db") as server:
        yield server


def test_infer_reads_the_servers_stored_events(server: Server) -> None:
    with api(server) as http:
        for n in range(3):
            http.send("order/placed", data={"n": n})
    result = types("infer", "--event", "order/placed", STEPWELL_URL=server.url)
    assert json.loads(result.stdout)["properties"] == {"n": {"type": "integer"}}
    assert types("infer", "--event", "order/none", STEPWELL_URL=server.url).exit_code == 1


def test_check_and_diff_compare_with_the_types_of_a_server(server: Server, tmp_path: Path) -> None:
    with api(server) as http:
        body = {"name": "order/shipped", "version": "1", "schema": ORDER}
        assert http.http.post("/v1/types", json=body).is_success
    env = {"STEPWELL_URL": server.url}
    file = write(tmp_path / "schemas" / "order" / "shipped.1.schema.json", with_amount({"type": "string"}))
    result = types("check", tmp_path, "--registry", **env)
    assert result.exit_code == 1
    assert "breaks 1: `amount` was number, is string now; give the schema a new version" in result.stderr
    file.rename(file.with_name("shipped.2.schema.json"))
    renamed = types("check", tmp_path, "--registry", **env)
    assert "order/shipped 2 breaks 1: `amount` was number" in renamed.stderr
    assert types("check", tmp_path, "--registry", "--allow-breaking", **env).exit_code == 0
    assert types("diff", "order/shipped@1", file.with_name("shipped.2.schema.json"), **env).exit_code == 1
    assert types("diff", "order/shipped@1", "order/shipped@1", **env).exit_code == 0
