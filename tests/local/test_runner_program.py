"""Steps that are programs: their input, output, environment and end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.core.plan import Runtime
from stepwell.core.run.messages import Error, Outcome
from stepwell.local.runners import posix_spawn
from stepwell.local.runners.job import Job
from stepwell.local.runners.program import MAX_ARGUMENT_BYTES
from stepwell.local.runners.router import MAX_LOG_BYTES, Runners
from stepwell.local.runners.stdout import StdoutReader
from tests.local.attempts import INPUT, Attempt, Start, is_running, job, on_runners, program, put, run, until


def sh(folder: Path, script: str, **options: Any) -> Job:
    return program(put(folder, main__sh=script), **options)


# --- input -----------------------------------------------------------------------------------------------------------


def test_the_input_is_the_argument_stdin_and_a_file(tmp_path: Path) -> None:
    code = put(
        tmp_path,
        main__py="""
import json, os, sys
assert len(sys.argv) == 2, sys.argv
print(json.dumps([json.loads(sys.argv[1]), json.load(sys.stdin), json.load(open(os.environ["STEPWELL_INPUT"]))]))
""",
    )
    assert run(program(code)).output == [orjson.loads(INPUT)] * 3


@pytest.mark.parametrize(("size", "is_file"), [(MAX_ARGUMENT_BYTES, False), (MAX_ARGUMENT_BYTES + 1, True)])
def test_an_input_above_96_kib_is_named_not_given(tmp_path: Path, size: int, is_file: bool) -> None:
    content = b'{"a":"' + b"x" * (size - 8) + b'"}'
    script = 'printf \'["%s", %s, "%s"]\' "${1%"${1#?}"}" "$(wc -c)" "$([ "${1#@}" = "$STEPWELL_INPUT" ] && echo same)"'
    output = run(program(put(tmp_path, main__sh=script), content=content)).output
    assert output == (["@", size, "same"] if is_file else ["{", size, ""])


def test_a_command_gets_the_input_as_its_last_argument(tmp_path: Path) -> None:
    assert run(program(tmp_path, "printf", "[%s, %s]", "1")).output == [1, orjson.loads(INPUT)]


def test_a_step_that_is_one_file_is_run_by_its_name(tmp_path: Path) -> None:
    job = program(put(tmp_path, send__py="print('[1]')"), path="file://./steps/send.py")
    assert run(job).output == [1]


def test_ends_of_processes_are_detected_without_pidfds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    assert run(sh(tmp_path, "sleep 600 & echo 1")).output == 1
    assert run(sh(tmp_path / "b", "sleep 600", timeout_ms=100)).error[0] == "timeout"


@pytest.fixture(params=["posix_spawn", "Popen"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in which programs are started; if one of them is not available here, the other one twice."""
    if request.param == "Popen":
        monkeypatch.setattr(posix_spawn, "is_possible", lambda: False)


@pytest.mark.usefixtures("each_way")
def test_a_program_is_started_the_same_in_each_way(tmp_path: Path) -> None:
    script = 'printf "%s|%s|%s|%s" "$PWD" "$(ps -o sid= -p $$ | tr -d " ")" $$ "$ODD"; kill -PIPE $$; echo alive'
    attempt = run(sh(tmp_path, script, env={"ODD": "a=\n\udcff"}))
    assert attempt.error[2].startswith("killed by SIGPIPE")  # Python itself ignores SIGPIPE
    folder, session, pid, odd = attempt.logged[0][1].split(b"|")
    assert (folder, session, odd) == (os.fsencode(tmp_path), pid, b"a=\n\xff")


@pytest.mark.usefixtures("each_way")
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_no_file_of_the_server_is_open_in_a_program_or_worker(tmp_path: Path) -> None:
    with socket.socket() as listener, (tmp_path / "secret").open("w") as file:
        for opened in (listener.fileno(), file.fileno()):
            os.set_inheritable(opened, True)
        value = sh(tmp_path / "a", "for f in /proc/$$/fd/*; do readlink $f || :; done")
        found = run(value).output["body"]
        assert str(tmp_path / "secret") not in found
        assert "socket:" not in found
        put(tmp_path / "b", app__py="import os\ndef handler(event, context): return len(os.listdir('/proc/self/fd'))")
        assert run(job(tmp_path / "b", Runtime("lambda", handler="app.handler"))).output == 5  # 4, and one for the list


@pytest.mark.usefixtures("each_way")
def test_a_variable_with_a_null_byte_is_an_error_of_the_attempt(tmp_path: Path) -> None:
    assert run(sh(tmp_path, "echo 1", env={"A": "\0"})).error[0] == "start"


def test_a_server_without_standard_streams_starts_programs(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sys
os.closerange(0, 3)
from stepwell.local.runners.process import Process, Program
async def main():
    ended, said = asyncio.get_running_loop().create_future(), {{"stdout": "", "stderr": ""}}
    argv = ["/bin/sh", "-c", "cat; echo out; echo err >&2; exit 7"]
    Process(Program(argv, "/", {{}}, stdin={str(tmp_path / "input")!r}),
            lambda stream, piece: said.update({{stream: said[stream] + piece.decode()}}), ended.set_result)
    code = await ended
    with open({str(tmp_path / "result")!r}, "w") as file:
        file.write(f"{{code}} {{said}}")
asyncio.run(main())
"""
    (tmp_path / "input").write_text("in\n")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (tmp_path / "result").read_text() == "7 {'stdout': 'in\\nout\\n', 'stderr': 'err\\n'}"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_node_program_is_run(tmp_path: Path) -> None:
    code = put(tmp_path, index__js="console.log(JSON.stringify(JSON.parse(process.argv[2]).event.name))")
    assert run(program(code)).output == "user/signed.up"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
def test_a_compiled_program_is_run(tmp_path: Path) -> None:
    put(tmp_path, main__c='#include <stdio.h>\nint main(int c, char **v) { printf("%d %s", c, v[1]); return 0; }')
    subprocess.run(["cc", "main.c", "-o", "main"], cwd=tmp_path, check=True)
    (tmp_path / "main.c").unlink()
    assert run(program(tmp_path)).output == {"body": f"2 {INPUT.decode()}"}


# --- environment -----------------------------------------------------------------------------------------------------


def test_a_program_sees_its_own_environment_and_nothing_of_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SECRET", "x")
    job = program(tmp_path, "sh", "-c", "cat /proc/$$/environ; pwd >&2", env={"TOKEN": "a\nb", "HOME": "/nowhere"})
    attempt = run(job)
    assert attempt.log() == f"{tmp_path}\n"
    env = dict(line.split("=", 1) for line in attempt.output["body"].split("\0") if line)
    assert env.keys() == {"PATH", "HOME", "LANG", "TMPDIR", "TOKEN", "STEPWELL_INPUT", "PYTHONDONTWRITEBYTECODE"}
    assert (env["PATH"], env["TOKEN"], env["HOME"]) == (os.environ["PATH"], "a\nb", "/nowhere")


def test_programs_of_the_steps_own_virtual_environment_come_first(tmp_path: Path) -> None:
    put(tmp_path / ".venv" / "bin", python3="#!/bin/sh\necho '\"own\"'\n")
    assert run(program(put(tmp_path, main__py=""))).output == "own"


def test_tmpdir_is_empty_at_first_and_removed_afterwards(tmp_path: Path) -> None:
    kept = put(tmp_path / "elsewhere", file="kept")
    script = f"""
ls -A "$TMPDIR" >&2
cd "$TMPDIR" && ln -s {kept} link && mkdir -p a/b read/only && touch read/only/file && chmod -R a-w read
mkdir x && mv x a/ && chmod 000 a/x
echo "\\"$TMPDIR\\""
"""
    job = program(put(tmp_path / "code", main__sh=script))

    async def work(start: Start) -> None:
        first = await start(job).end()
        second = await start(job).end()
        assert first.log("stderr") == second.log("stderr") == ""
        await until(lambda: not Path(first.output).exists() and not Path(second.output).exists())

    on_runners(work)
    assert (kept / "file").read_text() == "kept"


# --- output ----------------------------------------------------------------------------------------------------------


def test_lines_before_the_output_and_stderr_are_log(tmp_path: Path) -> None:
    attempt = run(sh(tmp_path, "echo one; echo two >&2; echo '{\"a\": 1}'"))
    assert attempt.output == {"a": 1}
    assert (attempt.log("stdout"), attempt.log("stderr")) == ("one\n", "two\n")


def test_a_failure_has_the_code_the_last_line_and_the_printed_object(tmp_path: Path) -> None:
    attempt = run(sh(tmp_path, 'echo "{\\"status\\": 422}"; echo first >&2; echo last >&2; exit 7'))
    assert attempt.outcome == Outcome(None, Error("exit", "exit code 7: last", 422, b'{"status":422}'), False)


def test_output_of_a_failed_program_is_logged(tmp_path: Path) -> None:
    attempt = run(sh(tmp_path, "echo hello; exit 1"))
    assert attempt.error == ("exit", True, "exit code 1: hello")
    assert attempt.log() == "hello\n"


def test_a_crash_names_the_signal(tmp_path: Path) -> None:
    assert run(sh(tmp_path, "kill -SEGV $$")).error == ("crash", True, "killed by SIGSEGV")


def test_output_of_100_mb_is_refused_and_its_log_is_cut(tmp_path: Path) -> None:
    attempt = run(sh(tmp_path, "head -c 100000000 /dev/zero | tr '\\0' 'x'"))
    kind, retryable, message = attempt.error
    assert (kind, retryable) == ("output_too_large", False)
    assert "100,000,000 bytes" in message
    assert len(attempt.log("stdout")) == MAX_LOG_BYTES
    assert attempt.log("system") == "\nthe log is cut here: an attempt keeps at most 4 MiB\n"


def test_the_last_line_of_a_long_stdout_is_the_output(tmp_path: Path) -> None:
    attempt = run(sh(tmp_path, "yes 'a line of log' | head -n 200000; echo '{\"a\": 1}'; echo; echo"))
    assert attempt.output == {"a": 1}
    assert attempt.log("stdout").startswith("a line of log\n")


@pytest.mark.parametrize("size", [1, 7, 65_536, 5_000_000])
@pytest.mark.parametrize(
    ("text", "output"),
    [
        (b"x" * 2_000_000 + b'\n{"a": 1}', b'{"a":1}'),
        (b'{"a": 1}' + b"\n" * 2_000_000, b'{"a":1}'),
        (b"log\n" * 400_000 + b'{"a": 1}\n' + b" \n" * 1_000_000, b'{"a":1}'),
        (b'{"a": 1}\n' * 200_000, b'{"a":1}'),
        (b"x\n" * 600_000, None),
        (b'{"a": 1}\n' + b"x" * 2_000_000, None),
        (b"x" * 2_000_000 + b'{"a": 1}\n', None),
        (b'{"a": "' + b"x" * 2_000_000 + b'"}\n', None),
    ],
)
def test_the_size_of_stdout_pieces_does_not_matter(text: bytes, output: bytes | None, size: int) -> None:
    logged = bytearray()
    reader = StdoutReader(lambda stream, piece: logged.extend(piece))
    pieces = [text[i : i + size] for i in range(0, len(text), size)] if size > 7 else [text[:-99_991]]
    if size <= 7:
        pieces += [text[i : i + size] for i in range(len(text) - 99_991, len(text), size)]
    for piece in pieces:
        reader.feed(piece)
    report = reader.finish()
    assert report.output == output
    whole = bytes(logged) + report.log + report.text
    assert whole.split() == text.split()


def test_a_flood_does_not_starve_other_attempts(tmp_path: Path) -> None:
    async def work(start: Start) -> None:
        flood = await start(sh(tmp_path / "a", "yes")).until(lambda attempt: attempt.logged)
        assert (await start(sh(tmp_path / "b", "echo 1")).end()).output == 1
        assert flood.outcome is None
        flood.running.stop()
        assert (await flood.end()).error[0] == "stopped"

    on_runners(work)


def test_control_characters_and_broken_utf8_break_nothing(tmp_path: Path) -> None:
    attempt = run(sh(tmp_path, r"printf '\000\033[2J\377' ; printf '\033[31mred\000\377\n' >&2; exit 1"))
    assert attempt.error == ("exit", True, "exit code 1: red\ufffd")
    assert attempt.logged[0] == ("stderr", b"\x1b[31mred\x00\xff\n")


# --- ends ------------------------------------------------------------------------------------------------------------


def test_a_timeout_kills_the_whole_group_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    script = "trap '' TERM INT HUP; sleep 600 & echo $! >&2; sleep 600; sleep 600"

    async def work(start: Start) -> None:
        attempt = await start(sh(tmp_path, script, timeout_ms=300)).end()
        assert attempt.error == ("timeout", True, "the attempt did not end within the timeout of 0.3 s")
        child = int(attempt.log())
        await until(lambda: not is_running(child))

    on_runners(work)


def test_stopping_kills_and_may_be_repeated(tmp_path: Path) -> None:
    async def work(start: Start) -> None:
        attempt = await start(sh(tmp_path, "echo ready >&2; sleep 600")).until(lambda a: a.logged)
        attempt.running.stop()
        attempt.running.stop()
        assert (await attempt.end()).error == ("stopped", False, "stopped before it ended")
        attempt.running.stop()

    on_runners(work)


def test_closing_kills_running_attempts_and_leaves_no_files(tmp_path: Path) -> None:
    async def work(start: Start) -> None:
        attempt = await start(sh(tmp_path, "touch $TMPDIR/x; echo $TMPDIR >&2; sleep 600")).until(lambda a: a.logged)
        found.append(attempt)

    found: list[Attempt] = []
    on_runners(work)
    (attempt,) = found
    assert attempt.error[0] == "stopped"
    assert not Path(attempt.log().strip()).parent.exists()


def test_children_left_behind_are_killed_and_hold_nothing_up(tmp_path: Path) -> None:
    async def work(start: Start) -> None:
        attempt = await start(sh(tmp_path, "sleep 600 & echo $! >&2; echo 1")).end()
        assert attempt.output == 1
        await until(lambda: not is_running(int(attempt.log())))

    on_runners(work)


def test_a_daemon_that_keeps_the_pipes_open_delays_nothing(tmp_path: Path) -> None:
    attempt = run(sh(tmp_path, "setsid sleep 600 & echo $! >&2; sleep 0.1; echo 1"))
    assert attempt.output == 1
    os.kill(int(attempt.log()), 9)


def test_a_step_that_kills_its_group_affects_only_itself(tmp_path: Path) -> None:
    assert run(sh(tmp_path, "kill -9 0")).error == ("crash", True, "killed by SIGKILL")


def test_a_program_need_not_read_its_input(tmp_path: Path) -> None:
    assert run(sh(tmp_path, "exec <&-; echo 1", content=b'"' + b"x" * 600_000 + b'"')).output == 1


def test_many_attempts_run_at_once(tmp_path: Path) -> None:
    job = sh(tmp_path, "echo $TMPDIR >&2; echo 1")

    async def work(start: Start) -> None:
        attempts = [start(job) for _ in range(20)]
        assert [(await attempt.end()).output for attempt in attempts] == [1] * 20
        assert len({attempt.log() for attempt in attempts}) == 20

    on_runners(work)


# --- what cannot start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["no-such-program"], "found no program 'no-such-program' on PATH (/"),
        (["data"], "or write ./data for the one in the step's folder"),
        (["./nothing"], "there is no file ./nothing in the step's code"),
        (["./data"], "./data is not executable; run chmod +x on it"),
        (["./odd"], "a script needs a first line such as #!/bin/sh"),
        (["./lost"], "does its first line (#!) name a program that is here?"),
        (["true", "x" * 200_000], "too large"),
    ],
)
def test_a_failed_start_is_reported_and_not_retried(tmp_path: Path, command: list[str], why: str) -> None:
    put(tmp_path, data="", odd="\x01\x02", lost="#!/no/such/interpreter\n")
    (tmp_path / "data").chmod(0o644)
    kind, retryable, message = run(program(tmp_path, *command)).error
    assert (kind, retryable) == ("start", False)
    assert why in message


def test_a_folder_with_nothing_to_run_cannot_start(tmp_path: Path) -> None:
    kind, retryable, message = run(program(tmp_path)).error
    assert (kind, retryable) == ("start", False)
    assert "looked for main.py" in message


def test_the_check_names_what_this_machine_lacks(tmp_path: Path) -> None:
    runners = Runners()
    assert runners.check(program(tmp_path, sys.executable).step, tmp_path) is None
    assert "no-such-program" in (runners.check(program(tmp_path, "no-such-program").step, tmp_path) or "")
    assert "looked for main.py" in (runners.check(program(tmp_path).step, tmp_path) or "")
    assert "give it a `path`" in (runners.check(program(tmp_path).step, None) or "")
    assert "app.py" in (runners.check(job(tmp_path, Runtime("lambda", handler="app.handler")).step, tmp_path) or "")
    assert runners.check(job(None, Runtime("http", url="http://localhost")).step, None) is None
