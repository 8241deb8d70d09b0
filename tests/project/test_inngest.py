"""Files named inngest.json: definitions of Inngest's first command line, and settings of its dev server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from stepwell.project.archive import unpack, write_archive
from stepwell.project.event_types import project_types
from stepwell.project.load import LoadError, find_definitions, load, load_all
from stepwell.project.search import Tree

CUE = {"format": "cue", "synced": True, "def": "file://./events/e.cue"}
SETTINGS = {"sdk-url": ["http://localhost:3001/api/inngest"], "no-discovery": True}


def write(folder: Path, name: str = "inngest.json", trigger: Any = None, **fields: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    triggers = [trigger or {"event": "shop/signup", "definition": CUE}]
    (folder / name).write_text(json.dumps({"name": "F", "id": "f", "triggers": triggers, **fields}))
    return folder


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("FROM scratch\n")


# --- types in CUE ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("definition", [CUE, {"format": "cue", "def": "{name: string}"}, {**CUE, "synced": False}])
def test_a_type_in_cue_is_accepted_with_a_warning_and_ignored(tmp_path: Path, definition: Any) -> None:
    write_files(write(tmp_path, trigger={"event": "shop/signup", "definition": definition}), "index.js")
    function = load(tmp_path)
    (warning,) = function.warnings()
    for words in ("shop/signup is written in CUE", "not checked", "json-schema", "remove `definition`"):
        assert words in warning.message
    assert warning.pointer == ("triggers", 0, "definition")
    assert "definition" not in function.normalised()["triggers"][0]
    assert project_types([tmp_path], [function]).types == []


def test_a_change_of_an_ignored_field_makes_no_new_version(tmp_path: Path) -> None:
    write_files(write(tmp_path), "index.js")
    before = load(tmp_path).normalised()
    write(tmp_path, trigger={"event": "shop/signup"})
    assert load(tmp_path).normalised() == before


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({"format": "cue", "def": {}}, "must be a CUE type"),
        ({"format": "cue", "def": ""}, "must be a CUE type"),
        ({"format": "cue"}, "`def` is missing"),
        ({"format": "avro", "def": "x"}, "format must be"),
        ({"def": "file://./events/e.cue"}, 'add "format": "cue"'),
    ],
)
def test_an_invalid_type_in_cue_is_refused(tmp_path: Path, definition: Any, expected: str) -> None:
    write_files(write(tmp_path, trigger={"event": "x", "definition": definition}), "index.js")
    with pytest.raises(LoadError, match=expected):
        load(tmp_path)


# --- containers ------------------------------------------------------------------------------------------------------


def test_a_step_without_a_runtime_whose_folder_has_a_dockerfile_is_a_container(tmp_path: Path) -> None:
    steps = {
        "a": {"path": "file://./a"},
        "b": {"path": "file://./b", "runtime": {"type": "lambda"}},
        "c": {"path": "file://./c"},
        "d": {"path": "file://./a", "runtime": None},
    }
    write_files(write(tmp_path, steps=steps), "a/Dockerfile", "a/main.sh", "b/Dockerfile", "b/main.sh", "c/main.sh")
    kinds = {key: step.runtime.type for key, step in load(tmp_path).definition.steps.items()}
    assert kinds == {"a": "docker", "b": "lambda", "c": "lambda", "d": "docker"}


def test_the_default_step_of_a_function_with_a_dockerfile_is_a_container(tmp_path: Path) -> None:
    write_files(write(tmp_path), "Dockerfile")
    assert [step.runtime.type for step in load(tmp_path).definition.steps.values()] == ["docker"]


def test_it_is_a_container_on_the_server_that_it_is_pushed_to(tmp_path: Path) -> None:
    write_files(write(tmp_path / "f", steps={"a": {"path": "file://./a"}}), "a/Dockerfile")
    function = load(tmp_path / "f")
    with (tmp_path / "archive").open("w+b") as file:
        write_archive(function, file)
        file.seek(0)
        unpack(file, tmp_path / "there")
    assert load(tmp_path / "there").normalised() == function.normalised()


def test_in_stepwell_files_no_runtime_means_lambda(tmp_path: Path) -> None:
    write_files(write(tmp_path, "stepwell.json", {"event": "x"}), "Dockerfile")
    with pytest.raises(LoadError, match="give it the runtime docker"):
        load(tmp_path)
    write_files(tmp_path, "main.sh")
    assert [step.runtime.type for step in load(tmp_path).definition.steps.values()] == ["lambda"]


# --- settings of the dev server --------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [SETTINGS, {"sdk-url": []}, {"NO_DISCOVERY": True}, {"port": 9999, "whatever": 1}])
def test_settings_of_the_dev_server_are_skipped_with_a_note(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "inngest.json").write_text(json.dumps(settings))
    write_files(write(tmp_path / "f", "stepwell.json", {"event": "x"}), "main.sh")
    (tmp_path / "f" / "inngest.json").write_text(json.dumps(settings))
    tree = Tree([tmp_path])
    functions, errors = load_all(tree)
    assert ([function.file.name for function in functions], errors) == (["stepwell.json"], [])
    assert [placed_problem.file for placed_problem in tree.passed_over] == [
        tmp_path / "inngest.json",
        tmp_path / "f" / "inngest.json",
    ]
    assert "settings of Inngest's dev server" in tree.passed_over[0].message
    assert load(tmp_path / "f").definition.id == "f"
    assert find_definitions([tmp_path / "inngest.json"]) == []


@pytest.mark.parametrize(
    "content", ['{"trigers": []}', "{}", "[]", "{", '{"id": "f", "port": 1}', '{"triggers": 1, "tick": 1}']
)
def test_a_possible_definition_is_not_taken_for_settings(tmp_path: Path, content: str) -> None:
    (tmp_path / "inngest.json").write_text(content)
    _, errors = load_all([tmp_path])
    assert len(errors) == 1


def test_validate_reports_skipped_settings_and_succeeds(tmp_path: Path) -> None:
    (tmp_path / "inngest.json").write_text(json.dumps(SETTINGS))
    for path in (tmp_path, tmp_path / "inngest.json"):
        result = CliRunner().invoke(app, ["validate", str(path)])
        assert (result.exit_code, "settings of Inngest's dev server" in result.stderr) == (0, True)
