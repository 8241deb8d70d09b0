"""Real brokers and workers for tests: Debian's redis-server and rabbitmq-server, and `celery worker`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.servers import eventually

APP = Path(__file__).parent / "app"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Redis:
    """A Redis server that can be stopped and started again."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.port, self._folder = free_port(), folder
        self._password = password
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--dir", str(self._folder), "--appendonly", "yes", "--save", ""]
        options += ["--requirepass", self._password] if self._password else []
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        eventually(lambda: accepts(self.port))

    def url(self, database: int = 0) -> str:
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


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


def missing_program(name: str) -> str | None:
    """The reason to skip a test that needs this program; None if it is installed."""
    return None if shutil.which(name) else f"{name} is not installed"


class RabbitMq:
    """A RabbitMQ node of its own, with its own port mapper."""

    def __init__(self, folder: Path) -> None:
        self.port, mapper_port = free_port(), free_port()
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{self.port}\n")
        env = {
            **os.environ,
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        }
        program = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one on PATH changes the user
        with (folder / "out").open("w") as out:
            commands = (["epmd", "-port", str(mapper_port)], [program])
            self._processes = [
                subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
                for command in commands
            ]
        eventually(lambda: accepts(self.port), within=90)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def stop(self) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextmanager
def rabbitmq(folder: Path) -> Iterator[RabbitMq]:
    server = RabbitMq(folder)
    try:
        yield server
    finally:
        server.stop()


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
