"""On one machine, a new version of a limit applies at once."""

from __future__ import annotations

from pathlib import Path

from tests.behaviour.test_concurrency import ONE, held, is_running, is_waiting, send_all
from tests.behaviour.words import Platform, function


def test_what_is_queued_obeys_a_new_version_at_once(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency=ONE))
    runs = send_all(platform, *[held(gate)] * 3)
    platform.wait(runs[2], is_waiting)
    platform.deploy(function(concurrency={"limit": 3}))
    for run in runs:
        platform.wait(run, is_running)
    gate.touch()
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 3
