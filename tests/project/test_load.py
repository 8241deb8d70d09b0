"""Functions on disk: which are found, what is loaded, and where errors are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.compile import compile_plan
from stepwell.project.load import LoadError, find_definitions, load, load_all

SMALL = '{"id": "%s", "triggers": [{"event": "a"}]}'


def put(folder: Path, name: str, content: str | bytes | dict[str, Any] = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content, indent=2)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> list[str]:
    """The problems as they are printed, without the folder."""
    with pytest.raises(LoadError) as refused:
        load(path)
    assert str(refused.value) == "\n".join(map(str, refused.value.problems))
    return [str(problem).replace(f"{path}:", "", 1) for problem in refused.value.problems]


# --- finding ---------------------------------------------------------------------------------------------------------


def test_definitions_are_found_below_each_path(tmp_path: Path) -> None:
    found = [put(tmp_path, name) for name in ("b/stepwell.json", "a/x/stepwell.yaml", "c/inngest.json", "stepwell.yml")]
    for name in ("node_modules", ".git", ".venv", ".stepwell", ".hidden", "__pycache__"):
        put(tmp_path, f"{name}/stepwell.json")
    put(tmp_path, "a/other.json")
    assert find_definitions([tmp_path]) == sorted(found)
    assert find_definitions([tmp_path / "b", tmp_path, found[0]]) == sorted(found)


def test_a_path_can_be_a_file_with_any_name(tmp_path: Path) -> None:
    file = put(tmp_path, "mine.yaml")
    assert find_definitions([file]) == [file]


def test_two_definitions_in_one_folder_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "stepwell.json")
    put(tmp_path, "stepwell.yaml")
    with pytest.raises(LoadError, match=r"stepwell\.yaml:1:1: the folder has another definition, stepwell\.json"):
        find_definitions([tmp_path])
    with pytest.raises(LoadError, match="another definition"):
        load(tmp_path)


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="nowhere:1:1: does not exist"):
        find_definitions([tmp_path / "nowhere"])


# --- loading ---------------------------------------------------------------------------------------------------------


def test_the_definition_of_the_contract_loads_with_its_steps(tmp_path: Path) -> None:
    text = """{
  "name": "A beautiful background function",
  "id": "prompt-deer-ede40d",
  "triggers": [{"event": "user/signed.up", "expression": "user.created_at > '2020-01-01'"}],
  "steps": {
    "step-1": {"id": "step-1", "path": "file://./steps/send-sms-dispatch", "name": "Send SMS",
               "runtime": {"type": "docker"}},
    "step-2": {"id": "step-2", "path": "file://./steps/add-to-intercom", "name": "Add user to Intercom",
               "runtime": {"type": "lambda"}, "after": [{"step": "step-1"}]}
  }
}"""
    put(tmp_path, "inngest.json", text)
    put(tmp_path, "steps/send-sms-dispatch/Dockerfile", 'FROM alpine\nCMD ["true"]')
    put(tmp_path, "steps/add-to-intercom/main.py")
    function = load(tmp_path)
    assert (function.folder, function.file) == (tmp_path, tmp_path / "inngest.json")
    assert {step: [f.path for f in code.files] for step, code in function.steps.items()} == {
        "step-1": ["Dockerfile"],
        "step-2": ["main.py"],
    }
    assert [step.runtime.command for step in compile_plan(function.normalised(), 1).steps] == [
        None,
        ("python3", "main.py"),
    ]
    assert function.warnings() == []


def test_yaml_and_json_load_the_same(tmp_path: Path) -> None:
    put(tmp_path, "a/stepwell.json", {"id": "f", "triggers": [{"cron": "0 9 * * *"}]})
    put(tmp_path, "b/stepwell.yaml", "id: f\ntriggers:\n- cron: 0 9 * * *\n")
    for folder in ("a", "b"):
        put(tmp_path, f"{folder}/main.py")
    assert load(tmp_path / "a").normalised() == load(tmp_path / "b").normalised()


def test_a_step_can_be_one_file(tmp_path: Path) -> None:
    steps = {"a": {"path": "file://./send.py"}, "b": {"path": "file://./send.py", "after": [{"step": "a"}]}}
    put(tmp_path, "stepwell.json", {"id": "f", "triggers": [{"event": "a"}], "steps": steps})
    put(tmp_path, "send.py")
    function = load(tmp_path)
    assert function.steps["a"].file == "send.py"
    assert function.steps["a"] is function.steps["b"]
    assert function.normalised()["steps"]["a"]["runtime"]["command"] == ["python3", "send.py"]


def test_a_step_that_needs_no_code_has_none(tmp_path: Path) -> None:
    runtimes = {"a": {"type": "http", "url": "http://x"}, "b": {"type": "docker", "image": "alpine"}}
    steps = {step: {"runtime": runtime} for step, runtime in runtimes.items()}
    put(tmp_path, "stepwell.json", {"id": "f", "triggers": [{"event": "a"}], "steps": steps})
    assert load(tmp_path).steps == {}


def test_warnings_have_their_place(tmp_path: Path) -> None:
    text = """id: f
triggers: [{event: a}]
steps:
  a:
    path: file://main.py
    after:
      - step: $trigger
        async:
          event: b
          ttl: 1d
          match: async.data.x > 3
"""
    file = put(tmp_path, "stepwell.yaml", text)
    put(tmp_path, "main.py")
    [warning] = load(tmp_path).warnings()
    assert str(warning).startswith(f"{file}:11:11: match has no equality")


# --- errors ----------------------------------------------------------------------------------------------------------


def test_problems_are_reported_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """id: f
triggers:
  - event: a
    cron: '* * * * *'
steps:
  send:
    path: file://.
    timeout: soon
    on: x
    after:
      - step: sned
"""
    file = put(tmp_path, "stepwell.yaml", text)
    found = refusal(file)
    assert [line.split(": ")[0] for line in found] == ["4:5", "8:5", "9:5", "11:9"]
    assert "a trigger has either `event` or `cron`" in found[0]
    assert "unknown field `on`" in found[2]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("stepwell.json", "", "1:1: is empty"),
        ("stepwell.json", '{\n  "id": "f",\n}', "2:12: has a `,` before `}`"),
        ("stepwell.yaml", "a: [", "1:5: is not valid YAML"),
        ("stepwell.json", "[]", "1:1: the definition must be an object"),
        ("stepwell.json", b'{\n "id": "\xff"}', "2:9: is not in UTF-8"),
        ("stepwell.json", b"\xef\xbb\xbf{}", "1:1: `id` is missing"),
        ("stepwell.txt", "{}", "1:1: is not a definition"),
        ("stepwell.json", " " * (1024 * 1024 + 1), "1:1: is larger than 1 MB"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    assert refusal(put(tmp_path, name, content))[0].startswith(expected)


def test_a_folder_without_a_definition_is_refused(tmp_path: Path) -> None:
    assert "found no definition; add one of stepwell.json" in refusal(tmp_path)[0]


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "is not a definition" in refusal(tmp_path / "stepwell.json")[0]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"path": "file://./nowhere"}, "step `a`: './nowhere' does not exist"),
        ({"path": "file://./link"}, "leads out of the function's folder"),
        ({"path": "file://./empty"}, "found nothing to run in"),
        ({"path": "file://./empty", "runtime": {"type": "docker"}}, "found no Dockerfile in"),
        (
            {"path": "file://./empty", "runtime": {"type": "lambda", "handler": "app.x"}},
            "found no module for the handler",
        ),
        ({"path": "file://./notes.txt"}, "cannot tell how to run"),
    ],
)
def test_a_step_without_a_program_is_reported_at_its_path(tmp_path: Path, step: dict[str, Any], expected: str) -> None:
    definition = {"id": "f", "triggers": [{"event": "a"}], "steps": {"a": step}}
    folder = tmp_path / "function"
    file = put(folder, "stepwell.json", definition)
    put(folder, "empty/README")
    put(folder, "notes.txt")
    put(tmp_path, "outside/main.py")
    (folder / "link").symlink_to("../outside")
    [line] = refusal(file)
    assert line.startswith("10:7: ")
    assert expected in line


def test_one_broken_function_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path, f"{name}/main.py")
    put(tmp_path, "a/stepwell.json", SMALL % "same")
    put(tmp_path, "b/stepwell.json", "{")
    later = put(tmp_path, "c/stepwell.json", "\n" + SMALL % "same")
    put(tmp_path, "d/stepwell.json")
    put(tmp_path, "d/inngest.json")
    loaded, errors = load_all([tmp_path, tmp_path / "nowhere"])
    assert [function.definition.id for function in loaded] == ["same"]
    items = sorted(map(str, errors))
    assert len(items) == 4
    assert f"{later}:2:2: the id 'same' is already used by {tmp_path / 'a/stepwell.json'}; change one of them" in items
