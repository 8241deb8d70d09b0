"""One Redis server and one worker for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers import rabbitmq
from tests.celery.brokers import Redis, Worker, redis_server, worker


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def shop(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of the app, with Redis as broker and as result backend."""
    env = {"BROKER": redis.url(0), "BACKEND": redis.url(1)}
    with worker(env, log=tmp_path_factory.mktemp("worker") / "log") as started:
        yield started


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a RabbitMQ node."""
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as port:
        yield f"amqp://guest:guest@127.0.0.1:{port}//"


@pytest.fixture(scope="session")
def rabbit_shop(rabbit: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of the app, with RabbitMQ as broker and rpc:// as result backend. It runs one task at a time."""
    env = {"BROKER": rabbit, "BACKEND": "rpc://"}
    with worker(env, "--pool=solo", log=tmp_path_factory.mktemp("worker") / "log") as started:
        yield started
