"""How many steps run at a time, and that nobody has to wait for a flood of others."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.behaviour.words import Json, Platform, function

# Says that it began, ends when the test opens the gate, and returns when it began (ns, one clock for all processes).
NOTE = """
import os, time
def handler(event, context):
    begun, data = time.monotonic_ns(), event["event"]["data"]
    open(f"{data['folder']}/{event['ctx']['run_id']}", "w").close()
    while not os.path.exists(data["gate"]):
        time.sleep(0.002)
    return begun
"""
STEP = {"a": {"runtime": {"type": "lambda", "handler": "note.handler"}}}


class Begun:
    """Steps that have begun, and the gate that lets them end."""

    def __init__(self, place: Path) -> None:
        self._folder, self._gate = place / "begun", place / "gate"
        self._folder.mkdir()

    def events(self, name: str, count: int) -> bytes:
        event: Json = {"name": name, "data": {"folder": str(self._folder), "gate": str(self._gate)}}
        return json.dumps([event] * count).encode()

    @property
    def count(self) -> int:
        return len(list(self._folder.iterdir()))

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 20
        while self.count < count:
            assert time.monotonic() < deadline, f"only {self.count} steps began"

    def let_end(self) -> None:
        self._gate.touch()


def test_no_more_steps_run_at_a_time_than_are_allowed(platform: Platform, tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    platform.deploy(function(STEP), {"steps/note.py": NOTE})
    events = platform.send_raw(begun.events("go", 12))
    begun.wait_for(platform.parallelism)
    states = [platform.run(platform.run_of(event))["steps"]["a"]["status"] for event in events]
    assert sorted(states) == ["queued"] * (12 - platform.parallelism) + ["running"] * platform.parallelism
    assert begun.count == platform.parallelism
    begun.let_end()
    assert {run["status"] for run in platform.runs()} == {"completed"}


def test_a_flood_of_one_function_does_not_starve_another(platform: Platform, tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    for name in ("flood", "drop"):
        platform.deploy(function(STEP, id=name, on=name), {"steps/note.py": NOTE})
    platform.send_raw(begun.events("flood", 60))
    begun.wait_for(platform.parallelism)
    platform.send_raw(begun.events("drop", 3))
    begun.let_end()
    order = sorted(platform.runs(), key=lambda run: run["output"]["a"])
    last = max(place for place, run in enumerate(order) if run["function_id"] == "drop")
    assert last < 4 * platform.parallelism  # the two take turns
