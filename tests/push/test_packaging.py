"""Packaging of steps for Lambda: the same content gives the same bytes; steps that Lambda cannot run are refused."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.aws.deploy.packaging import HANDLER, PROGRAM, StepLambda, step_lambda, write_zip
from stepwell.aws.deploy.runtimes import PackagingError
from stepwell.aws.naming import LONGEST, BadName, environment, function_name, is_function_name, role_name
from stepwell.core.compile import compile_plan
from stepwell.project.code import CodeError, StepCode, read_code
from stepwell.project.load import load

Write = Callable[..., Path]
ELF = {"x86_64": b"\x7fELF\x02\x01" + b"\0" * 12 + b"\x3e\0", "arm64": b"\x7fELF\x02\x01" + b"\0" * 12 + b"\xb7\0"}


def code_of(folder: Path) -> StepCode:
    return read_code(folder.resolve(), folder.resolve())


def zipped(code: StepCode, layout: str = PROGRAM) -> bytes:
    to = io.BytesIO()
    write_zip(code, layout, to)
    return to.getvalue()


def packaged(folder: Path) -> StepLambda:
    function = load(folder)
    (step,) = compile_plan(function.normalised(), 0).steps
    return step_lambda(function.definition.id, step, function.steps.get(step.id))


# --- zips ------------------------------------------------------------------------------------------------------------


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o700)
    (folder / "link").symlink_to("run.sh")
    return folder


def test_equal_content_gives_equal_bytes_wherever_and_whenever_it_was_written(tmp_path: Path) -> None:
    names = ["b/c.py", "a.py", "b/a.py", "ü.txt"]
    one, two = fill(tmp_path / "one", names), fill(tmp_path / "two", names[::-1])
    os.utime(two / "a.py", (1, 1))
    (two / "a.py").chmod(0o640)
    assert zipped(code_of(one)) == zipped(code_of(two))
    (two / "a.py").write_text("other")
    assert zipped(code_of(one)) != zipped(code_of(two))


def test_a_zip_keeps_modes_and_links_and_everybody_may_read(tmp_path: Path) -> None:
    code = code_of(fill(tmp_path, ["a.py"]))
    with zipfile.ZipFile(io.BytesIO(zipped(code))) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
        assert archive.read("step/link") == b"run.sh"
        assert archive.read("step/a.py") == b"a.py"
        assert archive.testzip() is None
    assert modes == {
        "step/a.py": stat.S_IFREG | 0o644,
        "step/link": stat.S_IFLNK | 0o777,
        "step/run.sh": stat.S_IFREG | 0o755,
    }


def test_programs_are_below_step_and_handlers_at_the_root(tmp_path: Path) -> None:
    (tmp_path / "bootstrap").write_text("x")
    names = [zipfile.ZipFile(io.BytesIO(zipped(code_of(tmp_path), layout))).namelist() for layout in (PROGRAM, HANDLER)]
    assert names == [["step/bootstrap"], ["bootstrap"]]


def test_code_that_changed_since_it_was_read_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    code = code_of(tmp_path)
    (tmp_path / "a").write_text("2")
    with pytest.raises(CodeError, match="push again"):
        zipped(code)
    (tmp_path / "a").unlink()
    with pytest.raises(CodeError, match="push again"):
        zipped(code)


# --- runtimes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "runtime", "expected"),
    [
        ({"main.py": ""}, {}, "python3.13"),
        ({"index.js": ""}, {}, "nodejs22.x"),
        ({"main.sh": "echo"}, {}, "provided.al2023"),
        ({"main.sh": "#!/bin/bash\n"}, {}, "provided.al2023"),
        ({"main": "#!/usr/bin/env python3\n"}, {}, "python3.13"),
        ({"main": "#!/usr/bin/env -S node --no-warnings\n"}, {}, "nodejs22.x"),
        ({"bootstrap": "#!/bin/sh\n"}, {}, "provided.al2023"),
        ({"x": ""}, {"command": ["sh", "-c", "cat"]}, "provided.al2023"),
        ({"x": ""}, {"command": ["/bin/sh", "x"]}, "provided.al2023"),
        ({"x": ""}, {"command": ["python3.13", "x"]}, "python3.13"),
        ({"app.py": ""}, {"handler": "app.handler"}, "python3.13"),
        ({"src/app.mjs": ""}, {"handler": "src/app.handler"}, "nodejs22.x"),
    ],
)
def test_the_runtime_follows_from_what_starts_the_program(
    write: Write, files: dict[str, str], runtime: dict[str, Any], expected: str
) -> None:
    step = {"path": "file://.", "runtime": {"type": "lambda", **runtime}}
    assert packaged(write(files=files, steps={"a": step})).runtime == expected


@pytest.mark.parametrize(
    ("files", "runtime", "cure"),
    [
        ({"x.rb": ""}, {"command": ["ruby", "x.rb"]}, "docker"),
        ({"main": "#!/usr/bin/env ruby\n"}, {}, "docker"),
        ({"main": "#!/usr/bin/python3\n"}, {}, "#!/usr/bin/env python3"),
        ({"x": ""}, {"command": ["/opt/tool"]}, "not in the step's folder"),
        ({"x": ""}, {"command": ["./y"]}, "correct the command"),
        ({"x": "\n"}, {"command": ["./x"]}, "chmod"),
        ({"main.py": "", ".venv/bin/activate": ""}, {}, "pip install --target"),
    ],
)
def test_programs_that_lambda_cannot_start_are_refused_with_a_fix(
    write: Write, files: dict[str, str], runtime: dict[str, Any], cure: str
) -> None:
    folder = write(files=files, steps={"a": {"path": "file://.", "runtime": {"type": "lambda", **runtime}}})
    with pytest.raises(PackagingError) as refused:
        packaged(folder)
    assert cure in str(refused.value)


@pytest.mark.parametrize(
    ("content", "cure"), [(b"MZ\x90", "Windows"), (b"\xcf\xfa\xed\xfe", "macOS"), (b"hi", "#!/bin/sh")]
)
def test_programs_for_other_systems_are_refused(write: Write, content: bytes, cure: str) -> None:
    folder = write(files={"main": "#!"})
    (folder / "main").write_bytes(content)
    with pytest.raises(PackagingError, match=cure):
        packaged(folder)


@pytest.mark.parametrize("machine", ["x86_64", "arm64"])
def test_a_binary_runs_on_the_processor_it_was_built_for(write: Write, machine: str) -> None:
    folder = write(files={"bootstrap": "#!"})
    (folder / "bootstrap").write_bytes(ELF[machine])
    assert packaged(folder).architecture == machine
    other = "arm64" if machine == "x86_64" else "x86_64"
    runtime = {"type": "lambda", "command": ["./bootstrap"], "architecture": other}
    write(files={"x": ""}, steps={"a": {"path": "file://.", "runtime": runtime}})
    with pytest.raises(PackagingError, match=f"built for {machine}"):
        packaged(folder)


def test_libraries_decide_the_processor_if_the_program_does_not(write: Write) -> None:
    folder = write(files={"main.py": ""})
    assert packaged(folder).architecture == "arm64"
    (folder / "lib.so").write_bytes(ELF["x86_64"])
    assert packaged(folder).architecture == "x86_64"
    (folder / "other.so").write_bytes(ELF["arm64"])
    assert packaged(folder).architecture == "arm64"


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout", "seconds"), [("1s", 3), ("1500ms", 4), ("14m59s", 900), ("15m", 900)])
def test_the_lambda_of_a_program_has_two_seconds_more_than_the_timeout(
    write: Write, timeout: str, seconds: int
) -> None:
    made = packaged(write(steps={"a": {"path": "file://.", "timeout": timeout}}))
    assert made.timeout_s == seconds


def test_the_lambda_of_a_handler_has_the_timeout_of_the_step(write: Write) -> None:
    runtime = {"type": "lambda", "handler": "app.handler"}
    step = {"path": "file://.", "timeout": "1500ms", "runtime": runtime}
    made = packaged(write(files={"app.py": ""}, steps={"a": step}))
    assert (made.timeout_s, made.variables("dev")["STEPWELL_TIMEOUT_MS"]) == (2, "1500")


@pytest.mark.parametrize(
    ("fields", "cure"),
    [
        ({"timeout": "16m"}, "use docker"),
        ({"env": {"AWS_REGION": "x"}}, "rename it"),
        ({"env": {"STEPWELL_TIMEOUT_MS": "x"}}, "rename it"),
        ({"env": {"_A": "x"}}, r"\.env"),
        ({"env": {"LARGE": "x" * 4000}}, r"\.env"),
    ],
)
def test_settings_that_lambda_does_not_take_are_refused(write: Write, fields: dict[str, Any], cure: str) -> None:
    with pytest.raises(PackagingError, match=cure):
        packaged(write(steps={"a": {"path": "file://.", **fields}}))


def test_too_large_a_step_is_refused(write: Write) -> None:
    folder = write(files={"main.py": ""})
    with (folder / "model").open("wb") as file:
        file.truncate(245 * 1024 * 1024)
    with pytest.raises(PackagingError, match=r"245 MB.*\.stepwellignore"):
        packaged(folder)


def test_too_large_an_env_file_is_refused(write: Write) -> None:
    folder = write()
    (folder / ".env").write_text(f"A={'x' * 9000}\n")
    with pytest.raises(PackagingError, match="8 KB"):
        packaged(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"AB": "1"}},
        {"timeout": "10s"},
        {"secrets": ["KEY"]},
        {"runtime": {"type": "lambda", "memory": 512}},
        {"runtime": {"type": "lambda", "architecture": "x86_64"}},
        {"runtime": {"type": "lambda", "command": ["python3", "-u", "main.py"]}},
        {"runtime": {"type": "lambda", "ephemeral_storage": 1024}},
        {"runtime": {"type": "lambda", "layers": ["arn:aws:lambda:eu-central-1:123456789012:layer:fonts:3"]}},
        {"runtime": {"type": "lambda", "vpc": True}},
        {"runtime": {"type": "lambda", "tracing": True}},
        {"runtime": {"type": "lambda", "tracing": False}},
    ],
)
def test_each_setting_of_a_step_changes_the_lambda_s_name(write: Write, change: dict[str, Any]) -> None:
    files = {"a/main.py": ""}
    before = packaged(write(files=files, steps={"a": {"path": "file://./a"}})).name("dev")
    after = packaged(write(files=files, steps={"a": {"path": "file://./a", **change}})).name("dev")
    assert before != after


def test_new_settings_in_stepwell_do_not_change_existing_names() -> None:
    code = StepCode(folder=Path(), file=None, files=(), hash="c" * 64)
    step = StepLambda(
        function_id="order",
        step_id="charge",
        code=code,
        layout=PROGRAM,
        runtime="python3.13",
        handler="stepwell.program",
        architecture="arm64",
        memory=256,
        timeout_ms=60_000,
        command=("python3", "main.py"),
        env=(("A", "b"),),
        dotenv="{}",
        secrets=("KEY",),
    )
    assert step.hash == "8b88fe1291e59fef2aa3109486fb7a85bd23476a9180c42cec5bc223b1bdcae8"


def test_values_and_step_names_do_not_change_the_lambda_s_name(write: Write) -> None:
    files = {"a/main.py": "", "a/.env": "A=1\n"}
    before = packaged(write(files=files, steps={"a": {"path": "file://./a"}})).name("dev")
    files["a/.env"] = "A=2\nB=3\n"
    same = {"path": "file://./a", "name": "New", "retries": {"attempts": 1}}
    assert packaged(write(files=files, steps={"a": same})).name("dev") == before


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["d", "dev", "e" * 24])
@pytest.mark.parametrize("function_id", ["f", "f" * 64, "a-" * 31 + "a"])
def test_every_name_is_within_aws_limits(env: str, function_id: str) -> None:
    name = function_name(env, function_id, "0123456789abcdef")
    assert len(name) <= LONGEST
    assert is_function_name(env, name)
    assert name.startswith(f"stepwell-{env}-{function_id[:5]}")
    assert len(role_name(env, function_id)) <= LONGEST


def test_long_ids_with_a_common_prefix_get_different_names() -> None:
    one, two = "f" * 63 + "a", "f" * 63 + "b"
    assert role_name("dev", one) != role_name("dev", two)
    assert function_name("dev", one, "0" * 64) != function_name("dev", two, "0" * 64)


@pytest.mark.parametrize("env", ["", "Dev", "1dev", "a/b", "e" * 25])
def test_an_invalid_name_of_an_environment_is_refused(env: str) -> None:
    with pytest.raises(BadName):
        environment(env)
