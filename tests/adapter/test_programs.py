"""Programs on Lambda: the input and environment that they get, and the adapter's reports."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from stepwell.aws.steps.outcomes import outcome_of_report
from stepwell.core.run.outcome import MAX_OUTPUT_BYTES
from tests.adapter.lambda_service import Lambda

MB = 1024 * 1024


def fields(report: dict[str, Any]) -> tuple[Any, ...]:
    return report["exit"], report["signal"], report["stdout"], report["tail"]


# --- input and environment -------------------------------------------------------------------------------------------


def test_a_program_gets_its_input_as_last_argument_on_stdin_and_in_a_file(sandbox: Lambda) -> None:
    sandbox.start([*sandbox.script('echo "$1 $2 $(cat) $(cat $STEPWELL_INPUT)"'), "first"])
    assert fields(sandbox.invoke(b'{"a":1}')) == (0, None, b'first {"a":1} {"a":1} {"a":1}\n', "")


def test_a_large_input_is_passed_as_the_name_of_a_file(sandbox: Lambda) -> None:
    text = b'{"text":"%b"}' % (b"x" * (96 * 1024))
    report = sandbox.run('[ "$1" = "@$STEPWELL_INPUT" ] && cmp - "$STEPWELL_INPUT" && wc -c < "$STEPWELL_INPUT"', text)
    assert int(report["stdout"]) == len(text)


def test_an_input_of_96_kib_is_an_argument(sandbox: Lambda) -> None:
    text = b'"%b"' % (b"x" * (96 * 1024 - 2))
    assert sandbox.run('printf %s "$1"', text)["stdout"] == text


def test_a_program_runs_in_the_folder_of_the_code(sandbox: Lambda) -> None:
    assert sandbox.run("pwd -P")["stdout"].decode().strip() == os.path.realpath(sandbox.code)


def test_a_program_sees_the_lambda_s_variables_and_none_of_the_adapter(sandbox: Lambda) -> None:
    report = sandbox.run("env", COLOUR="red", STEPWELL_VALUES_HASH="abc", AWS_LAMBDA_EXEC_WRAPPER="/opt/bootstrap")
    env = dict(line.split("=", 1) for line in report["stdout"].decode().splitlines())
    assert env["COLOUR"] == "red"
    assert env["LANG"] == "C.UTF-8"
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"
    assert env["_X_AMZN_TRACE_ID"] == "Root=1-request-1"
    assert env["AWS_ACCESS_KEY_ID"] == "AKIDEXAMPLE"
    assert env["TMPDIR"] == env["HOME"]
    assert [name for name in env if name.startswith("STEPWELL_")] == ["STEPWELL_INPUT"]
    assert not {"AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_EXEC_WRAPPER", "_HANDLER"} & env.keys()


def test_python_programs_find_packages_in_layers(sandbox: Lambda, tmp_path: Path) -> None:
    """Lambda unpacks layers beside the adapter. Lambda's Python runtime, which searches them, does not run."""
    opt = tmp_path / "opt"
    packages = opt / "python" / "lib" / "python3.13" / "site-packages"
    packages.mkdir(parents=True)
    (opt / "python" / "fonts.py").write_text("NAME = 'serif'\n")
    (packages / "colours.py").write_text("NAME = 'red'\n")
    sandbox.binary = Path(shutil.copy(sandbox.binary, opt / "bootstrap"))
    report = sandbox.run(f"{sys.executable} -c 'import fonts, colours, os; print(fonts.NAME, colours.NAME)'")
    assert report["stdout"] == b"serif red\n", report


def test_a_program_inherits_no_open_files_of_the_adapter(sandbox: Lambda) -> None:
    report = sandbox.run("ls /proc/self/fd")
    assert report["stdout"].split() == [b"0", b"1", b"2", b"3"]  # 3: the folder that ls reads


def test_programs_in_the_step_s_virtual_environment_come_first(sandbox: Lambda) -> None:
    (sandbox.code / ".venv" / "bin").mkdir(parents=True)
    sandbox.script("echo mine", ".venv/bin/ls")
    assert sandbox.run("ls")["stdout"] == b"mine\n"


# --- reports ---------------------------------------------------------------------------------------------------------


def test_an_exit_code_comes_with_the_last_line_of_stderr(sandbox: Lambda) -> None:
    report = sandbox.run("echo out; echo one >&2; echo two >&2; echo >&2; exit 3")
    assert fields(report) == (3, None, b"out\n", "two")
    assert b"one\ntwo\n" in sandbox.log()


def test_a_signal_is_reported_by_number(sandbox: Lambda) -> None:
    assert fields(sandbox.run("echo bye >&2; kill -SEGV $$")) == (None, 11, b"", "bye")


def test_bytes_that_are_not_text_are_reported_unchanged(sandbox: Lambda) -> None:
    report = sandbox.run(r"printf '\377\000\001'; printf '\376\n' >&2")
    assert fields(report) == (0, None, b"\xff\x00\x01", "�")


def test_each_invocation_has_a_separate_report(sandbox: Lambda) -> None:
    sandbox.start(sandbox.script("cat"))
    assert [sandbox.invoke(b"%d" % number)["stdout"] for number in range(20)] == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["./nothing"], "there is no file ./nothing in the step's code; correct the command"),
        (["./data"], "data is not executable; run chmod +x on it"),
        (["no-such-program"], "found no program 'no-such-program' on PATH"),
        (["data"], "or write ./data for the one in the step's folder"),
        (["./broken"], "a script needs a first line such as #!/bin/sh"),
        (["./elsewhere"], "does its first line (#!) name a program that is here?"),
    ],
)
def test_a_failed_start_is_final_and_explained(sandbox: Lambda, command: list[str], message: str) -> None:
    (sandbox.code / "data").write_text("data")
    sandbox.script("#!", "broken")
    (sandbox.code / "broken").write_text("no script")
    sandbox.script("#!/no/such/shell\n", "elsewhere")
    sandbox.start(command)
    error = sandbox.invoke()["start_error"]
    assert message in error["message"]
    assert error["retryable"] is False


def test_an_invalid_command_ends_the_sandbox(sandbox: Lambda) -> None:
    sandbox.start(None, STEPWELL_COMMAND="[")
    path, body = sandbox.api.answers.get(timeout=10)
    assert (path, body["errorType"]) == ("init/error", "Stepwell.StartError")


# --- stdout of any size ----------------------------------------------------------------------------------------------


def test_stdout_of_270_kib_is_reported_completely(sandbox: Lambda) -> None:
    report = sandbox.run(f"head -c {270 * 1024} /dev/zero | tr '\\0' x")
    assert (report["stdout"], report["long"]) == (b"x" * 270 * 1024, False)


def test_json_with_much_white_space_is_reported_compact(sandbox: Lambda) -> None:
    report = sandbox.run(
        'python3 -c \'import json; print(json.dumps([{"text": "\\u00e9 \\u4e16", "n": 1.50}] * 9000, indent=8))\''
    )
    assert report["size"] > MAX_OUTPUT_BYTES
    assert report["long"] is False
    assert json.loads(report["stdout"]) == [{"text": "é 世", "n": 1.5}] * 9000
    assert sandbox.log() == b""


def test_the_last_line_of_a_long_text_is_the_output_and_the_rest_is_logged(sandbox: Lambda) -> None:
    report = sandbox.run("seq 200000; echo '{\"ok\": true}'; echo; echo")
    assert (report["stdout"].strip(), report["long"]) == (b'{"ok": true}', True)
    assert sandbox.log().decode().split() == [str(number) for number in range(1, 200_001)]
    assert outcome_of_report(_wire(report), 0, 0).output == b'{"ok":true}'


def test_a_long_text_without_json_in_the_last_line_is_too_large_and_logged(sandbox: Lambda) -> None:
    report = sandbox.run("seq 200000")
    assert (report["stdout"], report["long"], report["size"]) == (b"", True, 1_288_895)
    assert len(sandbox.log()) == 1_288_895
    error = outcome_of_report(_wire(report), 0, 0).error
    assert error is not None
    assert error.kind == "output_too_large"


def test_a_gigabyte_of_stdout_takes_little_memory(sandbox: Lambda) -> None:
    report = sandbox.run("head -c 1000000000 /dev/zero; echo; echo '[1]'")
    assert (report["stdout"], report["size"]) == (b"[1]\n", 1_000_000_005)
    assert _peak_bytes(sandbox) < 50 * MB


def test_a_gigabyte_of_stderr_takes_little_memory_and_its_log_is_cut(sandbox: Lambda) -> None:
    report = sandbox.run("head -c 1000000000 /dev/zero >&2; echo >&2; echo last >&2; echo '[1]'")
    assert fields(report) == (0, None, b"[1]\n", "last")
    assert _peak_bytes(sandbox) < 50 * MB
    cut = b"\nthe log is cut here: an attempt keeps at most 4 MiB\n"
    assert sandbox.log() == bytes(4 * MB) + cut


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "log"),
    [
        ("echo hello", b""),
        ("echo '{}'", b""),
        ("echo one; echo two; echo '{\"a\": 1}'", b"one\ntwo\n"),
        ("echo one; echo '{\"a\": 1}'; exit 1", b"one\n"),
        ("echo one; echo '[1]'; exit 1", b"one\n[1]\n"),
        ("echo '{}'; exit 1", b"{}\n"),
        ("echo '{ }'; exit 1", b"{ }\n"),
        ("printf hello; exit 1", b"hello\n"),
        ("echo working >&2; printf hello; kill -9 $$", b"working\nhello\n"),
    ],
)
def test_text_that_is_not_output_is_logged(sandbox: Lambda, script: str, log: bytes) -> None:
    sandbox.run(script)
    assert sandbox.log() == log


def test_stderr_is_logged_while_the_program_runs(sandbox: Lambda) -> None:
    os.mkfifo(sandbox.folder / "gate")
    sandbox.start(sandbox.script(f"echo begun >&2; cat {sandbox.folder}/gate"))
    sandbox.send()
    with (sandbox.folder / "gate").open("wb"):  # the program waits for this after it has printed
        while b"begun\n" not in sandbox.log():
            os.sched_yield()
    assert sandbox.api.answers.get(timeout=10)[1]["exit"] == 0


def test_each_attempt_s_log_has_a_separate_limit(sandbox: Lambda) -> None:
    sandbox.start(sandbox.script(f"head -c {5 * MB} /dev/zero >&2"))
    sandbox.invoke()
    sandbox.invoke()
    assert sandbox.log().count(b"the log is cut here") == 2
    assert sandbox.log().count(b"\0") == 8 * MB


def _wire(report: dict[str, Any]) -> dict[str, Any]:
    import base64

    return {**report, "stdout": base64.b64encode(report["stdout"]).decode()}


def _peak_bytes(sandbox: Lambda) -> int:
    assert sandbox.process is not None
    with open(f"/proc/{sandbox.process.pid}/status") as status:  # noqa: PTH123
        peak = next(line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
