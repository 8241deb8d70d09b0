"""`stepwell dev`: the development server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.server.faktory import FaktoryOption, FaktoryPasswordOption, faktory_of
from stepwell.cli.server.tls import CertificateKeyOption, CertificateOption, certificate_of
from stepwell.cli.ui.output import fail
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS
from stepwell.local.server import ServerSettings, default_parallelism

PathsArgument = Annotated[
    list[Path] | None, typer.Argument(exists=True, help="Folders to search for functions; default: this one.")
]
HostOption = Annotated[str, typer.Option("--host", help="The address to listen on.")]
PortOption = Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="The port; 0 for any free port.")]
IN_MEMORY = ":memory:"


def _check_database(path: Path) -> Path:
    if str(path) == IN_MEMORY:
        raise typer.BadParameter(f"only `stepwell dev` can use {IN_MEMORY}; name a file")
    return path


DatabaseOption = Annotated[
    Path, typer.Option("--db", help="The database file; created if missing.", callback=_check_database)
]
InMemoryDatabaseOption = Annotated[
    Path,
    typer.Option("--db", help=f"The database file; created if missing. {IN_MEMORY}: lost when the server stops."),
]
ParallelOption = Annotated[
    int | None,
    typer.Option("--parallelism", min=1, help="Steps that run at once; default: twice the available CPUs."),
]
HttpSlotsOption = Annotated[
    int, typer.Option("--http-slots", min=1, help="Requests of http steps at once, besides --parallelism.")
]
NoContainersOption = Annotated[
    bool,
    typer.Option(
        "--no-containers",
        envvar="STEPWELL_NO_CONTAINERS",
        help="Run the ENTRYPOINT and CMD of docker steps as local programs.",
    ),
]
MissingCodeOption = Annotated[
    bool,
    typer.Option("--allow-missing-code", help="Start even if code of live versions or open runs is missing."),
]
KeepOption = Annotated[
    float, typer.Option("--keep-days", min=1, help="Days after which events and ended runs are deleted.")
]
KeyOption = Annotated[str | None, typer.Option("--key", help="The only API key to accept; default: any key, or none.")]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A further host name to answer for, such as host.docker.internal or *.local. Repeatable.",
    ),
]
LinesOption = Annotated[bool, typer.Option("--json", help="Print what happens as JSON lines.")]
DATABASE = Path(".stepwell/stepwell.db")


def command(
    paths: PathsArgument = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8288,
    db: InMemoryDatabaseOption = DATABASE,
    key: KeyOption = None,
    allow_host: AllowHostOption = None,
    parallelism: ParallelOption = None,
    http_slots: HttpSlotsOption = DEFAULT_HTTP_SLOTS,
    no_containers: NoContainersOption = False,
    keep_days: KeepOption = 30,
    tls_cert: CertificateOption = None,
    tls_key: CertificateKeyOption = None,
    faktory: FaktoryOption = None,
    faktory_password_file: FaktoryPasswordOption = None,
    allow_missing_code: MissingCodeOption = False,
    as_json: LinesOption = False,
) -> None:
    """Start the development server: it finds the functions below the paths, reloads them when their files change, and
    prints what happens.

    Example: stepwell dev functions/ --port 9000
    """
    from stepwell.api.access import LocalOnly
    from stepwell.dev.server import DevOptions, main, main_in_memory

    try:
        local_only = LocalOnly(host, allow_host or ())
    except ValueError as error:
        fail(f"--allow-host: {error}", 2)
    settings = ServerSettings(
        database=db,
        parallelism=parallelism or default_parallelism(),
        http_slots=http_slots,
        no_containers=no_containers,
        serves_faktory=faktory is not None,
        paths=tuple(paths or [Path()]),
        code_may_be_lost=allow_missing_code,
    )
    certificate = certificate_of(tls_cert, tls_key)
    workers = faktory_of(faktory, faktory_password_file, host, certificate)
    options = DevOptions(settings.paths, host, port, key, local_only, keep_days, as_json, certificate, workers)
    start(lambda: main(settings, options) if str(db) != IN_MEMORY else main_in_memory(settings, options))


def start(main: Callable[[], Coroutine[None, None, None]], grace_s: float = 0.0) -> None:
    """Runs a server until SIGINT or SIGTERM, and ends the process.

    The first signal gives running steps `grace_s` to end; the second does not wait for them. If the server cannot
    start, the reason is printed as an error, without a traceback.
    """
    import asyncio

    import uvloop

    from stepwell.cli.server.ending import end_process, until_stopped
    from stepwell.local.code.check import CodeLost
    from stepwell.local.database.lock import InUse
    from stepwell.local.database.schema import BadDatabase
    from stepwell.local.in_service import NotInService
    from stepwell.local.reaper import orphans_reaped

    async def as_server() -> None:
        async with orphans_reaped():
            await main()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_stopped(as_server, grace_s))
            end_process(0)
    except (InUse, BadDatabase, CodeLost, NotInService, OSError) as error:
        fail(str(error))
