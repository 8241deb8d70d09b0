"""Starts Lambda's Python runtime as /var/runtime/bootstrap.py does on Lambda: `python_runtime.py HANDLER`.

The runtime is imported first; only then the function's code is put at the front of `sys.path`. So a file of the
function can have the same name as a module that the runtime uses.

With the number of a socket as second argument, it forks for each order on that socket (`python_server.py`), which takes
a tenth of the time. Each order runs in a process of its own, and a second process reports how it ended.
"""

import json
import logging  # noqa: F401 (imported early, because Lambda imports these before the function's code is on the path)
import os
import signal
import socket
import sys
import time
import traceback  # noqa: F401
import warnings  # noqa: F401


def serve(channel: socket.socket) -> None:
    """Forks for each order. Returns only in the forked processes that are to run the runtime."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the watching processes need no `wait`
    while True:
        length, files, _, _ = socket.recv_fds(channel, 4, 2)
        if not length:
            os._exit(0)
        order = channel.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.close()
            if watch(*files):
                return become(json.loads(order), *files)
        for file in files:
            os.close(file)


def watch(log: int, ending: int) -> bool:
    """Forks. Returns True in the child. The parent writes the child's pid and exit code to `ending`, and exits."""
    pid = os.fork()
    if pid == 0:
        return True
    os.close(log)
    os.write(ending, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(ending, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(order: dict, log: int, ending: int) -> None:  # type: ignore[type-arg]
    """Sets up the process as if it were started with the order's directory, environment and log."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(ending)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    sys.argv[1:] = [order["handler"]]
    sys.path[0:0] = order["env"]["PYTHONPATH"].split(os.pathsep)


if len(sys.argv) > 2:
    serve(socket.socket(fileno=int(sys.argv[2])))

import awslambdaric.__main__ as runtime  # noqa: E402

sys.dont_write_bytecode = True  # on Lambda the code is read-only; here, root could write beside it
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
runtime.main(sys.argv)
