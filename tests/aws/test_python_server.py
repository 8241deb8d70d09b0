"""Python runtimes that are forked: each behaves as if it was started separately."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.testing.lambdas.python_server import PythonServer, can_fork
from stepwell.testing.lambdas.runtime_api import RuntimeApi


class OneInvocation:
    """A Runtime API with one invocation for a runtime, and no more after it."""

    arn = "arn:aws:lambda:us-east-1:123456789012:function:f"

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self._payloads = [b"{}"]

    def next(self) -> tuple[str, int, bytes] | None:
        return ("id", 2**53, self._payloads.pop()) if self._payloads else None

    def answered(self, invocation_id: str, payload: bytes, *, is_error: bool) -> bool:
        self.answers.append(payload)
        return True

    def failed_to_start(self, payload: bytes) -> None:
        self.answers.append(payload)


@pytest.fixture
def server() -> Iterator[PythonServer]:
    python_server = PythonServer()
    yield python_server
    python_server.close()


def run(server: PythonServer, folder: Path, body: str, **env: str) -> tuple[int, str, list[bytes]]:
    """The exit code, the output, and the answers."""
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(f"import os, sys\ndef handler(event, context):\n    {body}\n")
    runtime = OneInvocation()
    api = RuntimeApi(runtime)
    env = {"AWS_LAMBDA_RUNTIME_API": api.address, "LAMBDA_TASK_ROOT": str(folder), "PYTHONPATH": "", **env}
    with (folder / "log").open("wb") as log:
        code = server.start("app.handler", folder, env, log).wait()
    api.close()
    return code, (folder / "log").read_text(), runtime.answers


def test_each_has_its_own_folder_environment_and_output(server: PythonServer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        body = "print(os.getcwd(), os.environ['NAME'], sorted(os.listdir('/proc/self/fd'))[:4]); return 1"
        _, printed, answers = run(server, tmp_path / name, body, NAME=name)
        assert printed.startswith(f"{tmp_path / name} {name} ['0', '1', '2'")
        assert answers == [b"1"]


@pytest.mark.parametrize(
    ("body", "code"), [("os._exit(3)", 3), ("sys.exit(0)", 0), ("os.abort()", -6), ("raise KeyboardInterrupt", -2)]
)
def test_it_is_told_how_one_ended(server: PythonServer, tmp_path: Path, body: str, code: int) -> None:
    assert run(server, tmp_path, body)[0] == code
    assert run(server, tmp_path, "return 2")[2] == [b"2"]


def test_what_only_a_start_can_give_is_not_forked(tmp_path: Path) -> None:
    assert can_fork({"LEVEL": "1"}, tmp_path)
    assert not can_fork({"PYTHONHASHSEED": "0"}, tmp_path)
    (tmp_path / "lib").mkdir()
    assert not can_fork({}, tmp_path)
