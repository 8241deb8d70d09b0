"""The process that runs Python Lambda handlers: `python python_worker.py FD CODE MODULE FUNCTION`.

Uses as little of the standard library as possible, and nothing else; Python 3.8 and later.

Protocol on the socket FD: a request is `>IQ` (length, milliseconds left) and the event as JSON. An answer is `>Ic`
(length, kind) and a text. The kinds are: o, the return value as JSON; l, the length of a return value that is too large
to send; e, an exception; i, an exception while importing; s, no such handler.
"""

# ruff: noqa: E402, PTH108, PTH208 (imports come after the path is cleaned, and pathlib adds 5 ms to every start)

from __future__ import annotations

import sys

# Files beside this one must not shadow modules of the standard library.
sys.path[:] = [entry for entry in sys.path if entry != __file__.rpartition("/")[0]]

import json
import os
import struct
import time

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120
from python_marshal import MarshalError, marshal  # type: ignore[import-not-found]

del sys.path[0], sys.modules["python_marshal"]  # the handler may have a module of that name

LARGEST = 1024 * 1024
LONG = 64 * 1024  # bytes; longer answers are sent without copying them
LONGEST_ERROR = 16 * 1024  # characters; the server kills this process if an answer is too large
REQUEST = struct.Struct(">IQ")


class Context:
    """The context object that AWS Lambda passes to a handler."""

    identity = None
    client_context = None
    function_version = "$LATEST"

    def __init__(self, milliseconds: int) -> None:
        name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        digits = os.urandom(16).hex()
        self.aws_request_id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
        self.function_name = name
        self.invoked_function_arn = f"arn:aws:lambda:local:000000000000:function:{name}"
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = f"/aws/lambda/{name}"
        self.log_stream_name = "local"
        self._deadline = time.monotonic() + milliseconds / 1000

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def load(module: str, function: str) -> object:
    import importlib
    import logging

    found = importlib.import_module(module)
    if not logging.getLogger().handlers:  # as on Lambda: one handler, so that setLevel makes records visible
        logging.basicConfig(format="[%(levelname)s]\t%(asctime)s\t%(name)s\t%(message)s")
    return getattr(found, function, None)


def explain(error: BaseException) -> bytes:
    """Prints the traceback without the frames of this file. Returns the text for the answer."""
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    try:
        traceback.print_exception(type(error), error, trace)
        return f"{type(error).__name__}: {error}"[:LONGEST_ERROR].encode("utf-8", "replace")
    except Exception:  # the error's __str__ failed
        return type(error).__name__.encode("utf-8", "replace")


def invoke(handler, event: bytes, milliseconds: int) -> tuple[bytes, bytes]:  # type: ignore[no-untyped-def]
    """Runs the handler. Returns the kind and text of the answer."""
    try:
        value = handler(json.loads(event), Context(milliseconds))
    except SystemExit:
        raise
    except BaseException as error:
        return b"e", explain(error)
    try:
        text = marshal(value)
    except MarshalError as error:
        message = f"Runtime.MarshalError: {error}"[:LONGEST_ERROR]
        print(message, file=sys.stderr)
        return b"e", message.encode("utf-8", "replace")
    return (b"o", text) if len(text) <= LARGEST else (b"l", str(len(text)).encode())


def receive(channel: int, size: int) -> bytes:
    """Reads exactly `size` bytes; fewer if the server is gone."""
    data = os.read(channel, size)
    if not 0 < len(data) < size:
        return data
    pieces, missing = [data], size - len(data)
    while missing and (data := os.read(channel, missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


def answer(channel: int, kind: bytes, text: bytes) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # the handler has closed the stream
            pass
    head = struct.pack(">Ic", len(text), kind)
    sent = os.write(channel, head + text) if len(text) < LONG else os.writev(channel, (head, text))
    if sent < len(head) + len(text):
        left = memoryview(head + text)[sent:]
        while left:
            left = left[os.write(channel, left) :]


def empty(folder: str) -> bool:
    """Empties the folder TMPDIR after an invocation. Returns False if that is not possible."""
    if not os.listdir(folder):
        return True
    import shutil

    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
    return not os.listdir(folder)


def main() -> None:
    channel, code, module, function = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    os.set_inheritable(channel, False)
    temporary = os.environ["TMPDIR"]
    sys.argv[:] = [module]
    sys.path.insert(0, code)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    # The C library adapts thresholds to freed blocks. Without this, it would return memory to the system and request it
    # again for each large value (https://man7.org/linux/man-pages/man3/mallopt.3.html, M_MMAP_THRESHOLD).
    bytes(2 * LARGEST)
    handler: object = None
    while len(head := receive(channel, REQUEST.size)) == REQUEST.size:
        length, milliseconds = REQUEST.unpack(head)
        event = receive(channel, length)
        if handler is None:
            try:
                handler = load(module, function)
            except SystemExit:
                raise
            except BaseException as error:
                return answer(channel, b"i", explain(error))
            if not callable(handler):
                return answer(channel, b"s", f"the module {module} has no function {function}".encode())
        answer(channel, *invoke(handler, event, milliseconds))
        os.chdir(code)
        if not empty(temporary):
            return None
    return None


if __name__ == "__main__":
    main()
