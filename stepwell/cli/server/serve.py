"""`stepwell serve`: the production server on one machine."""

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
from stepwell.cli.server.faktory import NEEDS_PASSWORD, FaktoryOption, FaktoryPasswordOption, faktory_of
from stepwell.cli.server.tls import CertificateKeyOption, CertificateOption, certificate_of
from stepwell.cli.ui.output import fail
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS
from stepwell.local.server import ServerSettings, default_parallelism

if TYPE_CHECKING:
    from stepwell.local.system.step_user import StepUser

FsyncOption = Annotated[bool, typer.Option(help="Sync every commit to disk, so that a power failure loses nothing.")]
GraceOption = Annotated[
    float,
    typer.Option(min=0, help="Seconds that running steps get to end after SIGTERM; the process exits 3 s later."),
]
StepUserOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The user that runs programs and handlers; can read the steps' code and nothing else of the server. "
        "Needs root. Default: the server's user.",
    ),
]
PublicUrlOption = Annotated[
    str,
    typer.Option(
        envvar="STEPWELL_PUBLIC_URL",
        metavar="URL",
        help="The address of this server in approval links; default: the address that it listens on.",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Do not start if a definition is wrong or cannot run here.")
]


def command(
    paths: PathsArgument = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8288,
    db: DatabaseOption = DATABASE,
    env: Annotated[str, typer.Option(help="The value of ctx.env in the input of steps.")] = "production",
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
    faktory: FaktoryOption = None,
    faktory_password_file: FaktoryPasswordOption = None,
    strict: StrictOption = False,
    allow_missing_code: MissingCodeOption = False,
) -> None:
    """Start the production server. Requests need an API key (`stepwell keys create`). Logs are JSON lines on stdout. On
    SIGTERM, running steps get time to end; the others run again at the next start. Functions are read once, at the
    start.

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
        serves_faktory=faktory is not None,
        step_user=_find_user(step_user),
        public_url=_checked_url(public_url),
        paths=tuple(paths or [Path()]),
        code_may_be_lost=allow_missing_code,
        grace_s=grace,
    )
    certificate = certificate_of(tls_cert, tls_key)
    workers = faktory_of(faktory, faktory_password_file, host, certificate)
    if workers is not None and not workers.password:
        fail(NEEDS_PASSWORD, 2)
    options = ServeOptions(settings.paths, host, port, keep_days, certificate, strict, workers)
    start(lambda: main(settings, options), grace)


def _find_user(name: str | None) -> StepUser | None:
    from stepwell.local.system.step_user import CannotBecome, find_step_user

    try:
        return None if name is None else find_step_user(name)
    except CannotBecome as reason:
        fail(str(reason))


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        fail(f"--public-url {url!r} is not a valid address; write it like https://stepwell.example.com", 2)
    return url
