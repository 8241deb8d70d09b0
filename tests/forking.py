"""A process that has imported Stepwell and forks for each command, because `python -m stepwell` imports for a second.

This module is run as a program with the number of a socket. `tests.commands` sends the requests. A request is a JSON
object that describes what to run, with four files: stdin, stdout and stderr of the command, and a socket. The child's
pid is sent on this socket, and at the end the exit code.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import runpy
import selectors
import socket
import sys
from typing import Any

# Modules that commands import when they run, in addition to their own.
LATER = (
    "anyio._backends._asyncio", "anyio.streams.memory", "encodings.idna", "google.protobuf.text_format", "httpcore",
    "httpx", "jsonschema_rs", "pathspec", "stepwell.core.webhooks.definition", "stepwell.dev.server",
    "stepwell.event_types.schema_checks", "stepwell.local.reaper", "stepwell.local.serve", "stepwell.outbound",
    "stepwell.project.yaml_text", "typer._adapters", "uvicorn.lifespan.off", "uvloop",
)  # fmt: skip
MOST = 1 << 20  # bytes of a request
Request = dict[str, Any]


def serve(control: socket.socket) -> Request | None:
    """Forks for each request. Returns None when no client is left, and in each child the child's request."""
    waiting: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: the child's pid, and the socket of the client
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in waiting:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, client = waiting.pop(key.fd)
                    _send(client, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    client.close()
                    continue
                request, files = _receive(control)
                if request is None:
                    return None
                pid = os.fork()
                if not pid:
                    for number, file in enumerate(files[:3]):
                        os.dup2(file, number)
                    os.closerange(3, 1024)  # closes all files of the forking process
                    return request
                for file in files[:3]:
                    os.close(file)
                client, pidfd = socket.socket(fileno=files[3]), os.pidfd_open(pid)
                waiting[pidfd] = pid, client
                selector.register(pidfd, selectors.EVENT_READ)
                _send(client, pid)


def _receive(control: socket.socket) -> tuple[Request | None, list[int]]:
    files = array.array("i")
    content, ancillary, _, _ = control.recvmsg(MOST, socket.CMSG_SPACE(4 * files.itemsize))
    for _, _, data in ancillary:
        files.frombytes(data)
    return (json.loads(content) if content else None), list(files)


def _send(client: socket.socket, number: int) -> None:
    try:
        client.send(number.to_bytes(8, "little", signed=True))
    except OSError:
        pass  # the client has gone


def _import() -> None:
    from stepwell.cli.main import COMMANDS

    for place, _ in COMMANDS.values():
        importlib.import_module(f"stepwell.cli.{place.partition(':')[0]}")
    for name in LATER:
        importlib.import_module(name)


def _prepare(request: Request) -> None:
    """Sets up the process like a new `python -m stepwell`."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    sys.path[0] = request["cwd"]
    sys.argv = ["stepwell", *request["arguments"]]
    sys.orig_argv = [sys.executable, "-m", "stepwell", *request["arguments"]]


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    _import()
    gc.collect()
    gc.freeze()
    request = serve(control)
    if request is not None:
        control.detach()
        _prepare(request)
        runpy.run_module("stepwell", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
