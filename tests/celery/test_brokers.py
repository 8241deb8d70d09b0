"""Brokers and result backends of tasks: Redis, RabbitMQ with rpc://, files; and what happens when one is gone."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.core.plan import Runtime
from stepwell.local.runners import celery
from stepwell.local.runners.celery import CeleryRunner
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from tests.celery.brokers import Redis, Worker, redis_server, sqs_server, worker
from tests.local.attempts import Attempt, job, until
from tests.ports import free_port
from tests.servers import eventually

INPUT = orjson.dumps({"event": {"name": "go", "data": {}}, "steps": {}, "errors": {}, "async": None, "ctx": {}})


def task(name: str, broker: str, backend: str = "", args: str = "[]", **options: Any) -> Job:
    runtime = Runtime("celery", task=f"shop.{name}", queue="celery", broker=broker, backend=backend or None, args=args)
    return job(None, runtime, content=INPUT, **options)


class Accepting:
    """Starts attempts as a server does. `accepted` counts those that a broker has accepted."""

    def __init__(self, runner: CeleryRunner) -> None:
        self._runner, self.accepted = runner, 0

    def start(self, job: Job, log: Log, end: End) -> Running:
        return self._runner.start_remote(job, log, end, self._accept)

    def _accept(self) -> None:
        self.accepted += 1

    def attempt(self, job: Job) -> Attempt:
        return Attempt(self, job)  # type: ignore[arg-type]


def with_runner(work: Callable[[Accepting], Awaitable[None]]) -> None:
    async def main() -> None:
        runner = CeleryRunner(uuid.uuid4().hex.__str__)
        try:
            await work(Accepting(runner))
        finally:
            await runner.close()

    asyncio.run(main())


def run(value: Job) -> Attempt:
    """Runs one job, as a server of its own."""
    attempts: list[Attempt] = []

    async def work(runner: Accepting) -> None:
        attempts.append(await runner.attempt(value).end())

    with_runner(work)
    return attempts[0]


def test_workers_on_rabbitmq_send_results_back_by_rpc(rabbit: str, rabbit_shop: Worker) -> None:
    assert run(task("send_email", rabbit, "rpc://", "['ada@example.com']")).output["sent_to"] == "ada@example.com"
    assert run(task("retry_twice", rabbit, "rpc://")).output == 2
    assert run(task("fail", rabbit, "rpc://", "['gone']")).error == ("exception", True, "OutOfStock: gone")


def test_a_queue_that_the_app_declared_in_its_own_way_is_used_as_it_is(rabbit: str, tmp_path: Path) -> None:
    from kombu import Connection, Queue

    with Connection(rabbit) as connection:
        Queue("celery-priorities", max_priority=10, channel=connection).declare()
    runtime = Runtime(
        "celery", task="shop.give", queue="celery-priorities", broker=rabbit, backend="rpc://", args="[1]"
    )

    async def work(runner: Accepting) -> None:
        runner.attempt(job(None, runtime, content=INPUT))
        await until(lambda: runner.accepted)

    with_runner(work)
    with Connection(rabbit) as connection:
        assert Queue("celery-priorities")(connection).queue_declare(passive=True).message_count == 1


def test_results_in_other_backends_are_asked_for(redis: Redis, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    backend = f"file://{tmp_path}/results"
    env = {"BROKER": redis.url(2), "BACKEND": backend}
    with worker(env, "--pool=solo", log=tmp_path / "log"):
        assert run(task("give", redis.url(2), backend, "[{'a': 1}]")).output == {"a": 1}
        assert run(task("fail", redis.url(2), backend, "['gone']")).error == ("exception", True, "OutOfStock: gone")


def test_a_worker_with_processes_is_made_to_stop_the_task(redis: Redis, tmp_path: Path) -> None:
    env = {"BROKER": redis.url(3), "BACKEND": redis.url(4)}
    with worker(env, "--pool=prefork", "--concurrency=1", log=tmp_path / "log") as started:
        value = task("wait_for", redis.url(3), redis.url(4), f"['{tmp_path}/never', '{tmp_path}/started']")

        async def work(runner: Accepting) -> None:
            attempt = runner.attempt(value)
            await until((tmp_path / "started").exists)
            attempt.running.stop()
            assert (await attempt.end()).error[0] == "stopped"

        with_runner(work)
        eventually(lambda: "TaskRevokedError" in started.log.read_text() or "Terminating" in started.log.read_text())
        assert run(task("give", redis.url(3), redis.url(4), "[1]")).output == 1  # the worker is free again


def test_a_broker_that_is_gone_is_a_failure_that_is_retried_and_shows_no_password(tmp_path: Path) -> None:
    broker = f"redis://:s3cret-pass@127.0.0.1:{free_port()}/0"
    kind, retried, message = run(task("give", broker, broker, "[1]")).error
    assert (kind, retried) == ("broker", True)
    assert message.startswith(f"the broker redis://127.0.0.1:{broker.rpartition(':')[2]} does not accept the task: ")
    assert "s3cret" not in message


def test_a_wrong_password_is_not_shown(tmp_path: Path) -> None:
    with redis_server(tmp_path, password="right") as server:
        kind, retried, message = run(task("give", server.url().replace("right", "wr0ng"), server.url(), "[1]")).error
        assert (kind, retried) == ("broker", True)
        assert "wr0ng" not in message


def test_a_broker_that_was_restarted_is_used_again(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        value = task("give", server.url(), server.url(1), "[1]")

        async def work(runner: Accepting) -> None:
            runner.attempt(value)
            await until(lambda: runner.accepted == 1)
            server.stop()
            server.start()
            runner.attempt(value)
            await until(lambda: runner.accepted == 2)

        with_runner(work)


def test_a_result_comes_even_if_its_backend_was_restarted_meanwhile(redis: Redis, tmp_path: Path) -> None:
    with redis_server(tmp_path) as backend:
        env = {"BROKER": redis.url(5), "BACKEND": backend.url()}
        value = task("wait_for", redis.url(5), backend.url(), f"['{tmp_path}/go', '{tmp_path}/started']")
        with worker(env, log=tmp_path / "log"):

            async def work(runner: Accepting) -> None:
                attempt = runner.attempt(value)
                await until((tmp_path / "started").exists)
                backend.stop()
                backend.start()
                (tmp_path / "go").touch()
                assert (await attempt.end()).output == "waited"

            with_runner(work)


@pytest.mark.parametrize(
    ("runtime", "env", "message"),
    [
        ({"broker": "${BROKER}"}, {}, "`broker` names ${BROKER}, which is neither in env nor in secrets; add it there"),
        ({"broker": "${BROKER}"}, {"BROKER": "secret"}, "`broker` is not an address such as redis://localhost:6379/0"),
        (
            {"broker": "redis://localhost", "backend": "db+sqlite:///results.db"},
            {},
            "`backend` is a database, in which Celery stores pickles, and these are never read; use redis",
        ),
    ],
    ids=["not given", "no address", "pickles"],
)
def test_an_address_that_cannot_be_used_is_a_final_failure(
    runtime: dict[str, str], env: dict[str, str], message: str
) -> None:
    value = job(None, Runtime("celery", task="shop.give", queue="celery", **runtime), content=INPUT, env=env)
    assert run(value).error == ("start", False, message)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.project.extras.is_installed", lambda name: False)
    with pytest.raises(CannotRun, match=r"needs the package celery; run: pip install 'stepwell\[celery\]'"):
        celery.check(Runtime("celery", broker="redis://localhost"))


def test_tasks_go_through_sqs(redis: Redis, tmp_path: Path) -> None:
    pytest.importorskip("pycurl", reason="kombu reads SQS with pycurl: pip install 'celery[sqs]'")
    with sqs_server() as broker:
        env = {"BROKER": broker, "BACKEND": redis.url(13), "AWS_DEFAULT_REGION": "us-east-1"}
        with worker(env, "--pool=solo", log=tmp_path / "log"):
            assert run(task("give", broker, redis.url(13), "[{'a': 1}]")).output == {"a": 1}
