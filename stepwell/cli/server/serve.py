"""`stepwell serve`: the server for a small machine in production.

The command has many parameters, since Typer makes an option of each, and is as long as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from stepwell.cli.server.dev import (
    DATABASE,
    DatabaseOption,
    HostOption,
    HttpSlotsOption,
    KeepOption,
    MissingCodeOption,
    NoContainersOption,
    ParallelOption,
    PathsArgument,
    PortOption,
    start,
)
from stepwell.cli.server.ending import GRACE_S
from stepwell.cli.server.tls import CertificateKeyOption, CertificateOption, certificate_of
from stepwell.cli.ui.output import fail
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS
from stepwell.local.server import ServerSettings, default_parallelism

if TYPE_CHECKING:
    from stepwell.local.system.step_user import StepUser

FsyncOption = Annotated[bool, typer.Option(help="Sync every commit to disk, so that a power cut loses nothing.")]
GraceOption = Annotated[
    float,
    typer.Option(min=0, help="Seconds that running steps get to end on SIGTERM; 3 s later the process has ended."),
]
StepUserOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Run programs and handlers as this user, who can read their code and nothing else of the server; "
        "needs root. Default: as the server's user.",
    ),
]
PublicUrlOption = Annotated[
    str,
    typer.Option(
        envvar="STEPWELL_PUBLIC_URL",
        metavar="URL",
        help="Where people reach this server, for links to approvals; default: the address it listens on.",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Do not start if a definition does not load, or cannot run here.")
]


def command(
    paths: PathsArgument = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8288,
    db: DatabaseOption = DATABASE,
    env: Annotated[str, typer.Option(help="What steps see as ctx.env.")] = "production",
    fsync: FsyncOption = True,
    grace: GraceOption = GRACE_S,
    parallelism: ParallelOption = None,
    http_slots: HttpSlotsOption = DEFAULT_HTTP_SLOTS,
    no_containers: NoContainersOption = False,
    keep_days: KeepOption = 30,
    step_user: StepUserOption = None,
    tls_cert: CertificateOption = None,
    tls_key: CertificateKeyOption = None,
    public_url: PublicUrlOption = "",
    strict: StrictOption = False,
    allow_missing_code: MissingCodeOption = False,
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
        http_slots=http_slots,
        no_containers=no_containers,
        step_user=_user(step_user),
        public_url=_checked(public_url),
        paths=tuple(paths or [Path()]),
        code_may_be_lost=allow_missing_code,
        grace_s=grace,
    )
    options = ServeOptions(settings.paths, host, port, keep_days, certificate_of(tls_cert, tls_key), strict)
    start(lambda: main(settings, options), grace)


def _user(name: str | None) -> StepUser | None:
    from stepwell.local.system.step_user import CannotBecome, find_step_user

    try:
        return None if name is None else find_step_user(name)
    except CannotBecome as reason:
        fail(str(reason))


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        fail(f"--public-url {url!r} is no address such as https://stepwell.example.com", 2)
    return url
