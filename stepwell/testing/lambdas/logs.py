"""What sandboxes print, and CloudWatch Logs, where Lambda puts it: a group a function, a stream a sandbox.

One rule: the order is that in which it was printed. So a sandbox prints into a file, where Lambda's own lines go too.
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
    """`file` is what the process writes to."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self._source = path.open("rb", buffering=0)
        self._lock = threading.Lock()
        self._rest = b""

    def write(self, *lines: str) -> None:
        """Lines of Lambda's own; each begins a line, whatever was printed before."""
        with self._lock:
            if self.file.closed:
                return  # a runtime may still ask for work when its sandbox was dropped and removed
            text = "".join(f"{line}\n" for line in lines).encode()
            self.file.write(text if self._is_at_line_start() else b"\n" + text)

    def _is_at_line_start(self) -> bool:
        size = os.fstat(self.file.fileno()).st_size
        return size == 0 or os.pread(self._source.fileno(), 1, size - 1) == b"\n"

    def read(self) -> list[str]:
        """The lines since the last call, without one that has not ended."""
        with self._lock:
            if self.file.closed:
                return []
            *lines, self._rest = (self._rest + self._source.read()).split(b"\n")
            if self._source.tell() > _MAX_FILE and not self._rest:
                os.ftruncate(self.file.fileno(), 0)
                self._source.seek(0)
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        """What is written later is lost, as it is on Lambda."""
        with self._lock:
            self.file.close()
            self._source.close()


def put_lines(arn: str, stream: str, lines: list[str]) -> None:
    """Append to the stream of a function's sandbox; moto must not change meanwhile."""
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
    """An event a line, as Lambda has it; but moto takes minutes for a million, so that of very many some are joined."""
    if len(lines) <= _MANY:
        yield from lines
        return
    for is_of_lambda, group in groupby(lines, lambda line: line.startswith(_OF_LAMBDA)):
        some = list(group)
        size = 1 if is_of_lambda else _MANY
        yield from ("\n".join(some[i : i + size]) for i in range(0, len(some), size))
