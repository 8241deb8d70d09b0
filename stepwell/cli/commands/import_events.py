"""`stepwell import`: sends the events of a file, one JSON object a line.

An import can be repeated without creating duplicates: a line without an id gets one that is derived from the content
of the file and the line number.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn, cast

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json, stderr
from stepwell.cli.ui.rate_limit import RateLimit, per_second

_MAX_EVENTS, _MAX_BYTES = 500, 2 * 1024 * 1024  # of a request
_MAX_LINE = 1024 * 1024
_RETRY_FOR_S = 60.0


def command(
    file: Annotated[str, typer.Argument(help="A file with a JSON object on each line, plain or gzip; - for stdin.")],
    rate: Annotated[
        str | None, typer.Option(help="The highest rate, such as 50/s or 600/m; default: no limit.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Send nothing if any line is wrong.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the lines; send nothing.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the events of a file, one JSON object a line, in the order of the lines. Lines that are wrong are printed,
    and the others are sent. After an interruption, run the command again: no event is accepted twice.

    Example: stepwell import history.ndjson.gz --rate 500/s
    """
    try:
        rate_limit = None if rate is None else RateLimit(per_second(rate))
    except ValueError as wrong:
        fail(f"--rate: {wrong}", 2)
    size = _MAX_EVENTS if rate is None else max(1, min(_MAX_EVENTS, int(per_second(rate) / 4)))
    with _opened(file) as source:
        seed = hashlib.sha256()
        while piece := source.read(1024 * 1024):
            seed.update(piece)
        source.seek(0)
        importing = _Import(seed.digest(), as_json)
        if dry_run or strict:
            for _ in importing.lines(source):
                importing.good += 1
            if dry_run or importing.bad:
                importing.end(sent=False)
            source.seek(0)
            importing = _Import(seed.digest(), as_json)
        with Client(env, retry_for_s=_RETRY_FOR_S).session() as client, importing.progress():
            for batch in _batches(importing.lines(source), size):
                if rate_limit is not None:
                    rate_limit.wait(len(batch))
                importing.send(client, batch)
    importing.end(sent=True)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    body: bytes  # the event as JSON, with an id


@dataclass(slots=True)
class _Import:
    seed: bytes
    as_json: bool
    good: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)
    _bar: tuple[Progress, TaskID] | None = None

    def lines(self, source: BinaryIO) -> Iterator[_Line]:
        """Yields the lines that contain a valid event, and prints an error for each other line."""
        from stepwell.core.events.request import BadRequest, parse_events
        from stepwell.core.json_input import without_bom

        number = 0
        while line := source.readline(_MAX_LINE + 1):
            number += 1
            if len(line) > _MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = source.readline(_MAX_LINE)
                self.add_error(number, "", f"the line has more than {_MAX_LINE:,} bytes")
                continue
            text = (without_bom(line) if number == 1 else line).strip()
            if not text:
                continue
            try:
                if text[:1] != b"{":
                    self.add_error(number, "", "the line must be one event: a JSON object")
                    continue
                (event,) = parse_events(text, time.time_ns() // 1_000_000, partial(self._id_of, number))
            except BadRequest as bad:
                for error in bad.errors:
                    self.add_error(number, error.pointer, error.message)
            else:
                yield _Line(number, event.body)

    def _id_of(self, number: int) -> str:
        return hashlib.blake2b(b"%b %d" % (self.seed, number), digest_size=16).hexdigest()

    def send(self, client: Client, batch: list[_Line]) -> None:
        """Sends a batch. The server accepts a request as a whole or not at all, so this sends again without the events
        that it has refused."""
        while batch:
            status, answer = client.send("POST", "/e", b"[%b]" % b",".join(line.body for line in batch))
            if status == 200:
                self.good += len(batch)
                break
            errors = [error for error in answer.get("errors", ()) if error["index"] < len(batch)]
            if status not in (400, 413) or not errors:
                client.refused(status, answer)
            for error in errors:
                self.add_error(batch[error["index"]].number, error["pointer"], error["message"])
            wrong = {error["index"] for error in errors}
            batch = [line for index, line in enumerate(batch) if index not in wrong]
        if self._bar is not None:
            self._bar[0].update(self._bar[1], description=f"{self.good:,} events")

    def add_error(self, number: int, pointer: str, message: str) -> None:
        self.bad.append({"line": number, "pointer": pointer, "message": message})
        if not self.as_json:
            place = f"line {number}" + (f", {pointer}" if pointer else "")
            stderr.print(f"{place}: {message}", markup=False, soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Shows a progress bar if stderr is a terminal."""
        columns = (TextColumn("{task.description}"), BarColumn())
        with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
            self._bar = progress, progress.add_task("0 events", total=None)
            yield
            self._bar = None

    def end(self, *, sent: bool) -> NoReturn:
        """Prints the result and ends the command, with code 1 if a line was wrong."""
        wrong = len({error["line"] for error in self.bad})
        if self.as_json:
            print_json({"sent": self.good if sent else 0, "right": self.good, "wrong": self.bad})
        else:
            summary = f"sent {self.good:,} events" if sent else f"{self.good:,} events are valid; nothing was sent"
            console.print(summary + (f"; [red]{wrong:,} lines are wrong[/]" if wrong else ""))
        raise typer.Exit(1 if wrong else 0)


def _batches(lines: Iterator[_Line], most: int) -> Iterator[list[_Line]]:
    batch: list[_Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == most or size + len(line.body) > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.body) + 1
    if batch:
        yield batch


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Opens a file or stdin, unpacked if it is gzip, so that it can be read several times. Ends the command on
    errors."""
    try:
        if name == "-":
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
                copy.seek(0)
                yield cast(BinaryIO, copy)
            return
        with Path(name).open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if is_gzip:
                with gzip.open(file) as text:
                    yield cast(BinaryIO, text)
            else:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        fail(f"cannot read {name}: {getattr(error, 'strerror', None) or error}", 2)
