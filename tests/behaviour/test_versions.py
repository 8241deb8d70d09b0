"""Versions: what makes a new version, and that a run keeps the version it started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.words import Json, Platform, function, has, script, statuses

OLD = "import os\ndef handler(event, context):\n    return ['old', os.environ.get('X')]\n"
NEW = OLD.replace("old", "new")
STEP = {"runtime": {"type": "lambda", "handler": "code.handler"}}
PAUSED = {"a": STEP, "b": {**STEP, "after": {"step": "a", "wait": "1h"}}}

Files = dict[str, str | bytes]


def code(text: str = OLD, **files: str) -> Files:
    return {"steps/code.py": text, **{f"steps/{name}": content for name, content in files.items()}}


# --- what makes a version --------------------------------------------------------------------------------------------


def test_the_same_content_is_the_same_version(platform: Platform) -> None:
    assert [platform.deploy(function({"a": STEP}), code()) for _ in range(3)] == [1, 1, 1]


def test_versions_are_numbered_for_each_function(platform: Platform) -> None:
    assert platform.deploy(function(id="f")) == 1
    assert platform.deploy(function(id="g")) == 1
    assert platform.deploy(function({"b": {}}, id="f")) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Another name"},
        {"triggers": [{"event": "other"}]},
        {"triggers": [{"event": "go"}, {"event": "go", "expression": "false"}]},
    ],
)
def test_a_changed_definition_is_a_new_version(platform: Platform, change: Json) -> None:
    platform.deploy(function({"a": STEP}), code())
    assert platform.deploy({**function({"a": STEP}), **change}, code()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": "1m"},
        {"retries": {"attempts": 1}},
        {"env": {"LEVEL": "1"}},
        {"after": {"step": "$trigger", "wait": "1h"}},
        {"name": "Another name"},
        {"join": "all"},
    ],
)
def test_a_changed_field_of_a_step_is_a_new_version(platform: Platform, change: Json) -> None:
    platform.deploy(function({"a": STEP}), code())
    assert platform.deploy(function({"a": {**STEP, **change}}), code()) == 2


@pytest.mark.parametrize(
    "files",
    [
        code(NEW),
        code(OLD + "\n"),  # the bytes count, not the meaning
        code(**{"extra.txt": ""}),
        code(**{"data/list.csv": "1"}),
    ],
)
def test_changed_code_is_a_new_version(platform: Platform, files: Files) -> None:
    platform.deploy(function({"a": STEP}), code())
    assert platform.deploy(function({"a": STEP}), files) == 2


@pytest.mark.parametrize(
    "files",
    [
        code(**{".env": "X=1"}),
        code(**{"__pycache__/code.cpython-311.pyc": "x"}),
        code(**{"node_modules/.cache/x": "x"}),
        code(**{".git/HEAD": "x"}),
        code(**{".stepwell/stepwell.db": "x"}),
        code(**{".DS_Store": "x", ".code.py.swp": "unsaved", ".#code.py": "x", "code.py~": "old", "Thumbs.db": "x"}),
        {**code(), "README.md": "beside the steps"},
    ],
)
def test_files_that_are_not_code_make_no_version(platform: Platform, files: Files) -> None:
    platform.deploy(function({"a": STEP}), code())
    assert platform.deploy(function({"a": STEP}), files) == 1


def test_ignored_files_make_no_version(platform: Platform) -> None:
    ignore = {".stepwellignore": "*.log\n"}
    platform.deploy(function({"a": STEP}), code(**ignore))
    assert platform.deploy(function({"a": STEP}), code(**ignore, **{"x.log": "1"})) == 1


def test_files_that_work_only_on_one_machine_are_not_pushed(platform: Platform) -> None:
    node = {"node_modules/tool/cli.js": "x"}
    here = {".venv/pyvenv.cfg": "x", ".venv/lib/x.py": "x", "node_modules/.bin/tool": "x"}
    versions = [
        platform.push(function({"a": STEP}), files)["version"] for files in (code(**node), code(**node, **here))
    ]
    assert versions == [1, 1]


def test_comments_explicit_defaults_and_order_make_no_version(platform: Platform) -> None:
    short = """
id: f
triggers: [{event: go}]
steps: {a: {path: file://steps, runtime: {type: lambda, handler: code.handler}}}
"""
    long = """
# A comment
steps:
  a:
    join: merge  # the default
    timeout: 15m
    after: []
    runtime: {handler: code.handler, type: lambda}
    path: file://steps
    id: a
    name: a
triggers:
  - event: go
name: f
id: f
"""
    assert platform.deploy(short, code()) == 1
    assert platform.deploy(long, code()) == 1


def test_going_back_to_an_old_definition_is_a_new_version(platform: Platform) -> None:
    """A definition equal to the newest version makes no new version; one equal to an older version does."""
    assert [platform.deploy(function({"a": STEP}), code(text)) for text in (OLD, NEW, OLD, OLD)] == [1, 2, 3, 3]
    (run,) = platform.runs(platform.send())
    assert (run["function_version"], run["output"]) == (3, {"a": ["old", None]})


def test_versions_survive_a_restart(platform: Platform) -> None:
    platform.deploy(function({"a": STEP}), code())
    platform.restart()
    assert platform.deploy(function({"a": STEP}), code()) == 1
    assert platform.deploy(function({"a": STEP}), code(NEW)) == 2
    platform.restart()
    (run,) = platform.runs(platform.send())
    assert (run["function_version"], run["output"]) == (2, {"a": ["new", None]})


# --- which version runs ----------------------------------------------------------------------------------------------


def test_new_runs_use_the_new_version_at_once(platform: Platform) -> None:
    for version, text in enumerate((OLD, NEW), 1):
        platform.deploy(function({"a": STEP}), code(text))
        (run,) = platform.runs(platform.send())
        assert (run["function_version"], run["output"]["a"][0]) == (version, "old" if text is OLD else "new")


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_keeps_the_code_it_started_with(platform: Platform, restart: bool) -> None:
    platform.deploy(function(PAUSED), code())
    (run,) = platform.runs(platform.send())
    platform.deploy(function(PAUSED), code(NEW))
    if restart:
        platform.restart()
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["status"], run["function_version"], run["output"]) == ("completed", 1, {"b": ["old", None]})


def test_a_run_keeps_the_definition_it_started_with(platform: Platform) -> None:
    platform.deploy(function(PAUSED), code())
    (run,) = platform.runs(platform.send())
    platform.deploy(function({"a": STEP, "c": {**STEP, "after": "a"}}, on="other"), code())
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["status"], statuses(run)) == ("completed", {"a": "completed", "b": "completed"})
    assert platform.runs(platform.send()) == []


def test_retries_use_the_code_the_run_started_with(platform: Platform) -> None:
    fails = "def handler(event, context):\n    return {'status': 500, 'n': 'old'}\n"
    step = {**STEP, "retries": {"attempts": 1}}
    platform.deploy(function({"a": step}), code(fails))
    (run,) = platform.runs(platform.send())
    platform.deploy(function({"a": step}), code(NEW))
    platform.travel("1m")
    run = platform.run(run["id"])
    assert run["status"] == "failed"
    assert run["error"]["output"]["n"] == "old"


@pytest.mark.parametrize("restart", [False, True])
def test_a_wait_that_only_an_old_version_has_is_still_satisfied(platform: Platform, restart: bool) -> None:
    wait = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1d"}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": wait}}}))
    (run,) = platform.runs(platform.send(data={"order": 7}))
    platform.deploy(function({"a": {}}))
    if restart:
        platform.restart()
    platform.send("paid", {"order": 8})
    assert statuses(platform.run(run["id"]))["b"] == "waiting"
    platform.send("paid", {"order": 7})
    platform.settle()
    assert platform.run(run["id"])["status"] == "completed"


def test_a_running_step_is_not_disturbed_by_a_new_version(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function({"a": {}, "b": "a"}))
    event = platform.send(data=script(a={"wait_for": str(gate)}))
    platform.wait(platform.run_of(event), has("a", "running"))
    platform.deploy(function({"z": {}}))
    gate.touch()
    (run,) = platform.runs(event)
    assert (run["status"], run["function_version"], list(run["steps"])) == ("completed", 1, ["a", "b"])


# --- .env ------------------------------------------------------------------------------------------------------------


def test_the_next_attempt_uses_a_changed_env_file_without_a_new_version(platform: Platform) -> None:
    text = "import os\ndef handler(event, context):\n    return {'status': 500, 'x': os.environ.get('X')}\n"
    step = {**STEP, "retries": {"attempts": 2}}
    for value, time in (("1", "1ms"), ("2", "12s"), (None, "1m")):
        assert platform.deploy(function({"a": step}), code(text, **({".env": f"X={value}"} if value else {}))) == 1
        if value == "1":
            platform.send()
        platform.travel(time)
    (run,) = platform.runs()
    assert [attempt["error"]["output"]["x"] for attempt in run["steps"]["a"]["attempts"]] == ["1", "2", None]


def test_a_run_of_an_old_version_uses_the_current_env_file(platform: Platform) -> None:
    platform.deploy(function(PAUSED), code(**{".env": "X=1"}))
    (run,) = platform.runs(platform.send())
    assert platform.deploy(function(PAUSED), code(NEW, **{".env": "X=2"})) == 2
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["steps"]["a"]["output"], run["steps"]["b"]["output"]) == (["old", "1"], ["old", "2"])


# --- rerun -----------------------------------------------------------------------------------------------------------


def test_a_rerun_runs_the_same_event_on_the_live_version(platform: Platform) -> None:
    platform.deploy(function({"a": STEP}), code())
    event = platform.send(data={"n": 1})
    (first,) = platform.runs(event)
    platform.deploy(function({"a": {}}, on="other"))
    again = platform.rerun(first["id"])
    assert again is not None
    (_, run) = platform.runs(event)
    assert (run["id"], run["rerun_of"], run["function_version"]) == (again, first["id"], 2)
    assert (run["status"], run["output"], run["event_id"]) == ("completed", {"a": {"step": "a"}}, event)
    assert platform.run(first["id"]) == first


def test_every_rerun_is_a_separate_run(platform: Platform) -> None:
    platform.deploy(function())
    (first,) = platform.runs(platform.send(id="e"))
    second = platform.rerun(first["id"])
    assert second is not None
    third = platform.rerun(second)
    assert [run["rerun_of"] for run in platform.runs("e")] == [None, first["id"], second]
    assert len({first["id"], second, third}) == 3


@pytest.mark.parametrize("act", [{"raise": "no"}, {"wait_for": "/nonexistent"}])
def test_failed_and_running_runs_can_be_rerun(platform: Platform, act: Json) -> None:
    platform.deploy(function({"a": {"retries": {"attempts": 0}}}))
    first = platform.run_of(platform.send(data=script(a=act)))
    platform.wait(first, lambda run: run["steps"]["a"]["attempts"] != [])
    again = platform.rerun(first)
    assert again is not None
    assert platform.peek(again)["rerun_of"] == first
    platform.cancel(first)
    platform.cancel(again)
    platform.settle()
