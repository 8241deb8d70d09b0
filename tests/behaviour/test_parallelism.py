"""How many steps run at a time, and that a flood of runs does not delay others."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.behaviour.web import Site
from tests.behaviour.words import Json, Platform, function

# Reports that it has begun, and ends when it gets a token.
NOTE = """
import os, time
def handler(event, context):
    ctx, folder = event["ctx"], event["event"]["data"]["folder"]
    open(f"{folder}/begun/{ctx['function_id']}-{ctx['run_id']}", "w").close()
    while True:
        for token in os.listdir(f"{folder}/tokens"):
            try:
                return os.unlink(f"{folder}/tokens/{token}")
            except OSError:  # another was faster
                pass
        time.sleep(0.002)
"""
STEP = {"a": {"runtime": {"type": "lambda", "handler": "note.handler"}}}


class Stage:
    """Steps report here that they have begun, and get tokens that let them end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokens = 0
        for name in ("begun", "tokens"):
            (folder / name).mkdir()

    def events(self, name: str, count: int) -> bytes:
        event: Json = {"name": name, "data": {"folder": str(self._folder)}}
        return json.dumps([event] * count).encode()

    def begun(self, at_least: int = 0) -> list[str]:
        """Waits until `at_least` steps have begun. Returns the functions of all steps that have begun."""
        deadline = time.monotonic() + 20
        while len(found := [file.name.partition("-")[0] for file in (self._folder / "begun").iterdir()]) < at_least:
            assert time.monotonic() < deadline, f"only these began: {found}"
        return found

    def let_end(self, count: int) -> None:
        for _ in range(count):
            self._tokens += 1
            (self._folder / f"tokens/{self._tokens}").touch()


@pytest.mark.kind("an attempt that runs twice needs a second token")
def test_the_number_of_running_steps_is_limited(platform: Platform, tmp_path: Path) -> None:
    """Locally. On AWS the engine queues nothing: it starts all steps, and Lambda's concurrency is the limit."""
    stage, most = Stage(tmp_path), platform.parallelism
    platform.deploy(function(STEP), {"steps/note.py": NOTE})
    if platform.name == "aws":
        events = platform.send_raw(stage.events("go", 6))
        stage.begun(at_least=6)
        assert [platform.peek(platform.run_of(event))["steps"]["a"]["status"] for event in events] == ["running"] * 6
        stage.let_end(6)
        assert {run["status"] for run in platform.runs()} == {"completed"}
        return
    events = platform.send_raw(stage.events("go", 3 * most))
    stage.begun(at_least=most)
    states = [platform.peek(platform.run_of(event))["steps"]["a"]["status"] for event in events]
    assert sorted(states) == ["queued"] * 2 * most + ["running"] * most
    assert len(stage.begun()) == most
    stage.let_end(3 * most)
    assert {run["status"] for run in platform.runs()} == {"completed"}


def test_waiting_http_steps_do_not_delay_programs(platform: Platform, site: Site, tmp_path: Path) -> None:
    """http steps take no slot. On AWS there are no slots."""
    stage, many = Stage(tmp_path), 3 * platform.parallelism
    site.hold.clear()
    call: Json = {"a": {"path": "", "runtime": {"type": "http", "url": site.url}}}
    platform.deploy(function(call, id="call", on="call"))
    platform.deploy(function(STEP, id="program", on="program"), {"steps/note.py": NOTE})
    calls = platform.send_raw(stage.events("call", many))
    site.wait_for(many)
    programs = platform.send_raw(stage.events("program", 2))
    stage.begun(at_least=2)
    stage.let_end(2)
    for event in programs:
        platform.wait(platform.run_of(event), lambda run: run["status"] == "completed")
    assert {platform.peek(platform.run_of(event))["status"] for event in calls} == {"running"}
    site.hold.set()
    assert {run["status"] for run in platform.runs()} == {"completed"}


@pytest.mark.kind("an attempt that runs twice needs a second token")
def test_running_programs_do_not_delay_http_steps(platform: Platform, site: Site, tmp_path: Path) -> None:
    stage, many = Stage(tmp_path), platform.parallelism
    call: Json = {"a": {"path": "", "runtime": {"type": "http", "url": site.url}}}
    platform.deploy(function(call, id="call", on="call"))
    platform.deploy(function(STEP, id="program", on="program"), {"steps/note.py": NOTE})
    platform.send_raw(stage.events("program", many + 1))
    stage.begun(at_least=many)
    for event in platform.send_raw(stage.events("call", 3)):
        platform.wait(platform.run_of(event), lambda run: run["status"] == "completed")
    stage.let_end(many + 1)
    assert {run["status"] for run in platform.runs()} == {"completed"}


@pytest.mark.kind("an attempt that runs twice needs a second token")
def test_many_runs_of_one_function_do_not_starve_another(platform: Platform, tmp_path: Path) -> None:
    stage, most = Stage(tmp_path), platform.parallelism
    for name in ("flood", "drop"):
        platform.deploy(function(STEP, id=name, on=name), {"steps/note.py": NOTE})
    if platform.name == "aws":  # the engine queues nothing there
        platform.send_raw(stage.events("flood", 6))
        platform.send_raw(stage.events("drop", 1))
        assert stage.begun(at_least=7).count("drop") == 1
        stage.let_end(7)
        assert {run["status"] for run in platform.runs()} == {"completed"}
        return
    platform.send_raw(stage.events("flood", 40))
    stage.begun(at_least=most)
    platform.send_raw(stage.events("drop", 3))
    for ended in range(1, 7):
        stage.let_end(1)
        stage.begun(at_least=most + ended)
    assert stage.begun().count("drop") == 3  # of the six that have begun since then: the functions take turns
    stage.let_end(40 + 3 - 6)
    assert {run["status"] for run in platform.runs()} == {"completed"}
