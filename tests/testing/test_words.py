"""The fixtures `stepwell` and `stepwell_aws` as users have them: consecutive calls have no races."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.testing.platform import Json, Refused, Stepwell

PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1d"}
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(0.3)\n    return {'at': 'last'}\n"


@pytest.fixture(params=["stepwell", "stepwell_aws"])
def platform(request: pytest.FixtureRequest) -> Stepwell:
    found: Stepwell = request.getfixturevalue(request.param)
    return found


def function(folder: Path, steps: Json, *, on: str = "go", code: str = SLOW) -> Path:
    """A function in a folder named like its id, whose steps take a while."""
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(code)
    common = {"path": "file://app.py", "runtime": {"type": "lambda", "handler": "app.handler"}}
    steps = {step_id: {**common, **item} for step_id, item in steps.items()}
    definition = {"id": folder.name, "triggers": [{"event": on}], "steps": steps}
    (folder / "stepwell.json").write_text(json.dumps(definition))
    return folder


def only(platform: Stepwell, event_id: str) -> str:
    (run,) = platform.runs(event_id)
    return str(run["id"])


def test_run_waits_until_all_sent_events_have_had_their_effect(platform: Stepwell, tmp_path: Path) -> None:
    platform.deploy(function(tmp_path / "f", {"a": {}, "b": {"after": [{"step": "a", "async": PAID}]}}))
    run_id = only(platform, platform.send("go", {"order": 1}))
    platform.send("paid", {"order": 1})
    run = platform.run(run_id)
    assert (run["status"], run["output"]) == ("completed", {"b": {"at": "last"}})


def test_send_returns_when_the_event_is_routed(platform: Stepwell, tmp_path: Path) -> None:
    platform.deploy(function(tmp_path / "f", {"a": {}}))
    event_id = platform.send("go")
    (run,) = platform.api("GET", f"/v1/events/{event_id}/runs")["data"]
    assert platform.peek(run["id"])["status"] in ("running", "completed")
    assert platform.run(run["id"])["status"] == "completed"


def test_a_rerun_is_returned_when_it_has_ended(platform: Stepwell, tmp_path: Path) -> None:
    platform.deploy(function(tmp_path / "f", {"a": {}}))
    again = platform.rerun(only(platform, platform.send("go", id="e")))
    assert again is not None
    assert platform.run(again)["status"] == "completed"
    asked = {"replay": "r1", "events": [{"id": "e"}]}
    (done,) = platform.api("POST", "/v1/functions/f/replay", asked)["events"]
    assert platform.run(done["run_id"])["status"] == "completed"


def test_cancel_takes_effect_at_once(platform: Stepwell, tmp_path: Path) -> None:
    platform.deploy(function(tmp_path / "f", {"a": {}, "b": {"after": [{"step": "a", "wait": "1h"}]}}))
    run_id = only(platform, platform.send("go"))
    platform.cancel(run_id)
    assert platform.peek(run_id)["status"] == "cancelled"


def test_events_waits_for_the_events_that_follow(platform: Stepwell, tmp_path: Path) -> None:
    platform.deploy(function(tmp_path / "f", {"a": {}}))
    platform.deploy(function(tmp_path / "after", {"a": {}}, on="stepwell/run.completed"))
    platform.send("go")
    (ended,) = platform.events("stepwell/run.completed")
    assert ended["data"]["function_id"] == "f"
    assert [run["function_id"] for run in platform.runs(ended["id"])] == ["after"]


def test_approve_waits_for_everything_that_follows(platform: Stepwell, tmp_path: Path) -> None:
    asks: Json = {"path": "", "runtime": {"type": "approval", "message": "'Pay?'"}}
    platform.deploy(function(tmp_path / "f", {"ask": asks, "b": {"after": [{"step": "ask"}]}}))
    run_id = only(platform, platform.send("go"))
    platform.approve(run_id)
    assert platform.peek(run_id)["status"] == "completed"


def test_the_next_event_uses_the_last_push(platform: Stepwell, tmp_path: Path) -> None:
    for n in (1, 2):
        code = f"def handler(event, context):\n    return {n}\n"
        assert platform.deploy(function(tmp_path / str(n) / "f", {"a": {}}, code=code)) == n
        (run,) = platform.runs(platform.send("go"))
        assert (run["function_version"], run["output"]) == (n, {"a": n})


def test_a_step_that_keeps_running_is_returned_as_it_is(
    platform: Stepwell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.testing.settling.PATIENCE_S", 0.5)
    go = tmp_path / "go"
    code = (
        f"import os, time\ndef handler(event, context):\n    while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    )
    platform.deploy(function(tmp_path / "f", {"a": {}}, code=code))
    run_id = only(platform, platform.send("go"))
    assert platform.run(run_id)["status"] == "running"
    go.touch()
    platform.wait(run_id, lambda run: run["status"] == "completed")


# --- deploying -------------------------------------------------------------------------------------------------------


def test_a_folder_of_functions_is_deployed_with_its_types(platform: Stepwell, tmp_path: Path) -> None:
    function(tmp_path / "all/one", {"a": {}}, on="one")
    function(tmp_path / "all/deep/two", {"a": {}}, on="two")
    schema = tmp_path / "all/schemas/one.1.schema.json"
    schema.parent.mkdir()
    schema.write_text(json.dumps({"x-stepwell-policy": "reject", "required": ["n"]}))
    assert platform.deploy(tmp_path / "all") == {"one": 1, "two": 1}
    assert [run["function_id"] for run in platform.runs(platform.send("two"))] == ["two"]
    with pytest.raises(Refused, match="n"):
        platform.send("one")
    function(tmp_path / "all/three", {"a": {}}, on="two")
    assert platform.deploy(str(tmp_path / "all")) == {"one": 1, "two": 1, "three": 1}


def _nothing(folder: Path) -> None:
    folder.mkdir()


def _one_broken(folder: Path) -> None:
    function(folder / "f", {"a": {}})
    (function(folder / "g", {"a": {}}) / "stepwell.json").write_text('{"id": "g"}')


def _two_of_one_id(folder: Path) -> None:
    function(folder / "x/f", {"a": {}})
    function(folder / "y/f", {"a": {}})


def _wrong_type(folder: Path) -> None:
    function(folder / "f", {"a": {}})
    (folder / "schemas").mkdir()
    (folder / "schemas/go.1.schema.json").write_text('{"type": "nothing"}')


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_nothing, "contains no function"),
        (_one_broken, "`triggers` is missing"),
        (_two_of_one_id, "the id 'f' is already used"),
        (_wrong_type, "nothing"),
        (lambda folder: None, "does not exist"),
    ],
)
def test_a_folder_with_an_error_is_refused_as_a_whole(
    platform: Stepwell, tmp_path: Path, make: Any, expected: str
) -> None:
    make(tmp_path / "all")
    with pytest.raises(Refused, match=expected):
        platform.deploy(tmp_path / "all")
    assert platform.api("GET", "/v1/functions")["data"] == []
