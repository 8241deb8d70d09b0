"""Processes that steps leave behind never stay zombies, and exit statuses of the server's children are not taken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.servers import api, dev, eventually, program, write_function

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

LEAVES = """
sleep 60 & (sleep 0.05 &) ; setsid sleep 0.1 &
setsid sh -c ': > "$TMPDIR/there"; sleep 0.1 & sleep 60' &
until [ -e "$TMPDIR/there" ]; do :; done
echo '"done"'
"""


def children(pid: int) -> list[tuple[int, str]]:
    """The ids and states of a process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # the process is gone
            continue
        if int(parent) == pid:
            found.append((int(stat.parent.name), state))
    return found


def zombies(pid: int) -> int:
    return sum(state == "Z" for _, state in children(pid))


def test_orphans_of_steps_come_to_the_server_and_are_reaped(tmp_path: Path) -> None:
    steps = {"a": program(LEAVES), "b": program("sleep 60 & sleep 60", timeout="500ms", after=[{"step": "a"}])}
    with dev(write_function(tmp_path / "f", **steps), tmp_path / "db") as server, api(server) as http:
        for event in [http.send() for _ in range(5)]:
            assert http.ended(event)["steps"]["b"]["error"]["kind"] == "timeout"
        eventually(lambda: zombies(server.process.pid) == 0)
        daemons = [pid for pid, state in children(server.process.pid) if state == "S"]
        assert len(daemons) >= 5  # each step has one
        assert server.stop() == 0
    for pid in daemons:
        eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))  # noqa: PTH110


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a namespace of processes")
@pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "ps", "unshare"))), reason="curl, ps or unshare is not installed"
)
def test_a_server_that_is_process_1_leaves_no_zombies(tmp_path: Path) -> None:
    write_function(tmp_path / "f", a=program(LEAVES))
    inner = f"""
        url=http://127.0.0.1:$1; db={tmp_path}/db
        ( until curl -so /dev/null $url/healthz; do sleep 0.05; done
          for i in 1 2 3 4 5; do curl -so /dev/null $url/e/x -d '{{"name": "go"}}'; done
          for i in $(seq 200); do sleep 0.05
            [ $(curl -s $url/v1/runs?status=completed | grep -o '"function_id":' | wc -l) -ge 5 ] && break
          done
          for i in $(seq 100); do [ $(ps -eo stat= | grep -c '^Z') = 0 ] && break; sleep 0.05; done
          echo zombies $(ps -eo stat= | grep -c '^Z') of $(ps -eo stat= | wc -l); kill -TERM 1 ) &
        exec {sys.executable} -m stepwell dev {tmp_path}/f --port $1 --db $db > {tmp_path}/log 2>&1
    """
    made = subprocess.run(
        ["unshare", "-pf", "--mount-proc", "sh", "-c", inner, "sh", str(free_port())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "Operation not permitted" in made.stderr:
        pytest.skip("this machine makes no namespaces")
    words = made.stdout.split()
    assert words[:3] == ["zombies", "0", "of"], (made, (tmp_path / "log").read_text())
    assert int(words[3]) > 5  # the daemons are running


OTHERS_CHILDREN = """
import asyncio, os, signal, subprocess, sys, threading
from stepwell.local.reaper import orphans_reaped, reap
from stepwell.local.runners.process import Process, Program

async def main():
    loop, codes = asyncio.get_running_loop(), []
    async with orphans_reaped():
        for round in range(30):
            ended = loop.create_future()
            program = Program(["sh", "-c", "(sleep 0.01 &) ; setsid true & exit 7"], None, os.environ)
            Process(program, lambda *_: None, ended.set_result)
            mine = [subprocess.Popen(["sh", "-c", "exit 3"]) for _ in range(3)]
            there = asyncio.to_thread(subprocess.run, ["sh", "-c", "exit 5"])
            asked = await asyncio.create_subprocess_exec("sh", "-c", "exit 6")
            while loop.time() and not ended.done():
                reap()
                await asyncio.sleep(0.001)
            codes += [ended.result(), (await there).returncode, await asked.wait(), *(its.wait() for its in mine)]
    print(sorted(codes) == sorted([7, 5, 6, 3, 3, 3] * 30))

asyncio.run(main())
"""


def test_exit_statuses_of_children_are_never_taken() -> None:
    made = subprocess.run([sys.executable, "-c", OTHERS_CHILDREN], capture_output=True, text=True, timeout=60)
    assert (made.stdout, made.stderr) == ("True\n", "")
