"""Reads the logs of attempts from CloudWatch Logs when a run is shown.

A log that cannot be read, or does not exist yet, is empty and never makes the request fail.

A log stream of a Lambda contains one invocation after the other, each between a START and an END line with the request
id. The lines that the process printed while it started come before the first invocation and belong to it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from stepwell.aws.clients import client

log = logging.getLogger("stepwell.aws")
Key = TypeVar("Key")

MAX_LOG_BYTES = 4 * 1024 * 1024
_CUT = b"\nthe log is cut here: an attempt keeps at most 4 MiB\n"
_TOO_MANY = "not shown: only the logs of the {most} latest attempts are shown; this log is in the log group {group}\n"
_NO_ROOM = "\nthe rest is not shown, because the answer of a Lambda has at most 6 MB; see the log group {group}\n"
_MOST = 20  # attempts whose logs are read for one answer; CloudWatch allows few requests a second
_MOST_ESCAPED = 4_500_000  # bytes of all logs in an answer, escaped twice (JSON inside a JSON string)
_PARALLEL = 4
_INIT_MS = 10_000  # how long a process may take to start
_BEFORE_MS, _AFTER_MS = 10_000, 60_000  # tolerance for clocks, and for the times at which lines are stored
_MOST_PAGES = 20  # pages of a search for START and END lines
_CACHE_BYTES = 16 * 1024 * 1024
_INVOCATIONS = ("START RequestId: ", "END RequestId: ")
_OF_LAMBDA = ("REPORT RequestId: ", "INIT_START ", "INIT_REPORT ", "XRAY TraceId: ")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the log of an attempt is: an invocation in a Lambda's log group, or the log stream of a container."""

    group: str
    request_id: str | None
    stream: str | None
    since: int  # ms since the epoch
    until: int


def of_invocation(function: str, request_id: str, since: int, until: int) -> Source:
    """The source of an invocation's log. `function`: name or ARN of the Lambda."""
    name = function.split(":")[6] if function.startswith("arn:") else function
    return Source(f"/aws/lambda/{name}", request_id, None, since - _BEFORE_MS, until + _AFTER_MS)


def of_task(group: str, task_id: str, since: int, until: int) -> Source:
    """The source of the log of an ECS task."""
    return Source(group, None, f"stepwell/step/{task_id}", since - _BEFORE_MS, until + _AFTER_MS)


class Logs:
    """Reads logs, and caches those of ended invocations. Thread-safe."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_PARALLEL, "logs")
        self._cache: OrderedDict[Source, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def read(self, sources: Mapping[Key, Source]) -> dict[Key, bytes]:
        """The logs of these attempts. If there are many, only the latest are read; the others get a note."""
        latest_first = sorted(sources, key=lambda key: sources[key].until, reverse=True)
        read, rest = latest_first[:_MOST], latest_first[_MOST:]
        found: dict[Key, bytes] = {}
        room = _MOST_ESCAPED
        for key, text in zip(read, self._pool.map(lambda key: self.read_one(sources[key]), read), strict=True):
            size = _escaped_size(text)
            if size > room:
                text = text[: room * len(text) // size] + _NO_ROOM.format(group=sources[key].group).encode()
            room = max(0, room - size)
            found[key] = text
        return found | {k: _TOO_MANY.format(most=_MOST, group=sources[k].group).encode() for k in rest}

    def read_one(self, source: Source) -> bytes:
        """One log, from the cache or from CloudWatch; empty if it cannot be read."""
        cached = self._cache.get(source)
        if cached is not None:
            return cached
        try:
            text, is_complete = _read_stream(source) if source.request_id is None else _read_invocation(source)
        except Exception as error:
            log.warning("log of %s in %s cannot be read: %s", source.request_id, source.group, error)
            return b""
        if is_complete:
            self._add_to_cache(source, text)
        return text

    def _add_to_cache(self, source: Source, text: bytes) -> None:
        with self._lock:
            if source not in self._cache:
                self._cache[source] = text
                self._size += len(text)
            while self._size > _CACHE_BYTES:
                self._size -= len(self._cache.popitem(last=False)[1])


def _read_invocation(source: Source) -> tuple[bytes, bool]:
    """The log of an invocation, and whether it is complete.

    For the first invocation of a process, it begins with the lines that the process printed while it started.
    """
    start, end = _find_marks(source)
    if start is None:
        return b"", False
    until = source.until if end is None else end["timestamp"]
    lines = _lines(source.group, start["logStreamName"], start["timestamp"] - _INIT_MS, until)
    return _cut(_between(lines, source.request_id or "")), end is not None


def _read_stream(source: Source) -> tuple[bytes, bool]:
    return _cut(_lines(source.group, source.stream or "", source.since, source.until)), False


def _find_marks(source: Source) -> tuple[Any, Any]:
    """The START and the END line of an invocation; None for a line that is not found."""
    start = end = token = None
    for _ in range(_MOST_PAGES):
        answer = client("logs").filter_log_events(
            logGroupName=source.group,
            filterPattern=f'?"START RequestId: {source.request_id}" ?"END RequestId: {source.request_id}"',
            startTime=source.since,
            endTime=source.until,
            **({} if token is None else {"nextToken": token}),
        )
        for event in answer["events"]:
            if start is None and _is_mark(event["message"], "START", source.request_id):
                start = event
            elif _is_mark(event["message"], "END", source.request_id):
                end = event
        token = answer.get("nextToken")
        if token is None or (start is not None and end is not None):
            break
    return start, end


def _is_mark(message: str, kind: str, request_id: str | None) -> bool:
    return message.startswith(f"{kind} RequestId: {request_id}")


def _lines(group: str, stream: str, since: int, until: int) -> Iterator[str]:
    token = None
    while True:
        answer = client("logs").get_log_events(
            logGroupName=group,
            logStreamName=stream,
            startTime=since,
            endTime=until + 1,  # exclusive
            startFromHead=True,
            **({} if token is None else {"nextToken": token}),
        )
        yield from (event["message"] for event in answer["events"])
        if answer["nextForwardToken"] == token:
            return
        token = answer["nextForwardToken"]


def _between(lines: Iterator[str], request_id: str) -> Iterator[str]:
    """The lines of an invocation, without those that Lambda adds."""
    yield from _at_start(lines, request_id)
    for line in lines:
        if line.startswith(_INVOCATIONS):  # the END line; or the next START line, if the END line was lost
            return
        if not line.startswith(_OF_LAMBDA):
            yield line


def _at_start(lines: Iterator[str], request_id: str) -> list[str]:
    """The lines between INIT_START and the START of this invocation; empty unless it is the first of the process."""
    printed: list[str] | None = None
    for line in lines:
        if line.startswith("INIT_START "):
            printed = []
        elif _is_mark(line, "START", request_id):
            break
        elif line.startswith(_INVOCATIONS):
            printed = None
        elif printed is not None and not line.startswith(_OF_LAMBDA):
            printed.append(line)
    return printed or []


def _escaped_size(text: bytes) -> int:
    return len(orjson.dumps(orjson.dumps(text.decode(errors="replace")).decode()))


def _cut(lines: Iterator[str]) -> bytes:
    """The lines as one text, cut at `MAX_LOG_BYTES`."""
    pieces, room = [], MAX_LOG_BYTES
    for line in lines:
        text = line.encode() if line.endswith("\n") else f"{line}\n".encode()
        pieces.append(text[:room])
        room -= len(text)
        if room < 0:
            pieces.append(_CUT)
            break
    return b"".join(pieces)
