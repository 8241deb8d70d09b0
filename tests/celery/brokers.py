"""Real brokers and workers for tests: Debian's redis-server and rabbitmq-server, and `celery worker`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests import brokers
from tests.ports import free_port
from tests.servers import eventually

APP = Path(__file__).parent / "app"


class Redis:
    """A Redis server that can be stopped and started again, and then has the data that it had."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.port, self._folder, self._password = free_port(), folder, password
        self.start()

    def start(self) -> None:
        options = ["--appendonly", "yes", *(["--requirepass", self._password] if self._password else [])]
        self._running = ExitStack()
        self._running.enter_context(brokers.redis_server(self._folder, self.port, *options))

    def url(self, database: int = 0) -> str:
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        self._running.close()


@contextmanager
def redis_server(folder: Path, password: str = "") -> Iterator[Redis]:
    server = Redis(folder, password)
    try:
        yield server
    finally:
        server.stop()


class Worker:
    """A `celery worker` process of the app `shop`."""

    def __init__(self, env: Mapping[str, str], *options: str, log: Path) -> None:
        self.log = log
        words = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--loglevel", "INFO", *options]
        words += [
            "--hostname",
            f"w{uuid4().hex[:8]}@localhost",
        ]  # a killed worker's queue of commands stays locked for a while
        if not any(option.startswith("--pool") for option in options):
            words += ["--pool=threads", "--concurrency=4"]
        quiet = ["--without-gossip", "--without-mingle"]
        with log.open("a") as lines:
            self.process = subprocess.Popen(
                [*words, *quiet], cwd=APP, env={**os.environ, **env}, stdout=lines, stderr=lines, start_new_session=True
            )

    def wait_until_ready(self) -> Worker:
        eventually(lambda: " ready." in self.log.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def kill(self) -> None:
        """Kills the worker and the processes of its pool."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def worker(env: Mapping[str, str], *options: str, log: Path) -> Iterator[Worker]:
    started = Worker(env, *options, log=log)
    try:
        yield started.wait_until_ready()
    finally:
        if started.process.poll() is None:
            started.kill()


@contextmanager
def sqs_server() -> Iterator[str]:
    """An emulated SQS. Yields the address of the broker."""
    moto_server = pytest.importorskip("moto.server")
    port = free_port()
    server = moto_server.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        yield f"sqs://key:secret@127.0.0.1:{port}"
    finally:
        server.stop()
