"""`stepwell restore`: restores the database and the code of all versions from a backup."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.server.dev import DATABASE, DatabaseOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json, stderr
from stepwell.local.server import ServerSettings
from stepwell.terminal import styled


def command(
    file: Annotated[Path, typer.Argument(help="A file written by `stepwell backup`; - for stdin.", allow_dash=True)],
    db: DatabaseOption = DATABASE,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing database.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore the database and the code of all versions from a backup. Stop the server first. The whole backup is
    checked before anything is changed. Runs continue from the time of the backup when the server starts.

    Example: stepwell restore /backups/stepwell-monday.tar --db /var/lib/stepwell/stepwell.db
    """
    from stepwell.cli.ui.progress import Copying
    from stepwell.cli.ui.times import shown
    from stepwell.local.backup.restore import BadBackup, NotRestored, restore
    from stepwell.local.database.lock import InUse

    if file != Path("-") and not file.is_file():
        fail(f"there is no backup {file}", 2)
    try:
        with contextlib.ExitStack() as stack:
            source = sys.stdin.buffer if file == Path("-") else stack.enter_context(file.open("rb"))
            size = 0 if file == Path("-") else file.stat().st_size
            copying = stack.enter_context(Copying(stderr))
            done = restore(source, db, ServerSettings(db).code, force=force, progress=copying.adding("backup", size))
    except BadBackup as error:
        fail(f"{file}: {error}. Nothing was changed")
    except (NotRestored, InUse, OSError) as error:
        fail(str(error))
    if as_json:
        print_json({"db": str(db), "made_at": done.made_at, "made_by": done.made_by, "code": done.code})
    else:
        summary = f"restored {db} as of {shown(done.made_at)}, with the code of {done.code} steps; start the server now"
        console.print(styled(summary), soft_wrap=True)
