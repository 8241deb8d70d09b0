"""Steps that are tasks of an existing Celery app, executed by a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.celery.brokers import Redis, Worker
from tests.servers import Api, Json, api, dev, eventually, write_function

FUNCTIONS: dict[str, Json] = {
    "mail": {"task": "shop.send_email", "args": "[data.address, 'Welcome ' + user.name]"},
    "keywords": {"task": "shop.send_email", "kwargs": "{'address': data.address}"},
    "whole": {"task": "shop.whole_input"},
    "failing": {"task": "shop.fail", "args": "['no bread']"},
    "own-retry": {"task": "shop.retry_twice", "args": "[]"},
    "forgetful": {"task": "shop.forgetful", "args": "[]"},
    "give": {"task": "shop.give", "args": "[data.value]"},
    "unknown": {"task": "shop.no_such_task", "args": "[]"},
    "our-retry": {"task": "shop.fail_until", "args": "[data.path, 2]"},
    "waits": {"task": "shop.wait_for", "args": "[data.path, data.started]"},
    "overdue": {"task": "shop.wait_for", "args": "[data.path, data.started]"},
    "no-value": {"task": "shop.give", "args": "[data.missing]"},
    "no-list": {"task": "shop.give", "args": "data.value"},
}
_STEPS: dict[str, Json] = {
    "our-retry": {"retries": {"attempts": 3, "backoff": {"initial": "10ms"}}},
    "overdue": {"timeout": "600ms"},
}


@pytest.fixture(scope="module")
def server(redis: Redis, shop: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("functions")
    for name, fields in FUNCTIONS.items():
        step = {
            "runtime": {"type": "celery", "broker": "${BROKER}", "backend": "redis://127.0.0.1:${PORT}/1", **fields},
            "env": {"BROKER": redis.url(0), "PORT": str(redis.port)},
            "retries": {"attempts": 0},
            **_STEPS.get(name, {}),
        }
        write_function(folder / name, name, on=name, task=step)
    with dev(folder, tmp_path_factory.mktemp("db") / "db") as started, api(started) as client:
        yield client


def run(server: Api, name: str, **event: Any) -> Json:
    return server.ended(server.send(name, **event))


def outcome(run: Json) -> tuple[Any, Any]:
    """Output, and kind and message of the error, of the run's only step."""
    step = run["steps"]["task"]
    error = step["error"]
    return step["output"], error and (error["kind"], error["message"])


def test_a_task_gets_its_arguments_from_the_event_and_its_result_is_the_output(server: Api) -> None:
    ended = run(server, "mail", data={"address": "ada@example.com"}, user={"id": "1", "name": "Ada"})
    assert outcome(ended) == ({"sent_to": "ada@example.com", "subject": "Welcome Ada"}, None)


def test_a_task_gets_keyword_arguments(server: Api) -> None:
    ended = run(server, "keywords", data={"address": "bob@example.com"})
    assert outcome(ended) == ({"sent_to": "bob@example.com", "subject": "Hello"}, None)


def test_without_arguments_a_task_gets_the_whole_input_as_one_argument(server: Api) -> None:
    assert outcome(run(server, "whole")) == ({"event": "whole", "attempt": 1}, None)


@pytest.mark.parametrize("value", [None, 0, "text", [1, {"a": None}], {"größe": 2.5}], ids=str)
def test_values_pass_unchanged(server: Api, value: Any) -> None:
    assert outcome(run(server, "give", data={"value": value})) == (value, None)


def test_an_exception_is_the_error_and_its_traceback_is_in_the_log(server: Api) -> None:
    ended = run(server, "failing")
    assert outcome(ended) == (None, ("exception", "OutOfStock: no bread"))
    (attempt,) = ended["steps"]["task"]["attempts"]
    assert "raise OutOfStock(message)" in str(attempt["logs"])


def test_a_result_that_has_a_failing_status_is_a_failure(server: Api) -> None:
    ended = run(server, "give", data={"value": {"status": 404, "message": "no such user"}})
    assert outcome(ended) == (None, ("status", "the output has the status 404: no such user"))


def test_a_failed_task_is_retried_by_the_policy_of_the_step(server: Api, tmp_path: Path) -> None:
    ended = run(server, "our-retry", data={"path": str(tmp_path / "tries")})
    assert outcome(ended) == (3, None)
    assert [attempt["status"] for attempt in ended["steps"]["task"]["attempts"]] == ["failed", "failed", "completed"]


def test_a_task_that_retries_itself_is_one_attempt(server: Api) -> None:
    ended = run(server, "own-retry")
    assert outcome(ended) == (2, None)
    assert len(ended["steps"]["task"]["attempts"]) == 1


def test_a_task_that_ignores_results_tells_its_result_when_it_is_a_step(server: Api) -> None:
    assert outcome(run(server, "forgetful")) == ("done", None)


def test_a_task_that_no_worker_has_fails_and_says_so(server: Api) -> None:
    message = "NotRegistered: no worker of this queue has the task shop.no_such_task"
    assert outcome(run(server, "unknown")) == (None, ("exception", message))


def test_arguments_without_a_value_fail_the_step_before_anything_is_sent(server: Api) -> None:
    output, (kind, message) = outcome(run(server, "no-value"))
    assert (output, kind) == (None, "arguments_failed")
    assert message.startswith("`args` has no value: ")


def test_arguments_that_are_no_list_fail_the_step(server: Api) -> None:
    message = '`args` is {"a":1}, but must be a list, as in [data.id]'
    assert outcome(run(server, "no-list", data={"value": {"a": 1}})) == (None, ("arguments_failed", message))


def revoked(redis: Redis) -> set[str]:
    """The ids of the tasks that the workers have as revoked."""
    with Celery(broker=redis.url(0), set_as_current=False) as app:
        answers = app.control.inspect(timeout=0.5).revoked() or {}
    return {task_id for ids in answers.values() for task_id in ids}


def test_cancelling_a_run_revokes_its_task(server: Api, redis: Redis, shop: Worker, tmp_path: Path) -> None:
    before = revoked(redis)
    blocking = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
    events = [server.send("waits", data=blocking) for _ in range(6)]  # the worker runs four at a time
    eventually(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text() == "xxxx")
    for event in events:
        (found,) = server.runs_of(event)
        assert server.http.delete(f"/v1/runs/{found['id']}").status_code == 200
    eventually(lambda: len(revoked(redis) - before) == 6)
    (tmp_path / "go").touch()
    assert run(server, "forgetful")["status"] == "completed"  # the worker goes on


def test_a_task_that_takes_longer_than_the_timeout_is_revoked(server: Api, shop: Worker, tmp_path: Path) -> None:
    blocking = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
    ended = run(server, "overdue", data=blocking)
    assert outcome(ended) == (None, ("timeout", "the attempt did not end within the timeout of 0.6 s"))
    eventually(lambda: "Terminating" in shop.log.read_text())
    (tmp_path / "go").touch()
