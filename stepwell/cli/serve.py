"""`stepwell serve`: the server for a small machine in production."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.dev import (
    DATABASE,
    DatabaseOption,
    HostOption,
    KeepOption,
    NoContainersOption,
    ParallelOption,
    PathsArgument,
    PortOption,
    start,
)
from stepwell.local.server import ServerSettings, default_parallelism


def command(
    paths: PathsArgument = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8288,
    db: DatabaseOption = DATABASE,
    env: Annotated[str, typer.Option(help="What steps see as ctx.env.")] = "production",
    fsync: Annotated[bool, typer.Option(help="Sync every commit to disk, so that a power cut loses nothing.")] = True,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that running steps get to end on SIGTERM.")] = 20,
    parallelism: ParallelOption = None,
    no_containers: NoContainersOption = False,
    keep_days: KeepOption = 30,
) -> None:
    """Start a server for production: keys are required (`stepwell keys create`), logs are JSON lines on stdout, SIGTERM
    lets running steps end and queues the others again. Functions are read once, at the start.

    Example: stepwell serve functions/ --host 0.0.0.0 --db /var/lib/stepwell/stepwell.db
    """
    from stepwell.local.serve import ServeOptions, main

    settings = ServerSettings(
        database=db,
        env=env,
        durable=fsync,
        parallelism=parallelism or default_parallelism(),
        no_containers=no_containers,
    )
    options = ServeOptions(tuple(paths or [Path()]), host, port, grace, keep_days)
    start(lambda: main(settings, options))
