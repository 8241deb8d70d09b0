"""Native handlers: the adapter starts Lambda's own runtime, and is a proxy between it and the Runtime API."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapter.lambda_service import PATIENCE_S, Lambda
from tests.adapter.ssm import ParameterStore
from tests.adapter.test_values import DOTENV, secret, values

RUNTIME = """
import http.client, os, sys
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    request_id = answer.getheader("Lambda-Runtime-Aws-Request-Id")
    kind, body = eval(answer.read())
    headers = {"Lambda-Runtime-Function-Error-Type": "E" * 60_000} if kind == "error" else {}
    api.request("POST", f"/2018-06-01/runtime/invocation/{request_id}/{kind}", body.encode(), headers)
    assert api.getresponse().read()
"""
MOST = 256 * 1024


@pytest.fixture
def store() -> Iterator[ParameterStore]:
    store = ParameterStore()
    yield store
    store.server.close()


def start(sandbox: Lambda, script: str, env: dict[str, Any]) -> None:
    sandbox.script(script, "runtime")
    sandbox.start(None, str(sandbox.code / "runtime"), "argument", **env)


def say(sandbox: Lambda, kind: str, body: str) -> tuple[str, Any]:
    """The request that reaches Lambda if the runtime sends this. `body`: a Python expression for the content."""
    if sandbox.process is None:
        (sandbox.code / "runtime.py").write_text(RUNTIME)
        sandbox.start(None, sys.executable, "-I", "-S", str(sandbox.code / "runtime.py"))
    request_id = sandbox.send(f"({kind!r}, {body})".encode())
    path, answer = sandbox.api.answers.get(timeout=PATIENCE_S)
    assert path.startswith(f"invocation/{request_id}/")
    return path.rpartition("/")[2], answer


def test_a_handler_s_result_passes_unchanged(sandbox: Lambda) -> None:
    for value in ({"n": 1, "text": "ü\ud83d"}, None, "x" * (MOST - 2)):
        assert say(sandbox, "response", repr(json.dumps(value))) == ("response", value)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("'\"' + 'x' * 300_000 + '\"'", "300002 bytes"),
        ("'\"' + 'x' * 5_000_000 + '\"'", "5000002 bytes"),
        ("'\"' + 'x' * 7_000_000 + '\"'", "7000002 bytes"),
        ("'[' + '1, ' * 200_000 + '1]'", "400003 bytes"),
    ],
)
def test_a_result_that_is_too_large_becomes_an_error_with_the_size(sandbox: Lambda, body: str, size: str) -> None:
    kind, error = say(sandbox, "response", body)
    assert (kind, error["errorType"], error["errorMessage"]) == ("error", "Stepwell.OutputTooLarge", size)
    assert say(sandbox, "response", "'1'") == ("response", 1)


def test_white_space_in_a_result_does_not_count(sandbox: Lambda) -> None:
    assert say(sandbox, "response", "'[' + '1, ' * 130_000 + '1]'") == ("response", [1] * 130_001)


def test_an_exception_passes_unchanged_unless_it_is_too_long(sandbox: Lambda) -> None:
    short = {"errorType": "E", "errorMessage": "no", "stackTrace": ["one"]}
    assert say(sandbox, "error", repr(json.dumps(short))) == ("error", short)
    for size in (100_000, 3_000_000):
        text = f'\'{{"errorType": "E", "errorMessage": "a\\\\"\\\\u00fc\' + \'x\' * {size} + \'"}}\''
        kind, error = say(sandbox, "error", text)
        assert (kind, error["errorType"], error["errorMessage"][:6]) == ("error", "E", 'a"üxxx')
        assert len(error["errorMessage"]) < 5000


@pytest.mark.parametrize("code", [0, 3])
def test_the_adapter_ends_with_the_runtime_s_exit_code(sandbox: Lambda, code: int) -> None:
    start(sandbox, f"exit {code}", {})
    assert sandbox.process is not None
    assert sandbox.process.wait(PATIENCE_S) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_the_adapter_ends_with_the_signal_that_killed_the_runtime(sandbox: Lambda, number: int) -> None:
    start(sandbox, f"kill -{int(number)} $$", {})
    assert sandbox.process is not None
    assert sandbox.process.wait(PATIENCE_S) == -number
    assert sandbox.log() == b""


def test_the_runtime_of_a_native_handler_gets_the_values(sandbox: Lambda, store: ParameterStore) -> None:
    store.values = {DOTENV: '{"A": "dotenv"}', secret("C"): "secret"}
    script = 'echo "$A $C $1 ${STEPWELL_VALUES-none}"'
    start(sandbox, script, values(store, "C", dotenv=DOTENV))
    assert sandbox.process is not None
    assert sandbox.process.wait(PATIENCE_S) == 0
    assert sandbox.log() == b"dotenv secret argument none\n"


def test_a_native_handler_without_its_secret_fails_until_it_is_set(sandbox: Lambda, store: ParameterStore) -> None:
    start(sandbox, "echo started with $A", values(store, "A"))
    for _ in range(2):
        request_id = sandbox.send()
        path, error = sandbox.api.answers.get(timeout=PATIENCE_S)
        assert path == f"invocation/{request_id}/error"
        assert error["errorType"] == "Stepwell.StartError"
        assert "stepwell secrets set A --env dev" in error["errorMessage"]
    sandbox.wait_until_clean()
    store.values = {secret("A"): "value"}
    sandbox.send()  # is lost: the runtime can only take the next one
    sandbox.api.answers.get(timeout=PATIENCE_S)
    assert sandbox.process is not None
    assert sandbox.process.wait(PATIENCE_S) == 0
    assert sandbox.log() == b"started with value\n"


def test_a_native_handler_whose_values_cannot_be_read_now_is_retried(sandbox: Lambda, store: ParameterStore) -> None:
    store.values = {secret("A"): "value"}
    store.refusals = [(400, b'{"__type": "ThrottlingException"}')] * 1000
    start(sandbox, "echo started with $A", values(store, "A"))
    sandbox.send()
    _, error = sandbox.api.answers.get(timeout=PATIENCE_S)
    assert error["errorType"] == "Stepwell.Unavailable"
    assert "ThrottlingException" in error["errorMessage"]
    store.refusals = []
    assert sandbox.process is not None
    assert sandbox.process.wait(PATIENCE_S) == 0
    assert sandbox.log() == b"started with value\n"


def test_a_missing_runtime_is_reported_to_lambda(sandbox: Lambda, store: ParameterStore) -> None:
    sandbox.start(None, "/no/such/runtime")
    path, error = sandbox.api.answers.get(timeout=PATIENCE_S)
    assert (path, error["errorType"]) == ("init/error", "Stepwell.StartError")
