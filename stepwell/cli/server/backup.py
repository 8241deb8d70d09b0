"""`stepwell backup`: writes the database and the code of all versions to one file, while the server runs."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from stepwell.cli.server.dev import DATABASE, DatabaseOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json, stderr, warn
from stepwell.local.server import ServerSettings
from stepwell.terminal import shown

_STDOUT = Path("-")


def command(
    file: Annotated[Path, typer.Argument(help="The file to write; - for stdout.", allow_dash=True)],
    db: DatabaseOption = DATABASE,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the database and the code of all versions to one file. The server may keep running. Keep the file private:
    it contains all events, and the secret that signs approval links.

    Example: stepwell backup /backups/stepwell-monday.tar --db /var/lib/stepwell/stepwell.db
    """
    from stepwell.cli.ui.progress import Copying
    from stepwell.local.backup.backup import BackupError, back_up
    from stepwell.local.database.schema import BadDatabase

    if not db.is_file():
        fail(f"there is no database {db}; pass the path of the server's database with --db", 2)
    try:
        with _output(file, force) as (to, scratch), Copying(stderr) as copying:
            done = back_up(db, ServerSettings(db).code, to, scratch, copying.show)
    except (BackupError, BadDatabase, OSError) as error:
        fail(str(error))
    for name in done.missing:
        warn(f"the code of {name} is missing, and is not in the backup; no live version or open run needs it")
    if as_json and file != _STDOUT:
        print_json({"file": str(file), "bytes": file.stat().st_size, "code": done.code, "missing": done.missing})
    elif file != _STDOUT:
        size = file.stat().st_size / 1e6
        console.print(
            f"{shown(file)}: the database and the code of {done.code:,} steps, {size:,.1f} MB", soft_wrap=True
        )


@contextlib.contextmanager
def _output(file: Path, force: bool) -> Iterator[tuple[IO[bytes], Path]]:
    """Yields the stream to write to and a folder for temporary files. `file` appears when everything is written."""
    if file == _STDOUT:
        if sys.stdout.isatty():
            fail("a backup cannot be written to a terminal; redirect the output, or name a file", 2)
        yield sys.stdout.buffer, Path(tempfile.gettempdir())
        sys.stdout.buffer.flush()
        return
    if file.is_dir() or not file.parent.is_dir():
        fail(f"cannot write {file}: name a file in an existing folder", 2)
    _refuse_to_replace(file, force)
    descriptor, part = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as to:
            yield to, file.parent
            to.flush()
            os.fsync(to.fileno())
        _refuse_to_replace(file, force)
        Path(part).replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    finally:
        Path(part).unlink(missing_ok=True)


def _refuse_to_replace(file: Path, force: bool) -> None:
    if file.exists() and not force:
        fail(f"{file} already exists; name another file, or replace it with --force")
