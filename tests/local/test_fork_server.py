"""Forked Python workers behave like processes that were started normally."""

from __future__ import annotations

import os
import pwd
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.local.runners import interpreters
from stepwell.local.runners.handler import HandlerRunner
from stepwell.local.runners.job import Job
from stepwell.local.runners.scratch import Scratch
from stepwell.local.system.memory import private_bytes
from tests.local.attempts import Attempt, handler, is_running, on_runners, put, until
from tests.servers import QUICK, Api, Json, api, dev, eventually, new_key, serve, write_function

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def py(folder: Path, body: str, top: str = "", **options: Any) -> Job:
    code = put(folder, app__py=f"import os, sys\n{top}\ndef handler(event, context):\n{indented(body)}\n")
    return handler(code, "app.handler", **options)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


class Runner(HandlerRunner):
    """A handler runner, and how to wait for its interpreter."""

    async def ready(self, job: Job) -> int:
        """Waits until workers for this job can be forked; returns the interpreter's process id."""
        await Attempt(self, job).end()
        await until(lambda: self.forkers)
        return self.forkers[0]

    @property
    def has_forkers(self) -> bool:
        """Whether there are interpreters, including those that are starting or being killed."""
        return bool(self._interpreters)

    @property
    def forkers(self) -> list[int]:
        return self._interpreters.ready_pids()

    async def output(self, job: Job) -> Any:
        return (await Attempt(self, job).end()).output


def with_runner(work: Callable[[Runner], Awaitable[None]], **limits: int) -> None:
    async def main(_: object) -> None:
        scratch = Scratch()
        runner = Runner(scratch, **limits)
        try:
            await work(runner)
        finally:
            await runner.close()
            await scratch.close()

    on_runners(main)


def test_workers_are_children_of_one_interpreter_that_runs_no_handler(tmp_path: Path) -> None:
    async def work(runner: Runner) -> None:
        forker = await runner.ready(py(tmp_path / "first", "pass"))
        jobs = [py(tmp_path / name, "return [os.getpid(), os.getppid(), os.getsid(0)]") for name in "abc"]
        outputs = [await runner.output(job) for job in jobs]
        assert [parent for _, parent, _ in outputs] == [forker] * 3
        assert [session for _, _, session in outputs] == [pid for pid, _, _ in outputs]

    with_runner(work)


def test_a_forked_worker_sees_the_same_as_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """
import json, threading
files = ["/proc/self/fd/" + number for number in sorted(os.listdir("/proc/self/fd"), key=int)]
open_files = [os.readlink(file).partition(":")[0] for file in files if os.path.lexists(file)]
environ = {k: ascii(v) for k, v in os.environ.items() if k != "TMPDIR"}
signals = [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
import signal, resource, multiprocessing
limits = [resource.getrlimit(n) for n in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_AS)]
main, tmp = sys.modules["__main__"], os.environ["TMPDIR"]
return {
    "environ": environ, "cwd": os.getcwd(), "argv": sys.argv, "path": sys.path, "flags": sys.flags[:],
    "python": sys.executable, "files": open_files, "signals": signals, "limits": limits,
    "tmp": [os.path.isabs(tmp), os.listdir(tmp)], "cpus": sorted(os.sched_getaffinity(0)), "umask": os.umask(0o22),
    "main": [main.__name__, main.__file__, main.__spec__], "threads": threading.active_count(),
    "streams": [[s.encoding, s.errors, s.line_buffering] for s in (sys.stdin, sys.stdout, sys.stderr)],
    "handlers": [str(signal.getsignal(n)) for n in (2, 13, 15)],
}
""".strip()
    env = {"A": "1", "TZ": "Asia/Tokyo", "ODD": "\udcff=\n"}
    job = py(tmp_path / "code", "return [os.getppid(), seen()]", "def seen():\n" + indented(body), env=env)
    found: list[Any] = []

    async def alone(runner: Runner) -> None:
        parent, seen = await runner.output(job)
        assert parent == os.getpid()
        found.append(seen)

    async def forked(runner: Runner) -> None:
        forker = await runner.ready(py(tmp_path / "first", "pass"))
        parent, seen = await runner.output(job)
        assert parent == forker
        for what, value in found[0].items():
            assert seen[what] == value, what

    with monkeypatch.context() as patch:
        patch.setattr(interpreters, "can_fork", lambda: False)
        with_runner(alone)
    with_runner(forked)


def handler_with(job: Job, env: dict[str, str]) -> Job:
    assert job.code is not None
    return handler(job.code, "app.handler", env=env)


def test_the_time_zone_of_a_worker_is_its_own(tmp_path: Path) -> None:
    async def work(runner: Runner) -> None:
        await runner.ready(py(tmp_path / "first", "pass"))
        job = py(tmp_path, "import time\nreturn time.strftime('%z', time.localtime(0))")
        assert await runner.output(handler_with(job, {"TZ": "Asia/Tokyo"})) == "+0900"
        assert await runner.output(handler_with(job, {"TZ": "UTC"})) == "+0000"

    with_runner(work)


def test_random_numbers_of_workers_differ(tmp_path: Path) -> None:
    numbers = "random.random(), secrets.token_hex(), str(uuid.uuid4()), str(uuid.uuid1())"
    body = f"import random, secrets, uuid\nreturn [{numbers}]"

    async def work(runner: Runner) -> None:
        await runner.ready(py(tmp_path / "first", "pass"))
        outputs = [await runner.output(py(tmp_path / name, body)) for name in "abc"]
        for numbers in zip(*outputs, strict=True):
            assert len(set(numbers)) == 3

    with_runner(work)


def test_a_worker_finds_nothing_of_another_in_its_memory(tmp_path: Path) -> None:
    """Variables, code and inputs of other handlers never pass through the interpreter that workers are forked from."""
    look = """
import re
needle = b"needle-" + b"7f3a"
found = []
for line in open("/proc/self/maps"):
    area, modes = line.split()[:2]
    if modes.startswith("rw"):
        start, end = (int(n, 16) for n in area.split("-"))
        with open("/proc/self/mem", "rb", 0) as memory:
            memory.seek(start)
            try:
                left = end - start
                while left > 0:
                    piece = memory.read(min(left, 1 << 20))
                    if not piece:
                        break
                    found += re.findall(needle + b"-[a-z]+", piece)
                    left -= len(piece)
            except OSError:
                pass
return sorted({f.decode() for f in found})
""".strip()

    async def work(runner: Runner) -> None:
        await runner.ready(py(tmp_path / "first", "pass"))
        env = {"SECRET": "needle-7f3a-variable"}
        secret = py(
            tmp_path / "a", "return [len(os.environ['SECRET']), os.getppid()]", env=env, content=b'"needle-7f3a-input"'
        )
        assert (await runner.output(secret)) == [20, runner.forkers[0]]
        assert await runner.output(py(tmp_path / "b", look)) == []
        own = await runner.output(py(tmp_path / "c", look, env=env))
        assert own == ["needle-7f3a-variable"]

    with_runner(work)


def test_modules_of_the_handlers_folder_come_before_those_that_are_loaded(tmp_path: Path) -> None:
    code = put(
        tmp_path / "code",
        decimal__py="MINE = 1",
        python_fork_server__py="MINE = 2",
        app__py="import decimal, os, python_fork_server\n"
        "def handler(event, context): return [decimal.MINE, python_fork_server.MINE, os.getppid()]",
    )

    async def work(runner: Runner) -> None:
        forker = await runner.ready(py(tmp_path / "first", "pass"))
        assert await runner.output(handler(code, "app.handler")) == [1, 2, forker]

    with_runner(work)


@pytest.mark.parametrize("name", ["PYTHONPATH", "LD_LIBRARY_PATH", "LC_ALL", "HOME"])
def test_variables_read_at_the_start_of_a_process_prevent_forking(tmp_path: Path, name: str) -> None:
    async def work(runner: Runner) -> None:
        await runner.ready(py(tmp_path / "first", "pass"))
        job = py(tmp_path, f"return [os.getppid(), os.environ[{name!r}]]", env={name: "/nowhere"})
        assert await runner.output(job) == [os.getpid(), "/nowhere"]

    with_runner(work)


def test_processes_that_a_handler_starts_work(tmp_path: Path) -> None:
    body = """
import multiprocessing, subprocess
context = multiprocessing.get_context("spawn")
process = context.Process(target=print, args=("spawned",), kwargs={"flush": True})
process.start()
process.join()
subprocess.run(["echo", "run"], check=True)
if os.fork() == 0:
    os.write(1, b"forked\\n")
    os._exit(0)
os.wait()
return process.exitcode
""".strip()

    async def work(runner: Runner) -> None:
        await runner.ready(py(tmp_path / "first", "pass"))
        attempt = await Attempt(runner, py(tmp_path, body)).end()
        assert attempt.output == 0
        assert attempt.log("stdout") == "spawned\nrun\nforked\n"

    with_runner(work)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("os._exit(4)", "exit code 4"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ("os.kill(0, 9)", "killed by SIGKILL"),
        ("os.closerange(3, 65536); time.sleep(60)", "killed by SIGKILL"),
    ],
)
def test_the_exit_of_a_forked_worker_is_reported(tmp_path: Path, body: str, why: str) -> None:
    async def work(runner: Runner) -> None:
        forker = await runner.ready(py(tmp_path / "first", "pass"))
        attempt = await Attempt(runner, py(tmp_path, f"print('before')\n{body}", "import time")).end()
        assert attempt.error[:2] == ("crash", True)
        assert why in attempt.error[2]
        assert attempt.log("stdout") == "before\n"
        assert runner.forkers == [forker]
        await until(lambda: no_zombies(forker))

    with_runner(work)


def no_zombies(parent: int) -> bool:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return all(is_running(int(pid)) for pid in children)


def test_a_stop_kills_a_forked_worker_and_its_children(tmp_path: Path) -> None:
    body = "print(os.getpid(), subprocess.Popen(['sleep', '600']).pid)\ntime.sleep(600)"

    async def work(runner: Runner) -> None:
        await runner.ready(py(tmp_path / "first", "pass"))
        at_once = Attempt(runner, py(tmp_path / "a", "return 1"))
        at_once.running.stop()  # before the process exists
        assert (await at_once.end()).error[0] == "stopped"
        job = py(tmp_path, body, "import subprocess, time", timeout_ms=500)
        attempt = await Attempt(runner, job).end()
        assert attempt.error[0] == "timeout"
        pids = [int(pid) for pid in attempt.log().split()]
        await until(lambda: not any(map(is_running, pids)))

    with_runner(work)


def test_a_dead_interpreter_is_restarted_and_its_workers_continue(tmp_path: Path) -> None:
    body = "return [os.getpid(), os.getppid()]"

    async def work(runner: Runner) -> None:
        forker = await runner.ready(py(tmp_path / "first", "pass"))
        worker, _ = await runner.output(py(tmp_path / "a", body))
        os.kill(forker, signal.SIGKILL)
        await until(lambda: not runner.forkers)
        assert (await runner.output(py(tmp_path / "a", body)))[0] == worker
        assert (await runner.output(py(tmp_path / "b", body)))[1] == os.getpid()  # a normal process meanwhile
        await until(lambda: runner.forkers)
        assert (await runner.output(py(tmp_path / "c", body)))[1] == runner.forkers[0] != forker
        os.kill(worker, signal.SIGKILL)
        await until(lambda: not is_running(worker))
        assert (await runner.output(py(tmp_path / "a", body)))[0] != worker

    with_runner(work)


def test_an_interpreter_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.local.runners.fork_server._PATIENCE_S", 0.1)

    async def work(runner: Runner) -> None:
        forker = await runner.ready(py(tmp_path / "first", "pass"))
        os.kill(forker, signal.SIGSTOP)
        assert (await Attempt(runner, py(tmp_path / "a", "return 1")).end()).error[:2] == ("crash", True)
        assert await runner.output(py(tmp_path / "a", "return 1")) == 1
        assert not is_running(forker)

    with_runner(work)


def test_an_interpreter_with_threads_is_not_forked(tmp_path: Path) -> None:
    start = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    code = put(tmp_path / "code", app__py="import os\ndef handler(event, context): return os.getppid()")
    put(code / "site", sitecustomize__py=start)
    put(code / ".venv/bin", python=f'#!/bin/sh\nPYTHONPATH={code}/site exec {sys.executable} "$@"\n')

    async def work(runner: Runner) -> None:
        for _ in range(4):
            assert await runner.output(handler(code, "app.handler")) == os.getpid()
            runner.sweep(0)
        assert runner.forkers == []

    with_runner(work)


def test_an_attempt_ends_although_no_interpreter_can_be_started(tmp_path: Path) -> None:
    body = "import shutil\nshutil.rmtree(os.path.dirname(os.environ['TMPDIR']))\nreturn 1"

    async def work(runner: Runner) -> None:
        assert await runner.output(py(tmp_path, body)) == 1
        assert runner.forkers == []

    with_runner(work)


def test_workers_start_as_processes_where_forking_is_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "can_fork", lambda: False)

    async def work(runner: Runner) -> None:
        for name in "abc":
            assert await runner.output(py(tmp_path / name, "return os.getppid()")) == os.getpid()
        assert runner.forkers == []

    with_runner(work)


def test_the_interpreter_ends_when_it_is_unused_and_with_the_runner(tmp_path: Path) -> None:
    pids: list[int] = []

    async def work(runner: Runner) -> None:
        forker = await runner.ready(py(tmp_path / "first", "pass"))
        runner.sweep(0)
        await until(lambda: not is_running(forker) and not runner.has_forkers)
        pids.append(await runner.ready(py(tmp_path / "second", "pass")))

    with_runner(work)
    assert not is_running(pids[0])


def test_an_idle_worker_has_little_private_memory(tmp_path: Path) -> None:
    async def work(runner: Runner) -> None:
        await runner.ready(py(tmp_path / "first", "pass"))
        plain = await runner.output(py(tmp_path / "plain", "return os.getpid()", env={"PYTHONUTF8": "1"}))
        forked = [await runner.output(py(tmp_path / name, "return os.getpid()")) for name in "abcd"]
        assert max(map(private_bytes, forked)) < private_bytes(plain) / 2

    with_runner(work)


# --- on a real server ------------------------------------------------------------------------------------------------

WHO = """
import os, time
def handler(event, context):
    flag = event["event"]["data"].get("flag")
    if flag:
        open(flag, "w").close()
        time.sleep(600)
    return [os.getuid(), os.getgid(), sorted(os.getgroups()), os.getpid(), os.getppid()]
"""


def functions_of(folder: Path) -> Path:
    """Functions `go0` to `go19`, each with its own handler."""
    for number in range(20):
        step: Json = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.handler"}, **QUICK}
        code = folder / f"f{number}"
        code.mkdir(parents=True)
        (code / "app.py").write_text(WHO)
        write_function(code, id=f"f{number}", on=f"go{number}", a=step)
    return folder


def forked(http: Api, server: int) -> list[Any]:
    """The output of the first worker whose parent is not the server, and the number of its function."""
    for number in range(20):
        items: list[Any] = http.ended(http.send(name=f"go{number}"))["steps"]["a"]["output"]
        if items[-1] != server:
            return [*items, number]
    raise AssertionError("all workers are children of the server")


def test_nothing_is_left_of_a_server_that_was_killed(tmp_path: Path) -> None:
    functions, db = functions_of(tmp_path / "f"), tmp_path / "db"
    with dev(functions, db) as server, api(server) as http:
        *_, worker, forker, number = forked(http, server.process.pid)
        http.send(name=f"go{number}", data={"flag": str(tmp_path / "flag")})
        eventually((tmp_path / "flag").exists)
        server.kill()
    eventually(lambda: not is_running(forker))
    with dev(functions, db):  # the next server finds the worker by its TMPDIR
        eventually(lambda: not is_running(worker))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become another user")
@pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="the system has no Python that all may run")
def test_forked_workers_run_as_the_user_of_steps() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="stepwell-test-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        functions, db = functions_of(folder / "f"), folder / "s.db"
        key = new_key(db)
        with serve(functions, db, "--step-user", "nobody") as server, api(server, key) as http:
            uid, gid, groups, _, forker, _ = forked(http, server.process.pid)
            assert (uid, gid, groups) == (
                nobody.pw_uid,
                nobody.pw_gid,
                sorted(os.getgrouplist("nobody", nobody.pw_gid)),
            )
            assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in Path(f"/proc/{forker}/status").read_text()
