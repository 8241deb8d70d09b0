"""The process that runs WebAssembly modules for the step adapter on AWS: `python wasm_lambda_worker.py FD`.

This script is in the folder `wasm` of a Lambda's code, beside the compiled module. The step's code is in `step`. The
variable STEPWELL_MODULE contains the rest of the task: see TASK in `wasm_worker.py`.

FD is a socket that preserves message boundaries. A request is the folder of an attempt, which contains `input.json` and
`tmp`, with two descriptors for stdout and stderr. The answer is a kind of one letter, and a text.
"""

# ruff: noqa: PTH100, PTH118, PTH113, PTH120, PTH123 (plain calls, as in wasm_worker.py)

from __future__ import annotations

import json
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wasm_worker as wasm  # type: ignore[import-not-found]

LONGEST = 16 * 1024  # bytes of an answer


def task() -> dict:  # type: ignore[type-arg]
    here = os.path.dirname(os.path.abspath(__file__))
    compiled = os.path.join(here, "module.cwasm")
    found: dict = json.loads(os.environ["STEPWELL_MODULE"])  # type: ignore[type-arg]
    found["code"] = os.path.join(os.path.dirname(here), "step")
    found["compiled"] = compiled if os.path.isfile(compiled) else None
    return found


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sandbox, problem = wasm.open_sandbox(task())
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 4096, 2)
        if not request:
            return
        folder = request.decode()
        for number, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if sandbox is None:
            kind, text = b"s", problem
        else:
            with open(folder + "/input.json", "rb") as file:
                content = file.read()
            kind, text = sandbox.run(content, folder, folder + "/tmp")
        for number in (1, 2):  # the other side has read all when nobody can write any more
            os.dup2(nowhere, number)
        channel.send(kind + text.encode("utf-8", "replace")[:LONGEST])


if __name__ == "__main__":
    main()
