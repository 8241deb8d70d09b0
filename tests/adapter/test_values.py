"""`.env` and secrets: the adapter reads them from SSM when a sandbox starts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapter.lambda_service import Lambda
from tests.adapter.ssm import ParameterStore

DOTENV = "/stepwell/dev/dotenv/f/s"
SHOW = "echo $A $B $C"


def secret(name: str) -> str:
    return f"/stepwell/dev/secrets/{name}"


@pytest.fixture
def store() -> Iterator[ParameterStore]:
    store = ParameterStore()
    yield store
    store.server.close()


def values(store: ParameterStore, *secrets: str, dotenv: str | None = None) -> dict[str, Any]:
    names = {"dotenv": dotenv, "secrets": {name: secret(name) for name in secrets}}
    return {"AWS_ENDPOINT_URL_SSM": store.server.url, "STEPWELL_VALUES": json.dumps(names)}


def test_secrets_override_env_and_env_overrides_dotenv(sandbox: Lambda, store: ParameterStore) -> None:
    store.values = {DOTENV: '{"A": "dotenv", "B": "dotenv", "C": "dotenv"}', secret("C"): "secret"}
    report = sandbox.run(SHOW, **values(store, "C", dotenv=DOTENV), B="env", C="env")
    assert report["stdout"] == b"dotenv env secret\n"


def test_dotenv_overrides_lambda_s_own_variables(sandbox: Lambda, store: ParameterStore) -> None:
    store.values = {DOTENV: '{"LANG": "de_DE.UTF-8", "AWS_ACCESS_KEY_ID": "theirs", "AWS_SECRET_ACCESS_KEY": "theirs"}'}
    script = 'echo "$LANG $AWS_ACCESS_KEY_ID ${AWS_SESSION_TOKEN-none}"'
    report = sandbox.run(script, **values(store, dotenv=DOTENV), LANG="en_US.UTF-8")
    assert report["stdout"] == b"de_DE.UTF-8 theirs none\n"


def test_values_are_read_once_in_pages_of_ten(sandbox: Lambda, store: ParameterStore) -> None:
    names = [f"S{number:02}" for number in range(25)]
    store.values = {secret(name): name.lower() for name in names}
    sandbox.start(sandbox.script("echo $S00 $S24"), **values(store, *names))
    assert [sandbox.invoke()["stdout"] for _ in range(3)] == [b"s00 s24\n"] * 3
    assert [len(request["Names"]) for request in store.requests] == [10, 10, 5]
    assert all(request["WithDecryption"] for request in store.requests)


def test_a_missing_secret_is_named_with_the_command_that_sets_it(sandbox: Lambda, store: ParameterStore) -> None:
    store.values = {secret("A"): "here"}
    error = sandbox.run(SHOW, **values(store, "A", "B"))["start_error"]
    assert error == {
        "message": "the secret B is not set; run `stepwell secrets set B --env dev`",
        "retryable": False,
    }


def test_the_next_attempt_finds_a_secret_that_was_set_later(sandbox: Lambda, store: ParameterStore) -> None:
    sandbox.start(sandbox.script(SHOW), **values(store, "A"))
    assert sandbox.invoke()["start_error"] is not None
    store.values = {secret("A"): "now"}
    assert sandbox.invoke()["stdout"] == b"now\n"


@pytest.mark.parametrize(
    "refusal",
    [(500, b""), (400, b'{"__type": "ThrottlingException"}'), (400, b'{"__type": "AccessDeniedException"}')],
)
def test_temporary_errors_are_retried(sandbox: Lambda, store: ParameterStore, refusal: tuple[int, bytes]) -> None:
    store.values = {secret("A"): "value"}
    store.refusals = [refusal, refusal]
    assert sandbox.run(SHOW, **values(store, "A"))["stdout"] == b"value\n"


def test_an_unexpected_error_from_ssm_is_retryable(sandbox: Lambda, store: ParameterStore) -> None:
    store.refusals = [(400, b'{"__type": "InvalidKeyId"}')] * 2  # at the start, and during the attempt
    error = sandbox.run(SHOW, **values(store, "A"))["start_error"]
    assert "InvalidKeyId" in error["message"]
    assert error["retryable"] is True


def test_throttled_sandboxes_retry_for_some_seconds(sandbox: Lambda, store: ParameterStore) -> None:
    """SSM throttles a burst of cold starts for some seconds."""
    store.values = {secret("A"): "value"}
    store.refusals = [(400, b'{"__type": "ThrottlingException", "message": "Rate exceeded"}')] * 6
    assert sandbox.run(SHOW, **values(store, "A"))["stdout"] == b"value\n"


def test_values_that_cannot_be_read_now_fail_the_attempt_as_retryable(sandbox: Lambda, store: ParameterStore) -> None:
    store.refusals = [(400, b'{"__type": "ThrottlingException"}')] * 1000
    error = sandbox.run(SHOW, **values(store, "A"), left_ms=2_000)["start_error"]
    assert "ThrottlingException" in error["message"]
    assert (error["kind"], error["retryable"]) == ("values_unavailable", True)


def test_a_parameter_store_that_does_not_respond_fails_the_attempt(sandbox: Lambda) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        names = json.dumps({"dotenv": DOTENV, "secrets": {}})
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = sandbox.run(SHOW, AWS_ENDPOINT_URL_SSM=address, STEPWELL_VALUES=names, left_ms=2_000)["start_error"]
    assert "cannot be read from SSM" in error["message"]
    assert error["retryable"] is True
