"""Runs tests in a copy of the repository, in a process that is forked from this one.

This process has imported the libraries that tests need, but no module of the repository. So a test starts after tens of
milliseconds, not after seconds.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from mutants.traced.sitecustomize import note_functions

TRACED = Path(__file__).parent / "traced"
_IMPORTED_BEFORE = """
    asyncio boto3 botocore.session cel_expr_python cronsim genson h2.connection httpx hypothesis hypothesis.strategies
    hypothesis.extra.pytestplugin jsonschema jsonschema_rs moto moto.core.responses multiprocessing
    openapi_spec_validator pydantic rich.console rich.progress starlette.applications starlette.testclient time_machine
    typer.testing uvicorn xdist.plugin yaml
"""


@dataclass(frozen=True, slots=True)
class TestRun:
    """The result of running some tests. Times are in seconds."""

    failed: tuple[str, ...] = ()  # ids of tests
    passed: int = 0
    timed_out: bool = False
    crashed: str = ""  # the last lines of output, if pytest did not finish
    took: float = 0.0
    cpu: float = 0.0


@dataclass(slots=True, eq=False)  # pytest keeps plugins in sets
class _Recorder:
    """A pytest plugin that records which tests passed and failed."""

    failed: list[str] = field(default_factory=list)
    passed: int = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)
        self.passed += report.passed and report.when == "call"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def import_before() -> None:
    """Imports the libraries that otherwise every run would import."""
    for name in _IMPORTED_BEFORE.split():
        with suppress(ImportError):
            importlib.import_module(name)


def run_tests(tree: Path, args: Sequence[str], seconds: float, functions_to: Path | None = None) -> TestRun:
    """Runs pytest in a copy for at most `seconds`.

    Writes a line to the file `functions_to`, if given, for each function of `stepwell/` that the tests enter.
    """
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_the_child(tree, args, writing, functions_to)
    os.close(writing)
    status, cpu, timed_out = _wait(child, began + seconds)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # kills processes that failed tests have left behind
    with os.fdopen(reading, "rb") as pipe:
        os.set_blocking(reading, False)  # a remaining process may keep the other end open
        answer = pipe.read() or b""
    took = time.monotonic() - began
    if timed_out:
        return TestRun(timed_out=True, took=took, cpu=cpu)
    if not answer:
        return TestRun(crashed=_last_lines(tree) or f"status {status}", took=took, cpu=cpu)
    return TestRun(**{**orjson.loads(answer), "took": took, "cpu": cpu})


def _wait(child: int, deadline: float) -> tuple[int, float, bool]:
    """Returns the child's status, the CPU seconds of the child and its children, and whether it timed out."""
    timed_out = False
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage.ru_utime + usage.ru_stime, timed_out
        if time.monotonic() > deadline:
            timed_out = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)


def _be_the_child(tree: Path, args: Sequence[str], answer_to: int, functions_to: Path | None) -> None:
    """Runs pytest and exits; never returns."""
    try:
        os.setsid()
        output = os.open(_output(tree), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(tree)
        _import_only_from(tree, functions_to)
        recorder = _Recorder()
        status = pytest.main([*args, "-p", "no:cacheprovider", "-p", "no:xdist", "-W", _REWRITTEN], [recorder])
        answer: dict[str, Any] = {"failed": recorder.failed, "passed": recorder.passed}
        if status in _FINISHED or recorder.failed:
            os.write(answer_to, orjson.dumps(answer))
    finally:
        os._exit(1)


_REWRITTEN = "ignore::pytest.PytestAssertRewriteWarning"  # hypothesis was imported before pytest could rewrite it
_FINISHED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def _import_only_from(tree: Path, functions_to: Path | None) -> None:
    """Makes this process, and those that it starts, import the repository's modules from the copy."""
    root = TRACED.parent.parent
    sys.path[:] = [str(tree), *(p for p in sys.path if p and Path(p).resolve() != root)]
    for name in [name for name in sys.modules if name == "mutants" or name.startswith("mutants.")]:
        del sys.modules[name]
    paths = [str(tree)]
    if functions_to:
        paths.append(str(TRACED))
        os.environ |= {"STEPWELL_FUNCTIONS_TO": str(functions_to), "STEPWELL_FUNCTIONS_OF": f"{tree}/"}
        note_functions(f"{tree}/", str(functions_to))
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def _output(tree: Path) -> Path:
    return tree.parent / "output"


def _last_lines(tree: Path) -> str:
    return "\n".join(_output(tree).read_text("utf-8", "replace").splitlines()[-15:])
