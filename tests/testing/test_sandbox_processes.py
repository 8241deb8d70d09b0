"""The emulated Lambda leaves no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepwell.testing.lambdas.processes import kill_all_with
from tests.servers import eventually

# A process in a session of its own, which has none of the variables, as the one that runs WebAssembly modules.
STARTS = """
import os, time
os.fork() or (os.setsid(), os.execve("/bin/sleep", ["sleep", "600"], {}))
time.sleep(600)
"""


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_what_a_process_of_the_sandbox_has_started_is_killed_in_whatever_session_and_environment() -> None:
    env = {**os.environ, "MARK": "sandbox-1"}
    leader = subprocess.Popen(["sh", "-c", f'{sys.executable} -c "$0" & wait', STARTS], env=env, start_new_session=True)
    (started,) = eventually(lambda: children(leader.pid))
    (left,) = eventually(lambda: children(started))
    eventually(lambda: b"sleep" in Path(f"/proc/{left}/cmdline").read_bytes())
    kill_all_with("MARK=sandbox-1", leader.pid)
    leader.wait()
    eventually(lambda: not is_alive(started) and not is_alive(left))
