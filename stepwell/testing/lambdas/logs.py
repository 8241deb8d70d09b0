"""The output of sandboxes, and CloudWatch Logs: a log group for each function, a stream for each sandbox.

Lines must stay in the order in which they were printed. So a sandbox prints into a file, and Lambda's own lines are
written to the same file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from moto.logs.models import logs_backends

_MAX_FILE = 8 * 1024 * 1024
_MANY = 1000
_OF_LAMBDA = ("START RequestId: ", "END RequestId: ", "REPORT RequestId: ", "INIT_")


class SandboxLog:
    """The log of one sandbox. The process writes to `file`."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self._source = path.open("rb", buffering=0)
        self._lock = threading.Lock()
        self._rest = b""

    def write(self, *lines: str) -> None:
        """Writes Lambda's own lines. They start on a new line, even if the process printed an unfinished one."""
        with self._lock:
            if self.file.closed:
                return  # the runtime of a dropped and removed sandbox may still request work
            text = "".join(f"{line}\n" for line in lines).encode()
            self.file.write(text if self._is_at_line_start() else b"\n" + text)

    def _is_at_line_start(self) -> bool:
        size = os.fstat(self.file.fileno()).st_size
        return size == 0 or os.pread(self._source.fileno(), 1, size - 1) == b"\n"

    def read(self) -> list[str]:
        """The complete lines since the last call."""
        with self._lock:
            if self.file.closed:
                return []
            *lines, self._rest = (self._rest + self._source.read()).split(b"\n")
            if self._source.tell() > _MAX_FILE and not self._rest:
                os.ftruncate(self.file.fileno(), 0)
                self._source.seek(0)
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        """Closes the file. Later output is lost, as on Lambda."""
        with self._lock:
            self.file.close()
            self._source.close()


def put_lines(arn: str, stream: str, lines: list[str]) -> None:
    """Appends lines to the stream of a function's sandbox. The caller must hold the lock of moto."""
    if not lines:
        return
    _, _, _, region, account, _, name = arn.split(":")
    backend: Any = logs_backends[account][region]
    group = f"/aws/lambda/{name}"
    if group not in backend.groups:
        backend.create_log_group(group, {})
    if stream not in backend.groups[group].streams:
        backend.create_log_stream(group, stream)
    now = time.time_ns() // 1_000_000
    backend.put_log_events(group, stream, [{"timestamp": now, "message": f"{line}\n"} for line in _events(lines)])


def _events(lines: list[str]) -> Iterator[str]:
    """One event per line, as on Lambda. If there are very many lines, some are joined: moto would take minutes."""
    if len(lines) <= _MANY:
        yield from lines
        return
    for is_of_lambda, group in groupby(lines, lambda line: line.startswith(_OF_LAMBDA)):
        some = list(group)
        size = 1 if is_of_lambda else _MANY
        yield from ("\n".join(some[i : i + size]) for i in range(0, len(some), size))
