"""The interpreter that Python workers are forked from: `python python_fork_server.py FD`.

It runs no handler code and receives no data of handlers: a child reads its task from a socket of its own. So no child
finds data of another one in its memory. Standard library only, Python 3.8 and later.

Protocol on the socket FD, which preserves message boundaries; numbers are `>i`:

- The first message, `ready`, is sent from here.
- `f` with four descriptors (the child's socket, stdin, stdout, stderr) is answered with the child's process id, or a
  negative error number.
- `w` and the id of a child that has ended is answered with the child's wait status.

When the socket closes, the process ends.
"""

# ruff: noqa: E402, PTH208 (as in python_worker.py)

from __future__ import annotations

import sys

import python_worker as worker  # type: ignore[import-not-found]

del sys.modules["python_worker"]  # the handler may have a module of that name
PLAIN = frozenset(sys.modules)  # the modules that every worker has loaded

import array
import gc
import importlib
import json
import logging
import os
import socket
import struct
import time

# Modules that most handlers or workers load. None of them keeps random numbers, threads, or environment variables.
for name in (
    *("base64", "collections", "contextlib", "dataclasses", "datetime", "decimal", "enum", "functools", "pathlib"),
    *("re", "shutil", "traceback", "typing", "urllib.parse"),
):
    importlib.import_module(name)

LOADED: dict[str, list[str]] = {}
for name in set(sys.modules) - PLAIN - {"__main__"}:
    LOADED.setdefault(name.partition(".")[0], []).append(name)

NUMBER = struct.Struct(">i")
DESCRIPTORS = 4


def serve(channel: socket.socket) -> list[int] | None:
    """Answers requests. Returns in each child, with the child's descriptors; returns None when the socket closes."""
    room = socket.CMSG_SPACE(DESCRIPTORS * NUMBER.size)
    while True:
        request, ancillary, _, _ = channel.recvmsg(NUMBER.size + 1, room, socket.MSG_CMSG_CLOEXEC)
        if not request:
            return None
        if request[:1] == b"w":
            answer = os.waitpid(NUMBER.unpack(request[1:])[0], 0)[1]
        else:
            passed = array.array("i")
            passed.frombytes(ancillary[0][2])
            try:
                answer = os.fork()
            except OSError as error:
                answer = -(error.errno or 1)
                worker.answer(passed[0], b"i", f"the worker cannot be forked: {error}".encode())
            if answer == 0:
                channel.close()
                return list(passed)
            for descriptor in passed:
                os.close(descriptor)
        channel.send(NUMBER.pack(answer))


def become_worker(channel: int, *streams: int) -> None:
    """Makes this child behave like a newly started worker process."""
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    length = struct.unpack(">I", worker.receive(channel, 4))[0]
    task = json.loads(worker.receive(channel, length))
    for variable, value in task["env"].items():
        os.environ[variable] = value
    time.tzset()
    try:
        os.chdir(task["code"])
    except OSError as error:
        worker.answer(channel, b"s", f"cannot be started: {error}".encode())
        sys.exit(1)
    forget(task["code"])
    # Code that inspects the main module, such as multiprocessing, finds the same as in a new process.
    sys.modules["__main__"], worker.__name__, worker.__spec__ = worker, "__main__", None
    sys.argv[:] = ["", str(channel), task["code"], task["module"], task["function"]]


def forget(code: str) -> None:
    """Unloads modules that the handler's folder also has: the handler's ones come before the standard library."""
    for entry in os.listdir(code):
        for module in LOADED.get(entry.partition(".")[0], ()):
            sys.modules.pop(module, None)


def rehearse() -> None:
    """Does once what every worker does when it starts, so that children share the memory that it changes."""
    names = ("AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    for variable in names:
        os.environ[variable] = ""
    for _ in range(20):
        json.loads(json.dumps({"env": {"A": "b"}}))
        worker.invoke(lambda event, context: event, b'{"a": [1, "b", 2.5, null]}', 1)
    for variable in names:
        del os.environ[variable]
    logging.basicConfig()
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)
        handler.close()


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("the interpreter has threads, which do not survive a fork")
    rehearse()
    gc.collect()
    gc.freeze()  # a collection must not write to shared memory
    channel.send(b"ready")
    descriptors = serve(channel)
    if descriptors is not None:
        become_worker(*descriptors)
        worker.main()


if __name__ == "__main__":
    main()
