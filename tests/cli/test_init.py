"""`stepwell init`: every template creates a function that runs at once, and nothing is overwritten."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from stepwell.cli.commands.init import Template
from stepwell.cli.main import app
from stepwell.project.load import load


def stepwell(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def made(*words: object) -> Any:
    result = stepwell("init", *words, "--json")
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


@pytest.mark.parametrize("definition", ["stepwell.json", "stepwell.yaml"])
@pytest.mark.parametrize("template", list(Template))
def test_a_new_function_is_valid(template: Template, definition: str, tmp_path: Path) -> None:
    folder = tmp_path / "function"
    options = ["--yaml"] if definition.endswith("yaml") else []
    answer = made("Send a Mél!", "-t", template, "--event", "mail/wanted", "--path", folder, *options)
    function = load(folder)
    assert function.file == folder / definition
    assert (function.definition.id, function.definition.name) == ("send-a-mel", "Send a Mél!")
    assert [trigger.event for trigger in function.definition.triggers] == ["mail/wanted"]
    assert answer["files"][0] == str(folder / definition)
    assert sorted(answer["files"]) == sorted(str(path) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("template", list(Template))
def test_a_new_function_runs_at_once(template: Template, tmp_path: Path) -> None:
    if template is Template.NODE and shutil.which("node") is None:
        pytest.skip("node is not installed")
    made("greeter", "-t", template, "--path", tmp_path / "f")
    result = stepwell("run", tmp_path / "f", "--no-containers", "--json")
    assert result.exit_code == 0, result.output
    assert orjson.loads(result.stdout)["output"] == {"hello": {"hello": "world"}}


def test_init_does_not_ask_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = stepwell("init")
    assert result.exit_code == 0
    assert "stepwell run hello" in result.output
    assert "stepwell dev hello" in result.output
    assert load(Path("hello")).commands == {"hello": ("python3", "main.py")}


def test_init_asks_at_a_terminal(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    os.write(controller, b"Say hello\nperl\nsh\n\n")  # perl is not a template, so the command asks again
    result = subprocess.run(
        [sys.executable, "-c", "from stepwell.cli.main import main; main()", "init", "--json"],
        cwd=tmp_path, stdin=terminal, capture_output=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    os.close(controller)
    os.close(terminal)
    assert result.returncode == 0, result.stderr
    assert b"'perl' is not one of these" in result.stderr
    assert orjson.loads(result.stdout)["id"] == "say-hello"
    function = load(tmp_path / "say-hello")
    assert function.commands == {"hello": ("sh", "main.sh")}
    assert [trigger.event for trigger in function.definition.triggers] == ["user/signed.up"]


@pytest.mark.parametrize("there", ["stepwell.json", "stepwell.yml", "inngest.json", "steps/hello/main.py"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = stepwell("init", "hello", "-t", "python", "--path", tmp_path)
    assert result.exit_code == 1
    assert f"{there} already exists" in result.output
    assert (sorted(tmp_path.rglob("*")), (tmp_path / there).read_text()) == (before, "mine")


def test_other_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    made("hello", "--path", tmp_path)
    assert load(tmp_path).definition.id == "hello"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["!!!"], "the name '!!!' has no letters or digits"),
        (["hello", "--event", "a*b"], "'a*b' has a `*` before the end"),
        (["hello", "--event", "x" * 257], "event is longer than 256 characters"),
        (["x" * 257], "name is longer than 256 characters"),
        (["hello", "--template", "perl"], "perl"),
    ],
)
def test_arguments_that_do_not_make_a_valid_function_are_refused(
    words: list[str], message: str, tmp_path: Path
) -> None:
    result = stepwell("init", *words, "--path", tmp_path / "new")
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_created_is_reported_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = stepwell("init", "hello", "--path", tmp_path / "file")
    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'file'}: File exists" in result.output


def test_the_commands_to_run_next_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    command = made("hello", "--path", folder)["next"][0]
    assert shlex.split(command) == ["stepwell", "run", str(folder)]


def test_editors_find_the_schema_that_the_definition_names(tmp_path: Path) -> None:
    made("hello", "--path", tmp_path / "json")
    made("hello", "--path", tmp_path / "yaml", "--yaml")
    definition = orjson.loads((tmp_path / "json" / "stepwell.json").read_bytes())
    schema = orjson.loads((tmp_path / "json" / definition["$schema"]).read_bytes())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(definition)
    first, *_ = (tmp_path / "yaml" / "stepwell.yaml").read_text().splitlines()
    _, named = first.split("# yaml-language-server: $schema=")
    assert orjson.loads((tmp_path / "yaml" / named).read_bytes()) == schema
    assert stepwell("validate", tmp_path).exit_code == 1  # only because two definitions have the same id
    assert stepwell("validate", tmp_path / "yaml").stderr == ""


def test_the_schema_that_a_definition_names_makes_no_version(tmp_path: Path) -> None:
    made("hello", "--path", tmp_path)
    before = load(tmp_path)
    (tmp_path / ".stepwell" / "function.schema.json").write_text("{}")
    text = (tmp_path / "stepwell.json").read_text()
    (tmp_path / "stepwell.json").write_text(text.replace("./.stepwell/function.schema.json", "https://example.com/x"))
    after = load(tmp_path)
    assert before.normalised() == after.normalised()
    assert {step: code.hash for step, code in before.steps.items()} == {s: c.hash for s, c in after.steps.items()}


@pytest.mark.parametrize("kind", ["function", "webhook"])
def test_a_schema_is_printed_or_written(kind: str, tmp_path: Path) -> None:
    printed = stepwell("schema", kind)
    assert orjson.loads(printed.stdout)["title"] == f"Stepwell {kind}"
    assert stepwell("schema", kind, "--out", tmp_path / "new" / "x.json").exit_code == 0
    assert (tmp_path / "new" / "x.json").read_text() == printed.stdout
    assert stepwell("schema", "functoin").exit_code == 2
    refused = stepwell("schema", "--out", tmp_path / "new" / "x.json" / "y.json")
    assert (refused.exit_code, "cannot write" in refused.stderr) == (1, True)
