"""Starts Lambda's own runtime for Python, as /var/runtime/bootstrap.py does on Lambda: `python_runtime.py HANDLER`.

One rule: the runtime is loaded first, and only then the function's code gets its place at the front of the path; so a
file of the function may have the name of a module that the runtime uses.

With a socket's number for a second argument it forks for every order that comes from there (`python_server.py`), which
takes a tenth of the time. Each order is executed by a process of its own, beside another that says how it ended.
"""

import json
import logging  # noqa: F401 (Lambda has loaded these before the function's code can be found)
import os
import signal
import socket
import sys
import time
import traceback  # noqa: F401
import warnings  # noqa: F401


def serve(channel: socket.socket) -> None:
    """Return in the processes that are to become runtimes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
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
    """True in the process that is to become a runtime; the other one writes its id and its end, as `wait` has it."""
    pid = os.fork()
    if pid == 0:
        return True
    os.close(log)
    os.write(ending, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(ending, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(order: dict, log: int, ending: int) -> None:  # type: ignore[type-arg]
    """Take on what another process would be given at its start."""
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

sys.dont_write_bytecode = True  # on Lambda nobody can write beside the code; here root could
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
runtime.main(sys.argv)
