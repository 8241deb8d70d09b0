"""A command that is forked for a test behaves like `python -m stepwell`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import commands
from tests.servers import program, write_function

EVENT = json.dumps({"name": "go", "data": {"n": 1}})
SEEN = "env | cut -d= -f1 | grep -v -e ^_ -e STEPWELL_ | sort; umask; ulimit -n"


def spawned(*arguments: str, input: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command, variables = [sys.executable, "-m", "stepwell", *arguments], {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, input=input, env=variables, timeout=60)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["runs", "--help"],
        ["no-such-command"],
        ["validate", "no/such/folder"],
        ["run", "no/such/folder", "--event", EVENT],
        ["send", "go", "--data", "{"],
        ["runs"],
        ["import", "-"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_output_and_exit_code_are_the_same_as_of_a_spawned_command(arguments: list[str]) -> None:
    unreachable = {"STEPWELL_URL": "http://127.0.0.1:1"}
    ways = [spawned(*arguments, input="{}\n", **unreachable), commands.run(arguments, unreachable, input="{}\n")]
    first, second = ((way.returncode, way.stdout, way.stderr) for way in ways)
    assert first == second


def test_its_steps_see_the_same_as_those_of_a_spawned_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_function(tmp_path / "f", a=program(SEEN))
    monkeypatch.chdir(tmp_path)
    arguments = ["run", str(folder), "--event", EVENT, "--json"]
    seen = [json.loads(way.stdout) for way in (spawned(*arguments), commands.run(arguments))]
    first, second = (run["steps"]["a"]["output"]["body"] for run in seen)
    assert first == second
    assert "PATH" in first


def test_its_exit_code_contains_the_signal_that_ended_it(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "f")
    server = commands.start(["dev", str(folder), "--port", "0", "--db", str(tmp_path / "db"), "--json"])
    assert isinstance(server, commands.Command)
    assert server.stdout is not None
    assert server.stderr is not None
    assert server.stdout.readline()
    assert server.poll() is None
    server.kill()
    assert (server.wait(20), server.poll()) == (-signal.SIGKILL, -signal.SIGKILL)
    server.stdout.close()
    server.stderr.close()


@pytest.mark.parametrize("name", ["PYTHONWARNINGS", "NO_COLOR", "TZ", "LC_ALL", "COLUMNS"])
def test_variables_that_python_reads_at_its_start_need_a_spawned_command(name: str) -> None:
    assert commands.can_fork({"OWN": "x"})
    assert not commands.can_fork({name: "C"})
