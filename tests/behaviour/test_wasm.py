"""Steps that are WebAssembly modules: they see, print and end as programs do, in a sandbox without any rights."""

from __future__ import annotations

import json
import shlex
from platform import machine as platform_of_machine
from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function
from tests.wasm import modules

RUNTIME = {"type": "wasm", "architecture": "arm64" if platform_of_machine() == "aarch64" else "x86_64"}
MOST_LOG = 4 * 1024 * 1024
Files = dict[str, str | bytes]


def wasm(**fields: Any) -> Json:
    """A function with one step that is a module. Fields of the runtime are given as `runtime`."""
    runtime = RUNTIME | fields.pop("runtime", {})
    return function({"a": {"path": "file://step", "runtime": runtime, **fields}})


def run_it(platform: Platform, definition: Json, content: bytes, **event: Any) -> Json:
    """Runs the function with this module, and returns the step when it has ended."""
    platform.deploy(definition, {"step/main.wasm": content})
    (run,) = platform.runs(platform.send(**event))
    return dict(run["steps"]["a"])


def text_of(step: Json) -> str:
    """What a module has printed, which is text."""
    assert step["status"] == "completed", step
    return str(step["output"]["body"])


def error_numbers(step: Json) -> list[int]:
    """The numbers that a module has printed as `e00e08`."""
    return [int(number) for number in text_of(step).split("e")[1:]]


def variables_of(step: Json) -> dict[str, str]:
    lines = text_of(step).rstrip("\0").split("\0")
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


# --- the same as a program -------------------------------------------------------------------------------------------

ENDS: list[tuple[bytes, bytes, int, Any]] = [  # stdout, stderr, exit code; output or error
    (b'{"a": [1, "\xc3\xbc"]}', b"", 0, {"a": [1, "ü"]}),
    (b"first\n[1]\n", b"", 0, [1]),
    (b"only text\n", b"", 0, {"body": "only text"}),
    (b"", b"", 0, {"body": ""}),
    (b"", b"one\nno such order\n", 3, ("exit", "exit code 3: no such order")),
    (b'{"message": "no money"}', b"", 1, ("exit", "exit code 1: no money")),
    (b'{"status": 404}', b"", 0, ("status", "the output has the status 404")),
    (b"a\nb", b"", 255, ("exit", "exit code 255: a\nb")),
]


def program_for(rows: list[tuple[bytes, bytes, int, Any]]) -> str:
    """A shell script that prints the row of the variable ROW."""
    cases = "".join(
        f"{i}) printf %s {shlex.quote(out.decode())}; printf %s {shlex.quote(err.decode())} >&2; exit {code};;\n"
        for i, (out, err, code, _) in enumerate(rows)
    )
    return f"#!/bin/sh\ncase $ROW in\n{cases}esac\n"


@pytest.mark.parametrize("kind", ["program", "wasm"])
def test_output_and_exit_code_mean_the_same_for_programs_and_modules(platform: Platform, kind: str) -> None:
    runtime = RUNTIME if kind == "wasm" else {"type": "lambda"}
    step = {"path": "file://step", "runtime": runtime}
    steps: Json = {f"s{i}": {**step, "env": {"ROW": str(i)}} for i in range(len(ENDS))}
    # Failures are handled, so that no failure ends the run before the others.
    steps["end"] = {"after": [{"step": step_id, "on": "always"} for step_id in steps]}
    rows = [(out, err, code) for out, err, code, _ in ENDS]
    files: dict[str, Files] = {"wasm": {"step/main.wasm": modules.prints_row(tuple(rows))}}
    files["program"] = {"step/main.sh": program_for(ENDS)}
    platform.deploy(function(steps), files[kind])
    (run,) = platform.runs(platform.send())
    for i, (_, _, _, expected) in enumerate(ENDS):
        ended = run["steps"][f"s{i}"]
        found = ended["output"] if ended["error"] is None else (ended["error"]["kind"], ended["error"]["message"])
        assert found == expected


@pytest.mark.parametrize(("content", "attempts"), [(b'{"status": 404}', 1), (b'{"status": 503}', 3)])
def test_the_status_decides_whether_a_module_is_retried(platform: Platform, content: bytes, attempts: int) -> None:
    platform.deploy(wasm(retries={"attempts": 2}), {"step/main.wasm": modules.prints(content, code=1)})
    event_id = platform.send()
    platform.travel("3h")
    (run,) = platform.runs(event_id)
    assert (run["status"], len(run["steps"]["a"]["attempts"])) == ("failed", attempts)


# --- what it sees ----------------------------------------------------------------------------------------------------


def test_a_module_gets_the_input_as_argument_on_stdin_and_in_a_file(platform: Platform) -> None:
    name, *inputs = text_of(run_it(platform, wasm(), modules.prints_inputs(), data={"n": "ü"})).split("\0")
    assert name == "main.wasm"
    assert len(inputs) == 3
    assert len(set(inputs)) == 1
    assert json.loads(inputs[0])["event"]["data"] == {"n": "ü"}


def test_above_96_kib_the_argument_names_the_file(platform: Platform) -> None:
    step = run_it(platform, wasm(), modules.prints_arguments(), data={"text": "x" * 100_000})
    assert text_of(step).split("\0")[1] == "@/stepwell/input.json"


def test_a_large_input_is_read_from_stdin(platform: Platform) -> None:
    step = run_it(platform, wasm(), modules.prints_stdin(), data={"text": "x" * 200_000})
    assert len(step["output"]["event"]["data"]["text"]) == 200_000


def test_a_module_has_only_the_declared_variables(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    platform.secret("V3", "secret ü\n2")
    platform.deploy(
        wasm(env={"V2": "env", "V3": "env"}, secrets=["V3"]),
        {"step/main.wasm": modules.prints_variables(), "step/.env": "V1=dotenv\nV2=dotenv\nHOME=/here\n"},
    )
    (run,) = platform.runs(platform.send())
    assert variables_of(run["steps"]["a"]) == {
        "V1": "dotenv",
        "V2": "env",
        "V3": "secret ü\n2",
        "HOME": "/here",
        "TMPDIR": "/tmp",
        "STEPWELL_INPUT": "/stepwell/input.json",
    }


NO_RIGHT, BAD_DESCRIPTOR, NO_SOCKET = {2, 63, 69, 76}, {8}, {8, 57, 58}  # numbers of errors in WASI


OPENS = [  # the folder, the path, whether to make a file; the numbers of WASI
    ((modules.CODE, b"more.txt", False), {0}),
    ((modules.CODE, b"new.txt", True), NO_RIGHT),
    ((modules.TMPDIR, b"new.txt", True), {0}),
    ((modules.INPUT, b"new.txt", True), NO_RIGHT),
    ((modules.CODE, b"../stepwell.json", False), NO_RIGHT),
    ((modules.CODE, b"/etc/passwd", False), NO_RIGHT),
    ((modules.TMPDIR, b"../input/input.json", False), NO_RIGHT),
    ((20, b"x", False), BAD_DESCRIPTOR),
]


def test_a_module_reaches_nothing_but_its_code_and_its_temporary_folder(platform: Platform) -> None:
    content = modules.opens(*(file for file, _ in OPENS))
    platform.deploy(wasm(), {"step/main.wasm": content, "step/more.txt": "x"})
    (run,) = platform.runs(platform.send())
    *files, connection = error_numbers(run["steps"]["a"])
    assert len(files) == len(OPENS)
    assert all(number in expected for number, (_, expected) in zip(files, OPENS, strict=True))
    assert connection in NO_SOCKET


def test_files_in_the_temporary_folder_are_gone_in_the_next_attempt(platform: Platform) -> None:
    """Opening exclusively fails if the file exists."""
    content = modules.opens((modules.TMPDIR, b"left", True), exclusive=True)
    platform.deploy(wasm(), {"step/main.wasm": content})
    steps = [platform.runs(platform.send())[0]["steps"]["a"] for _ in range(2)]
    assert [error_numbers(step)[0] for step in steps] == [0, 0]


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [modules.loops(), modules.sleeps(), modules.prints_endlessly()])
def test_a_timeout_ends_a_module(platform: Platform, content: bytes) -> None:
    step = run_it(platform, wasm(timeout="1s"), content)
    assert (step["status"], step["error"]["kind"]) == ("failed", "timeout")


def test_a_trap_fails_the_attempt_and_is_retried(platform: Platform) -> None:
    platform.deploy(wasm(retries={"attempts": 1}), {"step/main.wasm": modules.traps()})
    event_id = platform.send()
    platform.travel("3h")
    (run,) = platform.runs(event_id)
    step = run["steps"]["a"]
    assert (step["error"]["kind"], len(step["attempts"])) == ("crash", 2)
    assert "unreachable" in step["error"]["message"]


def test_a_module_gets_no_more_memory_than_the_limit(platform: Platform) -> None:
    step = run_it(platform, wasm(runtime={"memory": 32}), modules.allocates())
    assert "at most 32 MB; raise `memory`" in step["error"]["message"]


def test_a_module_without_fuel_fails_finally(platform: Platform) -> None:
    step = run_it(platform, wasm(runtime={"fuel": 10_000}, retries={"attempts": 2}), modules.loops())
    assert (step["error"]["kind"], len(step["attempts"])) == ("crash", 1)
    assert "raise `fuel`" in step["error"]["message"]


def test_a_cancelled_module_ends(platform: Platform) -> None:
    """On AWS at the step's timeout, because a Lambda cannot be stopped."""
    platform.deploy(wasm(timeout={"local": "15m", "aws": "1s"}[platform.name]), {"step/main.wasm": modules.loops()})
    run_id = platform.run_of(platform.send())
    platform.wait(run_id, lambda run: run["steps"]["a"]["status"] == "running")
    platform.cancel(run_id)
    platform.settle()
    assert platform.run(run_id)["status"] == "cancelled"


# --- logs and refusals -----------------------------------------------------------------------------------------------


def test_stderr_of_a_module_is_the_log_and_is_cut_at_4_mib(platform: Platform) -> None:
    many = f"(loop $again {modules.write(b'x' * 1024, 2)} (local.set $i (i32.add (local.get $i) (i32.const 1)))"
    body = many + " (br_if $again (i32.lt_u (local.get $i) (i32.const 5000))))"
    step = run_it(platform, wasm(), modules.module(body, b"x" * 1024))
    log = step["attempts"][0]["logs"]
    assert log[:MOST_LOG] == "x" * MOST_LOG
    assert "cut" in log[MOST_LOG:]
    assert len(log) < MOST_LOG + 200


def test_a_module_that_is_no_command_is_refused(platform: Platform) -> None:
    with pytest.raises(Refused, match="exports no function _start, so it is a library"):
        platform.deploy(wasm(), {"step/main.wasm": b"\0asm\1\0\0\0"})
