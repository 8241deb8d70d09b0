"""Steps that are programs: how the program is found, what it sees, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function

MOST_LOG = 4 * 1024 * 1024
Files = dict[str, str | bytes]


def program(path: str = "file://step", command: list[str] | None = None, **fields: Any) -> Json:
    """A function with one step that is a program."""
    runtime = {"type": "lambda"} | ({"command": command} if command else {})
    return function({"a": {"path": path, "runtime": runtime, **fields}})


def run_it(platform: Platform, definition: Json, files: Files, **event: Any) -> Json:
    """Runs the function, and returns the step when it has ended."""
    platform.deploy(definition, files)
    (run,) = platform.runs(platform.send(**event))
    return dict(run["steps"]["a"])


def refused_at_push(platform: Platform, definition: Json, files: Files) -> str:
    with pytest.raises(Refused) as refused:
        platform.deploy(definition, files)
    return str(refused.value)


def message_of(step: Json) -> str:
    assert step["status"] == "failed"
    return str(step["error"]["message"])


# --- which program is run ------------------------------------------------------------------------------------------

SH = '#!/bin/sh\necho \'{"from": "sh"}\'\n'
PY = 'print(\'{"from": "python"}\')\n'
JS = "console.log(JSON.stringify({from: 'node'}))\n"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.mark.parametrize(
    ("path", "command", "files", "by"),
    [
        ("file://step", None, {"step/main.sh": SH}, "sh"),
        ("file://step", None, {"step/main.sh": SH.removeprefix("#!/bin/sh\n")}, "sh"),  # not executable
        ("file://step", None, {"step/main.py": PY}, "python"),
        pytest.param("file://step", None, {"step/main.js": JS}, "node", marks=needs_node),
        pytest.param("file://step", None, {"step/index.js": JS}, "node", marks=needs_node),
        ("file://step", None, {"step/main": SH}, "sh"),
        ("file://step", None, {"step/bootstrap": SH}, "sh"),
        ("file://step", None, {"step/main.rb": "#!/usr/bin/env python3\n" + PY}, "python"),
        ("file://step/it.py", None, {"step/it.py": PY, "step/main.sh": SH}, "python"),
        ("file://step/it", None, {"step/it": SH}, "sh"),
        ("file://./step/it.sh", None, {"step/it.sh": SH}, "sh"),
        ("file://step", ["./it", "x"], {"step/it": SH, "step/main.py": PY}, "sh"),
        ("file://step", ["python3", "it.py"], {"step/it.py": PY}, "python"),
        ("file://step", ["python3", "-c", PY], {"step/empty": ""}, "python"),
    ],
)
def test_a_program_is_found_by_command_or_by_convention(
    platform: Platform, path: str, command: list[str] | None, files: Files, by: str
) -> None:
    step = run_it(platform, program(path, command), files)
    assert (step["status"], step["output"]) == ("completed", {"from": by})


def test_a_step_with_settings_for_lambda_runs_on_every_platform(platform: Platform) -> None:
    """Settings such as /tmp size, network and tracing apply only to AWS. The same definition runs locally."""
    runtime = {"type": "lambda", "memory": 256, "ephemeral_storage": 1024, "vpc": True, "tracing": True}
    step = run_it(platform, function({"a": {"path": "file://step", "runtime": runtime}}), {"step/main.py": PY})
    assert (step["status"], step["output"]) == ("completed", {"from": "python"})


@pytest.mark.parametrize(
    ("command", "files", "cure"),
    [
        (["it"], {"step/.venv/bin/it": SH}, "put the program in the step's folder"),
        (["python3"], {"step/.venv/bin/python3": SH}, "exclude .venv in .stepwellignore"),
        (None, {"step/main.py": PY, "step/.venv/bin/python3": SH}, "exclude .venv in .stepwellignore"),
    ],
)
def test_the_steps_own_virtual_environment_comes_first_in_the_path(
    platform: Platform, command: list[str] | None, files: Files, cure: str
) -> None:
    if platform.name == "aws":  # a virtual environment works only on the machine that made it
        assert cure in refused_at_push(platform, program(command=command), files)
    else:
        assert run_it(platform, program(command=command), files)["output"] == {"from": "sh"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
def test_a_program_can_be_a_binary(platform: Platform, tmp_path: Path) -> None:
    source = '#include <stdio.h>\nint main(int n, char **words) { printf("[%d, %s]", n, words[1]); return 0; }\n'
    subprocess.run(["cc", "-x", "c", "-", "-o", tmp_path / "main"], input=source.encode(), check=True)
    step = run_it(platform, program(), {"step/main": (tmp_path / "main").read_bytes()}, data={"n": 1})
    count, document = step["output"]
    assert (count, document["event"]["data"]) == (2, {"n": 1})


@pytest.mark.parametrize(
    ("path", "command", "files"),
    [
        ("file://step", None, {"step/readme.txt": "x"}),
        ("file://step", None, {"step/bootstrap": "echo"}),  # not executable
        ("file://nothing", None, {}),
        ("file://step/it", None, {"step/it": "echo"}),
        ("file://../step", None, {"step/main.sh": SH}),
    ],
)
def test_a_step_with_nothing_to_run_is_refused(
    platform: Platform, path: str, command: list[str] | None, files: Files
) -> None:
    with pytest.raises(Refused):
        platform.deploy(program(path, command), files)


@pytest.mark.parametrize(
    ("file", "expected"),
    [("#!/no/such/interpreter\n", "#!"), (b"\x7fELF nonsense", "cannot be started"), ("#! \n", "#!")],
)
def test_a_program_that_cannot_be_started_is_a_final_failure(
    platform: Platform, file: str | bytes, expected: str
) -> None:
    definition, files = program(command=["./it"], retries={"attempts": 2}), {"step/it": file}
    if platform.name == "aws":  # a push already checks the program
        assert "./it" in refused_at_push(platform, definition, files)
        return
    step = run_it(platform, definition, {**files})
    assert expected in message_of(step)
    assert len(step["attempts"]) == 1


# --- what it sees --------------------------------------------------------------------------------------------------

# Prints the input as read in each of the three ways.
THREE_WAYS = """
import json, os, sys
argument, file = sys.argv[-1], os.environ["STEPWELL_INPUT"]
by_argument = open(argument[1:]).read() if argument.startswith("@") else argument
texts = [by_argument, sys.stdin.read(), open(file).read()]
print(json.dumps({"same": len(set(texts)) == 1, "size": len(texts[0].encode()), "by_file": argument == "@" + file,
                  "n": json.loads(texts[0])["event"]["data"].get("n")}))
"""


def test_a_program_gets_the_input_as_argument_on_stdin_and_in_a_file(platform: Platform) -> None:
    step = run_it(platform, program(command=["python3", "it.py", "first"]), {"step/it.py": THREE_WAYS}, data={"n": "ü"})
    assert step["output"] | {"size": 0} == {"same": True, "size": 0, "by_file": False, "n": "ü"}


def test_above_96_kib_the_argument_names_a_file_with_the_input(platform: Platform) -> None:
    definition, files = program(command=["python3", "it.py"]), {"step/it.py": THREE_WAYS}
    frame = run_it(platform, definition, {**files}, data={"text": ""})["output"]["size"]
    for size, by_file in [(96 * 1024, False), (96 * 1024 + 1, True), (200 * 1024, True)]:
        step = run_it(platform, definition, {**files}, data={"text": "x" * (size - frame)})
        assert step["output"] == {"same": True, "size": size, "by_file": by_file, "n": None}


OF_LAMBDA = ("AWS_", "_AWS_", "LAMBDA_", "_X_AMZN_", "_HANDLER")  # variables that Lambda itself sets

SEES = """
import json, os, stat, tempfile
print(json.dumps({
    "env": dict(os.environ), "files": sorted(os.listdir()), "tmp": os.listdir(os.environ["TMPDIR"]),
    "writable": [name for name in (".", *os.listdir()) if os.stat(name).st_mode & 0o222],
    "mode": stat.S_IMODE(os.stat(os.environ["TMPDIR"]).st_mode), "temporary": tempfile.gettempdir(),
}))
open(os.environ["TMPDIR"] + "/left", "w").write("x")
os.makedirs(os.environ["TMPDIR"] + "/deep/deeper")
"""


def test_a_program_runs_in_its_code_folder_which_is_read_only(platform: Platform) -> None:
    files: Files = {"step/main.py": SEES, "step/more.txt": "x", "step/.env": "A=1", "steps/other": "x"}
    seen = run_it(platform, program(), files)["output"]
    assert (seen["files"], seen["writable"]) == (["main.py", "more.txt"], [])


def test_a_programs_environment_is_minimal(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    script = "#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ\n"  # the original environment, before the shell changes it
    text = run_it(platform, program(env={"AB": "1"}), {"step/main.sh": script})["output"]["body"]
    given = {line.partition("=")[0] for line in text.splitlines()}
    needed, harmless = {"PATH", "HOME", "TMPDIR", "STEPWELL_INPUT", "AB"}, {"LANG", "PYTHONDONTWRITEBYTECODE"}
    if platform.name == "aws":
        harmless |= {"TZ", "LD_LIBRARY_PATH"} | {name for name in given if name.startswith(OF_LAMBDA)}
    assert needed <= given <= needed | harmless
    assert "AB=1" in text.splitlines()


def test_secrets_override_env_and_env_overrides_dotenv(platform: Platform) -> None:
    platform.secret("V3", "secret")
    platform.secret("V4", "secret ü\n2")
    files: Files = {"step/main.py": SEES, "step/.env": "V1=dotenv\nV2=dotenv\nV3=dotenv\nHOME=/here\n"}
    definition = program(env={"V2": "env", "V3": "env"}, secrets=["V3", "V4"])
    env = run_it(platform, definition, files)["output"]["env"]
    seen = {name: env[name] for name in ("V1", "V2", "V3", "V4")}
    assert seen == {"V1": "dotenv", "V2": "env", "V3": "secret", "V4": "secret ü\n2"}
    assert env["HOME"] == "/here"


def test_a_secret_without_a_value_is_a_final_failure_that_names_it(platform: Platform) -> None:
    definition, files = program(secrets=["NO_SUCH_SECRET"], retries={"attempts": 2}), {"step/main.sh": SH}
    if platform.name == "aws":  # tests/adapter/test_values.py has a secret that is deleted later
        assert "NO_SUCH_SECRET" in refused_at_push(platform, definition, files)
        return
    step = run_it(platform, definition, {**files})
    assert "NO_SUCH_SECRET" in message_of(step)
    assert len(step["attempts"]) == 1


def test_each_attempt_has_a_temporary_folder_of_its_own(platform: Platform) -> None:
    definition, files = program(), {"step/main.py": SEES}
    seen = [run_it(platform, definition, {**files})["output"] for _ in range(2)]
    assert [s["tmp"] for s in seen] == [[], []]
    assert [s["temporary"] for s in seen] == [s["env"]["TMPDIR"] for s in seen]
    assert seen[0]["temporary"] != seen[1]["temporary"]
    assert {s["mode"] for s in seen} == {0o700}


def test_files_left_in_the_temporary_folder_are_removed(platform: Platform) -> None:
    left = Path(run_it(platform, program(), {"step/main.py": SEES})["output"]["temporary"])
    platform.restart()
    assert not left.exists()


# --- how it ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 3", "exit code 3"),
        ("echo one >&2; echo 'no such order' >&2; exit 1", "exit code 1: no such order"),
        ('echo \'{"message": "no money"}\'; exit 1', "no money"),
        ("echo only text; exit 7", "exit code 7: only text"),
        ("kill -9 $$", "SIGKILL"),
        ("kill -TERM $$", "SIGTERM"),
        ("kill -9 0", "SIGKILL"),  # kills the whole process group
        ("printf 'a\\033[31mb\\007\\n' >&2; exit 1", "exit code 1: ab"),
    ],
)
def test_the_error_describes_how_the_program_failed(platform: Platform, script: str, expected: str) -> None:
    assert expected in message_of(run_it(platform, program(), {"step/main.sh": f"#!/bin/sh\n{script}\n"}))


@pytest.mark.parametrize(
    ("script", "attempts"),
    [
        ("exit 1", 3),
        ("echo '{\"status\": 404}'; exit 1", 1),
        ("echo '{\"status\": 404}'", 1),
        ("echo '{\"status\": 503}'", 3),
        ("echo '{\"status\": 429}'; exit 1", 3),
        ("kill -9 $$", 3),
    ],
)
def test_the_exit_status_decides_whether_a_program_is_retried(platform: Platform, script: str, attempts: int) -> None:
    platform.deploy(program(retries={"attempts": 2}), {"step/main.sh": f"#!/bin/sh\n{script}\n"})
    event_id = platform.send()
    platform.travel("3h")
    (run,) = platform.runs(event_id)
    assert (run["status"], len(run["steps"]["a"]["attempts"])) == ("failed", attempts)


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600",
        "trap '' TERM INT HUP; while :; do sleep 600; done",
        "sh -c 'trap \"\" TERM; sleep 600' & wait",
        "yes",
        "yes >&2",
        "exec >&- 2>&-; sleep 600",
    ],
)
def test_a_timeout_ends_the_program_and_all_its_children(platform: Platform, script: str) -> None:
    step = run_it(platform, program(timeout="200ms"), {"step/main.sh": f"#!/bin/sh\n{script}\n"})
    assert (step["status"], step["error"]["kind"]) == ("failed", "timeout")


def ends(pid: int) -> bool:
    """Whether a killed process is gone within a moment. A zombie counts as gone."""
    deadline = time.monotonic() + 5
    try:
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
            if time.monotonic() > deadline:
                return False
    except OSError:
        pass
    return True


LEAVES_A_CHILD = '#!/bin/sh\nsleep 600 &\necho "{\\"child\\": $!}"\n'


def test_a_child_that_keeps_stdout_open_does_not_delay_the_step(platform: Platform) -> None:
    step = run_it(platform, program(), {"step/main.sh": LEAVES_A_CHILD})
    assert step["status"] == "completed"
    assert ends(step["output"]["child"])


def has_stubborn_child(pids: Path, timeout: str) -> Json:
    """A function whose program and child write their process ids, ignore all signals and never end."""
    script = f"trap '' TERM\nsh -c 'trap \"\" TERM; sleep 600' &\necho $! $$ > {pids}.new\nmv {pids}.new {pids}\nwait\n"
    return program(timeout=timeout, command=["sh", "-c", script])


def test_a_timeout_kills_the_whole_group(platform: Platform, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    platform.deploy(has_stubborn_child(pids, "300ms"), {"step/empty": ""})
    (run,) = platform.runs(platform.send())
    assert all(ends(int(pid)) for pid in pids.read_text().split())
    assert run["status"] == "failed"


def test_a_cancel_kills_the_whole_group(platform: Platform, tmp_path: Path) -> None:
    """On AWS at the step's timeout, because a Lambda cannot be stopped."""
    pids = tmp_path / "pids"
    platform.deploy(has_stubborn_child(pids, {"local": "15m", "aws": "1s"}[platform.name]), {"step/empty": ""})
    run_id = platform.run_of(platform.send())
    platform.wait(run_id, lambda run: pids.exists())
    platform.cancel(run_id)
    platform.settle()
    assert all(ends(int(pid)) for pid in pids.read_text().split())
    assert platform.run(run_id)["status"] == "cancelled"


def test_a_program_does_not_have_to_read_a_large_input(platform: Platform) -> None:
    step = run_it(platform, program(), {"step/main.sh": "#!/bin/sh\nexec 0<&-\necho 1\n"}, data={"x": "y" * 250_000})
    assert step["output"] == 1


# --- logs ----------------------------------------------------------------------------------------------------------


def test_each_attempt_has_its_log(platform: Platform) -> None:
    script = 'echo "attempt $(tr -d " " < $STEPWELL_INPUT | grep -o \'"attempt":[0-9]*\')" >&2; exit 1'
    platform.deploy(program(retries={"attempts": 1}), {"step/main.sh": f"#!/bin/sh\n{script}\n"})
    event_id = platform.send()
    platform.travel("1h")
    (run,) = platform.runs(event_id)
    logs = [attempt["logs"] for attempt in run["steps"]["a"]["attempts"]]
    assert logs == ['attempt "attempt":1\n', 'attempt "attempt":2\n']


def test_a_log_can_be_read_while_the_attempt_runs(platform: Platform, tmp_path: Path) -> None:
    """On AWS when the attempt has ended: only its outcome tells which log it has."""
    gate = tmp_path / "gate"
    script = f"#!/bin/sh\necho begun >&2\nwhile [ ! -e {gate} ]; do sleep 0.02; done\necho 'ended' >&2\n"
    platform.deploy(program(), {"step/main.sh": script})
    run_id = platform.run_of(platform.send())

    def log(run: Json) -> str:
        attempts = run["steps"]["a"]["attempts"]
        return str(attempts[0]["logs"]) if attempts else ""

    begun = {"local": "begun\n", "aws": ""}[platform.name]
    running = platform.wait(run_id, lambda run: run["steps"]["a"]["status"] == "running" and log(run) == begun)
    assert running["status"] == "running"
    gate.touch()
    assert log(platform.wait(run_id, lambda run: run["status"] == "completed")) == "begun\nended\n"


def test_a_log_is_cut_at_4_mib_with_a_note(platform: Platform) -> None:
    step = run_it(platform, program(), {"step/main.py": "import sys\nsys.stderr.write('x' * 5_000_000)\nprint(1)\n"})
    log = step["attempts"][0]["logs"]
    assert step["output"] == 1
    assert log[:MOST_LOG] == "x" * MOST_LOG
    assert "cut" in log[MOST_LOG:]
    assert len(log) < MOST_LOG + 200


def test_a_log_can_contain_any_bytes(platform: Platform) -> None:
    script = "import sys\nsys.stderr.buffer.write(bytes(range(256)) + '\\u2028'.encode())\nprint(1)\n"
    step = run_it(platform, program(), {"step/main.py": script})
    log = step["attempts"][0]["logs"]
    assert log.startswith("\x00\x01\x02")
    assert "\ufffd" in log
    assert log.removesuffix("\n").endswith("\u2028")
    assert json.loads(json.dumps(step)) == step
